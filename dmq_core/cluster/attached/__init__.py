"""Clusters that somebody else runs: reached by URL, and only watched."""
