"""The console: `dmq-tui`."""
