"""The publish screen."""
