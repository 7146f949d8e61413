"""Producers, consumers and taps; `transport` is the only module that knows pika."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmq_core.messaging.consumers import DirectConsumer, FanoutConsumer, HeadersConsumer, TopicConsumer
    from dmq_core.messaging.producers import DirectProducer, FanoutProducer, HeadersProducer, TopicProducer

__all__ = [
    "DirectConsumer",
    "DirectProducer",
    "FanoutConsumer",
    "FanoutProducer",
    "HeadersConsumer",
    "HeadersProducer",
    "TopicConsumer",
    "TopicProducer",
]

_HOMES = {name: "producers" if name.endswith("Producer") else "consumers" for name in __all__}


def __getattr__(name: str) -> object:
    # Loaded when asked for: the modules of this package import each other, and most of them need none of these.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
