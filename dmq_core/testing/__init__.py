"""Fakes that behave like the real thing and pass the same contract tests, for tests of ours and of users."""
