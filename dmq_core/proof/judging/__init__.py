"""Decides, from the journal alone: the account of every message, the timeline, the verdict."""
