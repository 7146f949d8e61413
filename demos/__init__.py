"""Guided demos, one per file; each explains, acts and checks its claim on the live cluster."""
