"""Producers, consumers and taps; `transport` is the only module that knows pika.

Each name is loaded when it is first used. The examples in the docstrings take these names as given, and a `manager`: a
`BrokerConnectionManager` with a broker registered.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmq_core.endpoints import TlsSettings
    from dmq_core.messaging.connection.load_balancing import Policy
    from dmq_core.messaging.connection.states import ConnectionState, ConnectionStatus
    from dmq_core.messaging.consuming.consumer import Consumer, ConsumerOptions, Order
    from dmq_core.messaging.consuming.consumers import DirectConsumer, FanoutConsumer, HeadersConsumer, TopicConsumer
    from dmq_core.messaging.consuming.decoding import DecodingError, MessageHeaders, bytes_only, decode_message
    from dmq_core.messaging.consuming.handler_runner import ConsumerStats
    from dmq_core.messaging.consuming.subscription import ConsumerStatus
    from dmq_core.messaging.delivery.delivery import Answer, Delivery
    from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage, PublishResult, SeenMessage
    from dmq_core.messaging.publishing.aio import AsyncProducer
    from dmq_core.messaging.publishing.producers import (
        DirectProducer,
        FanoutProducer,
        HeadersProducer,
        Producer,
        TopicProducer,
    )
    from dmq_core.messaging.publishing.publish_future import PublishFuture
    from dmq_core.messaging.publishing.publisher import ProducerLimits
    from dmq_core.messaging.retry.delayed import Retry
    from dmq_core.messaging.retry.failure_policy import FailurePath, FailurePlan
    from dmq_core.messaging.retry.requeue import Requeue
    from dmq_core.messaging.tap.source import TailSource, TailStatus
    from dmq_core.messaging.tap.tap import Tap
    from dmq_core.messaging.topology.lint import Explanation, LintFinding, LintSeverity
    from dmq_core.messaging.topology.model import Binding, Exchange, PrivateBinding, Queue

__all__ = [
    "Answer",
    "AsyncProducer",
    "Binding",
    "ConnectionState",
    "ConnectionStatus",
    "Consumer",
    "ConsumerOptions",
    "ConsumerStats",
    "ConsumerStatus",
    "DecodingError",
    "Delivery",
    "DirectConsumer",
    "DirectProducer",
    "Exchange",
    "Explanation",
    "FailurePath",
    "FailurePlan",
    "FanoutConsumer",
    "FanoutProducer",
    "HeadersConsumer",
    "HeadersProducer",
    "LintFinding",
    "LintSeverity",
    "MessageHeaders",
    "MessageProperties",
    "Order",
    "Outcome",
    "OutgoingMessage",
    "Policy",
    "PrivateBinding",
    "Producer",
    "ProducerLimits",
    "PublishFuture",
    "PublishResult",
    "Queue",
    "Requeue",
    "Retry",
    "SeenMessage",
    "TailSource",
    "TailStatus",
    "Tap",
    "TlsSettings",
    "TopicConsumer",
    "TopicProducer",
    "bytes_only",
    "decode_message",
]

_HOMES = {
    "dmq_core.endpoints": ("TlsSettings",),
    "dmq_core.messaging.connection.load_balancing": ("Policy",),
    "dmq_core.messaging.connection.states": (
        "ConnectionState",
        "ConnectionStatus",
    ),
    "dmq_core.messaging.consuming.consumers": (
        "DirectConsumer",
        "FanoutConsumer",
        "HeadersConsumer",
        "TopicConsumer",
    ),
    "dmq_core.messaging.consuming.decoding": (
        "DecodingError",
        "MessageHeaders",
        "bytes_only",
        "decode_message",
    ),
    "dmq_core.messaging.consuming.handler_runner": ("ConsumerStats",),
    "dmq_core.messaging.consuming.consumer": (
        "ConsumerOptions",
        "Order",
        "Consumer",
    ),
    "dmq_core.messaging.consuming.subscription": ("ConsumerStatus",),
    "dmq_core.messaging.delivery.delivery": (
        "Answer",
        "Delivery",
    ),
    "dmq_core.messaging.messages": (
        "MessageProperties",
        "Outcome",
        "OutgoingMessage",
        "SeenMessage",
        "PublishResult",
    ),
    "dmq_core.messaging.publishing.aio": ("AsyncProducer",),
    "dmq_core.messaging.publishing.publish_future": ("PublishFuture",),
    "dmq_core.messaging.publishing.producers": (
        "DirectProducer",
        "Producer",
        "FanoutProducer",
        "HeadersProducer",
        "TopicProducer",
    ),
    "dmq_core.messaging.publishing.publisher": ("ProducerLimits",),
    "dmq_core.messaging.retry.delayed": ("Retry",),
    "dmq_core.messaging.retry.failure_policy": (
        "FailurePath",
        "FailurePlan",
    ),
    "dmq_core.messaging.retry.requeue": ("Requeue",),
    "dmq_core.messaging.tap.source": (
        "TailSource",
        "TailStatus",
    ),
    "dmq_core.messaging.tap.tap": ("Tap",),
    "dmq_core.messaging.topology.lint": (
        "Explanation",
        "LintFinding",
        "LintSeverity",
    ),
    "dmq_core.messaging.topology.model": (
        "Binding",
        "Exchange",
        "PrivateBinding",
        "Queue",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    # Loaded when asked for: the modules of this package import each other, and most of them need none of these.
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
