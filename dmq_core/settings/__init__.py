"""The settings in effect: from flags, the environment, a file, and where each came from."""
