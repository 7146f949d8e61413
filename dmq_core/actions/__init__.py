"""What can be done to a node or a cluster: its words, its undo, its impact, and the one gate that may refuse it."""
