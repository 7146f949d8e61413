"""Loads and the account of what became of every message."""
