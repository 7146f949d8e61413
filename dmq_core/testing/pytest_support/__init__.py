"""The pytest plugin: a real cluster for tests, and proof blocks."""
