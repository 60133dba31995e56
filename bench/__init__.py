"""Measurements: one module a question, medians with spread, ratios from one run."""
