"""The `dmq` command; the only place in the core that prints."""
