"""Properties are checked without a stopwatch: a busy machine is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None, max_examples=60, stateful_step_count=30)
settings.load_profile("unit")
