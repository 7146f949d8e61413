"""Connections that come back: which endpoint is next, what follows a loss, who is told."""
