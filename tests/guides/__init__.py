"""The pages that people follow: read as they read them, and carried out as they would."""
