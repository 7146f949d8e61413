"""Keeps what a proof run saw, record by record, in a file that outlives a crash."""
