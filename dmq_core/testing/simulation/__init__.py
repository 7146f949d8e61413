"""A session and a cluster without nodes, for tests and pictures."""
