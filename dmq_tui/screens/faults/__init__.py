"""The faults screen."""
