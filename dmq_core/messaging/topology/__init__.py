"""Exchanges, queues and bindings: as values, as declared, and declared again after a reconnect."""
