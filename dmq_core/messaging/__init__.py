"""Producers, consumers and taps; `transport` is the only module that knows pika.

Each name is loaded when it is first used. The examples in the docstrings take these names as given, and a `manager`: a
`BrokerConnectionManager` with a broker registered.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dmq_core.endpoints import TlsSettings
    from dmq_core.messaging.aio import AsyncProducer
    from dmq_core.messaging.consumers import DirectConsumer, FanoutConsumer, HeadersConsumer, TopicConsumer
    from dmq_core.messaging.consuming.consumer import ConsumerStatus
    from dmq_core.messaging.consuming.decoding import MessageHeaders, Undecodable, bytes_only, decode_message
    from dmq_core.messaging.consuming.delivery import Answer, Delivery
    from dmq_core.messaging.consuming.failures import FailurePath, FailurePlan, Requeue
    from dmq_core.messaging.consuming.handling import ConsumerStats
    from dmq_core.messaging.consuming.queue_consumer import ConsumerOptions, Order, QueueConsumer
    from dmq_core.messaging.declaring.topology_rules import Explanation, Finding, Severity
    from dmq_core.messaging.linking.balancing import Policy
    from dmq_core.messaging.linking.states import ConnectionState, ConnectionStatus
    from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage, SeenMessage, Settlement
    from dmq_core.messaging.producers import (
        DirectProducer,
        ExchangeProducer,
        FanoutProducer,
        HeadersProducer,
        TopicProducer,
    )
    from dmq_core.messaging.publishing.handles import Handle
    from dmq_core.messaging.publishing.producer import ProducerLimits
    from dmq_core.messaging.retry import Retry
    from dmq_core.messaging.tap import Tap
    from dmq_core.messaging.topology import Binding, Exchange, PrivateBinding, Queue
    from dmq_core.session import TailSource, TailStatus

__all__ = [
    "Answer",
    "AsyncProducer",
    "Binding",
    "ConnectionState",
    "ConnectionStatus",
    "ConsumerOptions",
    "ConsumerStats",
    "ConsumerStatus",
    "Delivery",
    "DirectConsumer",
    "DirectProducer",
    "Exchange",
    "ExchangeProducer",
    "Explanation",
    "FailurePath",
    "FailurePlan",
    "FanoutConsumer",
    "FanoutProducer",
    "Finding",
    "Handle",
    "HeadersConsumer",
    "HeadersProducer",
    "MessageHeaders",
    "MessageProperties",
    "Order",
    "Outcome",
    "OutgoingMessage",
    "Policy",
    "PrivateBinding",
    "ProducerLimits",
    "Queue",
    "QueueConsumer",
    "Requeue",
    "Retry",
    "SeenMessage",
    "Settlement",
    "Severity",
    "TailSource",
    "TailStatus",
    "Tap",
    "TlsSettings",
    "TopicConsumer",
    "TopicProducer",
    "Undecodable",
    "bytes_only",
    "decode_message",
]

_HOMES = {
    "dmq_core.endpoints": ("TlsSettings",),
    "dmq_core.messaging.aio": ("AsyncProducer",),
    "dmq_core.messaging.consumers": (
        "DirectConsumer",
        "FanoutConsumer",
        "HeadersConsumer",
        "TopicConsumer",
    ),
    "dmq_core.messaging.consuming.consumer": ("ConsumerStatus",),
    "dmq_core.messaging.consuming.decoding": (
        "MessageHeaders",
        "Undecodable",
        "bytes_only",
        "decode_message",
    ),
    "dmq_core.messaging.consuming.delivery": (
        "Answer",
        "Delivery",
    ),
    "dmq_core.messaging.consuming.failures": (
        "FailurePath",
        "FailurePlan",
        "Requeue",
    ),
    "dmq_core.messaging.consuming.handling": ("ConsumerStats",),
    "dmq_core.messaging.consuming.queue_consumer": (
        "ConsumerOptions",
        "Order",
        "QueueConsumer",
    ),
    "dmq_core.messaging.declaring.topology_rules": (
        "Explanation",
        "Finding",
        "Severity",
    ),
    "dmq_core.messaging.linking.balancing": ("Policy",),
    "dmq_core.messaging.linking.states": (
        "ConnectionState",
        "ConnectionStatus",
    ),
    "dmq_core.messaging.messages": (
        "MessageProperties",
        "Outcome",
        "OutgoingMessage",
        "SeenMessage",
        "Settlement",
    ),
    "dmq_core.messaging.producers": (
        "DirectProducer",
        "ExchangeProducer",
        "FanoutProducer",
        "HeadersProducer",
        "TopicProducer",
    ),
    "dmq_core.messaging.publishing.handles": ("Handle",),
    "dmq_core.messaging.publishing.producer": ("ProducerLimits",),
    "dmq_core.messaging.retry": ("Retry",),
    "dmq_core.messaging.tap": ("Tap",),
    "dmq_core.messaging.topology": (
        "Binding",
        "Exchange",
        "PrivateBinding",
        "Queue",
    ),
    "dmq_core.session": (
        "TailSource",
        "TailStatus",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    # Loaded when asked for: the modules of this package import each other, and most of them need none of these.
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
