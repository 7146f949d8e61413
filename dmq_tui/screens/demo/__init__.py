"""The demo screen."""
