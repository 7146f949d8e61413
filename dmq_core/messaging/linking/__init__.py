"""Connections that come back: where to dial next, what to do when a link ends, who is told."""
