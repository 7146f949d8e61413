"""`dmq publish`: one confirmed producer, and what became of each message."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dmq_core.actions.gate import guard_change
from dmq_core.cli import connect
from dmq_core.cli.options import Invocation, common_options
from dmq_core.cli.output import Output
from dmq_core.errors import InvalidInputError
from dmq_core.messaging.messages import Outcome, OutgoingMessage, PublishResult
from dmq_core.messaging.typed_fields import parse_headers, parse_properties
from dmq_core.presentation import duration
from dmq_core.progress import Progress, no_progress
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.messaging.publishing.publish_future import PublishFuture
from dmq_core.messaging.publishing.publisher import Publisher

_MOST_REASONS = 5
_PROGRESS_EVERY_S = 0.5


@click.command()
@click.argument("body", required=False)
@click.option("--exchange", default="", metavar="X", help="Exchange (default: the default exchange).")
@click.option("--key", default="", metavar="K", help="Routing key; with the default exchange, the queue's name.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Header; repeatable.")
@click.option("--property", "properties", multiple=True, metavar="NAME=VALUE", help="Message property; repeatable.")
@click.option("--file", "file", type=click.Path(path_type=Path), metavar="F", help="Read the body from a file.")
@click.option("--count", type=click.IntRange(1), default=1, metavar="N", help="Number of copies (default: 1).")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="R", help="Maximum messages per second.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600, min_open=True),
    default=10.0,
    metavar="S",
    help="Seconds to wait for the last confirms (default: 10).",
)
@common_options
def publish(
    invocation: Invocation,
    count: int,
    rate: float | None,
    timeout: float,
    **message: Any,
) -> int:
    """Publish messages and report the outcome of each.

    BODY is published as a mandatory, persistent message with publisher confirms; '-' reads it from standard input.
    Header values that look like numbers, true, false or JSON are sent with that type.

    Exit status: 0 if every message was confirmed, 1 otherwise.
    """
    guard_change("Publish", read_only=invocation.settings.read_only.value)
    outgoing = _message(**message)
    tally = _Tally()
    try:
        with connect.open_producer(invocation.settings, tally.settled) as producer:
            _publish_all(invocation.out, producer, outgoing, count, rate, tally)
            producer.close(timeout)
    finally:
        tally.report(invocation.out)
    return 0 if tally.count(Outcome.CONFIRMED) == count else 1


def _publish_all(
    out: Output, producer: Publisher, message: OutgoingMessage, count: int, rate: float | None, tally: _Tally
) -> None:
    began = told = tally.began = time.monotonic()
    pause = threading.Event()
    with out.progress() as progress:
        show = progress if out.live else no_progress
        for number in range(count):
            if rate is not None:
                pause.wait(max(0.0, began + number / rate - time.monotonic()))
            producer.publish(message)
            tally.published += 1
            now = time.monotonic()
            if now - told >= _PROGRESS_EVERY_S:
                told = now
                show(Progress(f"{tally.count(Outcome.CONFIRMED)} of {count} confirmed", fraction=number / count))


class _Tally:
    """Counts outcomes; hears them on the producer's I/O thread."""

    def __init__(self) -> None:
        self.published = 0
        self.began = time.monotonic()
        self._ended = self.began
        self._outcomes: Counter[Outcome] = Counter()
        self._reasons: Counter[tuple[Outcome, str]] = Counter()
        self._last: PublishResult | None = None
        self._lock = threading.Lock()

    def settled(self, handle: PublishFuture) -> None:
        result = handle.result(0)
        with self._lock:
            self._last = result
            self._ended = time.monotonic()
            self._outcomes[result.outcome] += 1
            if result.outcome is not Outcome.CONFIRMED:
                self._reasons[result.outcome, result.reason] += 1

    def count(self, outcome: Outcome) -> int:
        with self._lock:
            return self._outcomes[outcome]

    def report(self, out: Output) -> None:
        """Writes the contract's document, or a sentence for people with the reasons of what was not confirmed."""
        if not self.published:
            return
        seconds = max(0.0, self._ended - self.began)
        counts = {str(outcome): self.count(outcome) for outcome in Outcome}
        if out.json:
            out.document({"published": self.published, **counts, "seconds": round(seconds, 6)})
            return
        if self.published == 1 and self._last is not None:
            out.text(_one(self._last))
            return
        parts = ", ".join(f"{number} {word.replace('_', ' ')}" for word, number in counts.items() if number)
        out.text(f"{self.published} published in {duration(seconds)}: {parts}")
        for (outcome, reason), number in self._reasons.most_common(_MOST_REASONS):
            out.say(f"{number} {_word(outcome)}: {visible(reason)}")


def _one(settlement: PublishResult) -> str:
    place = f" by {visible(settlement.endpoint)}" if settlement.endpoint else ""
    took = "" if settlement.seconds is None else f" in {settlement.seconds * 1000:.1f} ms"
    why = f": {visible(settlement.reason)}" if settlement.reason else ""
    return f"{_word(settlement.outcome)}{place}{took}{why}"


def _word(outcome: Outcome) -> str:
    return str(outcome).replace("_", " ")


def _message(
    *,
    exchange: str,
    key: str,
    headers: tuple[str, ...],
    properties: tuple[str, ...],
    body: str | None,
    file: Path | None,
) -> OutgoingMessage:
    return OutgoingMessage(exchange, key, _body(body, file), parse_properties(properties, parse_headers(headers)))


def _body(body: str | None, file: Path | None) -> bytes:
    if file is not None:
        if body is not None:
            raise InvalidInputError("both a body and --file were given", "Give one of the two.")
        try:
            return file.read_bytes()
        except OSError as error:
            raise InvalidInputError(
                f"{file} cannot be read: {error.strerror}", "Name a file that you can read."
            ) from None
    if body == "-":
        return sys.stdin.buffer.read()
    return (body or "").encode(errors="surrogateescape")
