"""Topologies to fill a fake cluster with."""

from __future__ import annotations

from dmq_core.testing.simulation.broker import SimBroker

HOSTILE_NAMES = (
    "[bold red]not markup[/]",
    "[/]",
    "line\nbreak",
    "bell\x07 and \x1b[31mred\x1b[0m",
    "right\u202eto left",
    "zero\u200bwidth",
    "日本語のキュー",
    "emoji 👩‍👩‍👧 queue",
    "per%2Fcent and / slash",
    " spaces at the ends ",
    "x" * 255,
    "'quotes\" and \\ back `slash`",
    "#id .class $(sub)",
)


def nothing(_broker: SimBroker) -> None:
    """Only what every broker has.

    >>> from dmq_core.testing import FakeSession
    >>> len(FakeSession(nothing).snapshot().queues)
    0
    """


def shop(broker: SimBroker) -> None:
    """A few exchanges of each type and the queues behind them, with some traffic.

    >>> from dmq_core.testing import FakeSession
    >>> sorted(queue.figures.name for queue in FakeSession(shop).snapshot().queues)[:3]
    ['audit', 'mail', 'orders']
    """
    broker.declare_exchange("orders", "topic")
    broker.declare_exchange("payments", "direct", alternate_exchange="unrouted")
    broker.declare_exchange("unrouted", "fanout")
    broker.declare_exchange("news", "fanout")
    broker.declare_exchange("reports", "headers")
    for name, leader, rate in (("orders", "rmq2", 120.0), ("orders.eu", "rmq3", 40.0), ("payments", "rmq2", 12.0)):
        broker.declare_queue(name, leader=leader).steady_rate = rate
    broker.declare_queue("unrouted", leader="rmq1")
    broker.declare_queue("mail", "classic", leader="rmq1")
    broker.declare_queue("small", "classic", leader="rmq2", x_max_length=3, x_overflow="reject-publish")
    broker.declare_queue("audit", "stream", leader="rmq3")
    broker.bind("orders", "orders", "order.#")
    broker.bind("orders", "orders.eu", "order.eu.*")
    broker.bind("orders", "audit", "#")
    broker.bind("payments", "payments", "paid")
    broker.bind("payments", "small", "small")
    broker.bind("unrouted", "unrouted")
    broker.bind("news", "mail")
    broker.bind("news", "orders", to="exchange")
    broker.bind("reports", "mail", x_match="any", kind="daily", urgent=True)


def thousand_queues(broker: SimBroker) -> None:
    """The shop and 1,000 queues more.

    >>> from dmq_core.testing import FakeSession
    >>> len(FakeSession(thousand_queues).snapshot().queues) > 1000
    True
    """
    shop(broker)
    for number in range(1000):
        broker.declare_queue(f"bulk.{number:04}", "classic" if number % 4 == 0 else "quorum")
        broker.bind("orders", f"bulk.{number:04}", f"bulk.{number % 10}.#")


def hostile(broker: SimBroker) -> None:
    """Names that try to be markup, escape sequences, identifiers, paths, or very long.

    >>> from dmq_core.testing import HOSTILE_NAMES, FakeSession
    >>> {queue.figures.name for queue in FakeSession(hostile).snapshot().queues} == set(HOSTILE_NAMES)
    True
    """
    for name in HOSTILE_NAMES:
        broker.declare_exchange(name, "fanout")
        broker.declare_queue(name)
        broker.bind(name, name, name)
