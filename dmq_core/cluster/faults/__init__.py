"""Faults of a whole cluster: what they are, and how they are injected and undone."""
