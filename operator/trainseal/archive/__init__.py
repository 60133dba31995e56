"""The archive: keeps every seal, finding and access record, whatever is deleted later."""
