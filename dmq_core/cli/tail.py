"""`dmq tail`: messages as they pass, copied, never taken."""

from __future__ import annotations

import queue as queue_module
import time
from typing import TYPE_CHECKING, Any

import click

from dmq_core.actions.gate import guard_change
from dmq_core.cli import connect
from dmq_core.cli.messages import MessageFilter, write_message
from dmq_core.cli.options import Invocation, common_options
from dmq_core.cli.output import Output
from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import SeenMessage
from dmq_core.messaging.tap.source import TailSource
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.session.protocol import Tail

_LOOK_S = 0.2
_MOST_WAITING = 10_000


@click.command()
@click.option("--exchange", metavar="X", help="Messages published to this exchange.")
@click.option(
    "--key", default="#", metavar="PATTERN", help="Only routing keys that match this topic pattern (default: #)."
)
@click.option("--queue", metavar="Q", help="Messages routed to this queue.")
@click.option(
    "--firehose", is_flag=True, help="All publishes and deliveries in the virtual host; puts load on the broker."
)
@click.option("--vhost", default="/", metavar="NAME", help="Virtual host (default: /).")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="EXPR",
    help="Only messages that contain this text or match FIELD=GLOB; a leading ! inverts it.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after N messages.")
@click.option("--for", "seconds", type=click.FloatRange(0), metavar="SECONDS", help="Stop after this many seconds.")
@common_options
def tail(
    invocation: Invocation,
    firehose: bool,
    filters: tuple[str, ...],
    limit: int | None,
    seconds: float | None,
    **source: Any,
) -> None:
    """Watch messages as they pass; none is consumed.

    How messages are watched, and which ones cannot be seen, is written to stderr. FIELD in a filter is exchange, key,
    queue, body or header.NAME. Without --limit and --for it runs until Ctrl-C.
    """
    if firehose:
        guard_change("The firehose changes the broker", read_only=invocation.settings.read_only.value)
    looked_at = _source(firehose=firehose, **source)
    wanted = MessageFilter(filters)
    arrived: queue_module.Queue[SeenMessage] = queue_module.Queue(_MOST_WAITING)
    overflow: list[int] = []

    def arrive(batch: tuple[SeenMessage, ...]) -> None:
        for message in batch:
            if wanted.matches(message):
                try:
                    arrived.put_nowait(message)
                except queue_module.Full:
                    overflow.append(1)

    with connect.open_session(invocation.settings) as session:
        running = session.tail(looked_at, arrive)
        try:
            _write_all(invocation.out, running, arrived, limit, seconds)
        finally:
            dropped = running.status().dropped + len(overflow)
            running.close()
            if dropped:
                invocation.out.say(f"{dropped} messages arrived too fast and were not shown")


def _source(*, exchange: str | None, key: str, queue: str | None, firehose: bool, vhost: str) -> TailSource:
    if (exchange is not None) + (queue is not None) + firehose != 1:
        raise InvalidInputError("say what to look at", "Give one of --exchange X, --queue Q and --firehose.")
    if exchange == "":
        raise InvalidInputError("nothing can be bound to the default exchange", "Give --queue Q or --firehose instead.")
    return TailSource(exchange=exchange, pattern=key, queue=queue, virtual_host=vhost)


def _write_all(
    out: Output,
    running: Tail,
    arrived: queue_module.Queue[SeenMessage],
    limit: int | None,
    seconds: float | None,
) -> None:
    deadline = None if seconds is None else time.monotonic() + seconds
    written, told = 0, _Told(out, running)
    while (limit is None or written < limit) and (deadline is None or time.monotonic() < deadline):
        told.look()
        try:
            message = arrived.get(timeout=_LOOK_S)
        except queue_module.Empty:
            continue
        write_message(out, message)
        written += 1


class _Told:
    """Says on stderr how the tail looks, and what keeps it from looking, each once."""

    def __init__(self, out: Output, running: Tail) -> None:
        self._out = out
        self._running = running
        self._last: str | None = None

    def look(self) -> None:
        status = self._running.status()
        if status.problem == self._last:
            return
        self._last = status.problem
        if status.problem:
            self._out.say(f"tail: {visible(status.problem)}")
            return
        unseen = f"; cannot see here: {', '.join(map(visible, status.blind_spots))}" if status.blind_spots else ""
        self._out.say(f"tail by {visible(status.method)}{unseen}")
