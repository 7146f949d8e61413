"""Guided demos: what a demo is, the live cluster that it plays on, and the engine that every front end runs it with."""

from __future__ import annotations
