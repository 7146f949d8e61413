"""`dmq consume`: take messages from a queue, each acknowledged once it is written out."""

from __future__ import annotations

import queue as queue_module
import time
from typing import TYPE_CHECKING

import click

from dmq_core.actions.gate import guard_change
from dmq_core.cli import connect
from dmq_core.cli.messages import write_message
from dmq_core.cli.options import Invocation, common_options
from dmq_core.messaging.delivery.stream_offset import checked_offset
from dmq_core.messaging.messages import SeenMessage

if TYPE_CHECKING:
    from dmq_core.messaging.delivery.delivery import Delivery

_LOOK_S = 0.2


@click.command()
@click.argument("queue")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after N messages.")
@click.option("--for", "seconds", type=click.FloatRange(0), metavar="SECONDS", help="Stop after this many seconds.")
@click.option(
    "--prefetch",
    type=click.IntRange(1, 65535),
    default=100,
    metavar="N",
    help="Most unacknowledged messages (default: 100).",
)
@click.option(
    "--offset", metavar="WHERE", help="Where to start in a stream: first, last, next, an offset, or an age such as 1h."
)
@click.option(
    "--reject",
    is_flag=True,
    help="Reject messages instead: dead-lettered, or dropped if there is no dead-letter exchange.",
)
@common_options
def consume(
    invocation: Invocation,
    queue: str,
    limit: int | None,
    seconds: float | None,
    prefetch: int,
    offset: str | None,
    reject: bool,
) -> None:
    """Consume messages from a queue.

    Each message is acknowledged once it is written out; the others go back to QUEUE. A stream needs --offset and keeps
    its messages. Without --limit and --for it runs until Ctrl-C.
    """
    guard_change(f"Consume from {queue}", read_only=invocation.settings.read_only.value)
    start = None if offset is None else checked_offset(int(offset) if offset.isascii() and offset.isdigit() else offset)
    arrived: queue_module.Queue[Delivery] = queue_module.Queue()

    def arrive(deliveries: tuple[Delivery, ...]) -> None:
        for delivery in deliveries:
            arrived.put(delivery)

    taken = 0
    deadline = None if seconds is None else time.monotonic() + seconds
    at_once = min(prefetch, limit or prefetch)
    with connect.open_consumer(invocation.settings, queue, arrive, prefetch=at_once, offset=start):
        while (limit is None or taken < limit) and (deadline is None or time.monotonic() < deadline):
            try:
                delivery = arrived.get(timeout=_LOOK_S)
            except queue_module.Empty:
                continue
            if not delivery.is_current:
                continue
            write_message(invocation.out, _seen(delivery))
            _answer(delivery, reject)
            taken += 1
    invocation.out.say(f"{taken} message{'' if taken == 1 else 's'} {'rejected' if reject else 'consumed'}")


def _answer(delivery: Delivery, reject: bool) -> None:
    if reject:
        delivery.reject()
    else:
        delivery.ack()


def _seen(delivery: Delivery) -> SeenMessage:
    return SeenMessage(
        at=delivery.at,
        exchange=delivery.exchange,
        routing_key=delivery.routing_key,
        body=delivery.body,
        size=len(delivery.body),
        properties=delivery.properties,
        queue=delivery.queue,
        redelivered=delivery.redelivered,
    )
