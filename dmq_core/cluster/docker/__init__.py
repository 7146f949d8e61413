"""Clusters whose nodes are containers."""
