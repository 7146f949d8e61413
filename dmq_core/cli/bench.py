"""`dmq bench`: this machine's rates beside raw pika's."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from dmq_core.actions.gate import guard_change
from dmq_core.cli import connect
from dmq_core.cli.options import Invocation, common_options

if TYPE_CHECKING:
    from dmq_core.bench.rounds import BenchResult, Pair


@click.command()
@click.option(
    "--messages",
    type=click.IntRange(100, 1_000_000),
    default=10_000,
    metavar="N",
    help="Messages per round (default: 10000).",
)
@click.option("--rounds", type=click.IntRange(1, 100), default=3, metavar="N", help="Number of rounds (default: 3).")
@click.option(
    "--size", type=click.IntRange(0, 1 << 20), default=100, metavar="BYTES", help="Message size (default: 100)."
)
@click.option(
    "--type", "kind", type=click.Choice(["quorum", "classic"]), default="quorum", help="Queue type (default: quorum)."
)
@common_options
def bench(invocation: Invocation, messages: int, rounds: int, size: int, kind: str) -> None:
    """Measure publishing and consuming rates next to plain pika.

    Both take turns on one node and one queue, which is deleted at the end. Pika is used as in its tutorials: every
    publish waits for its confirm, every delivery is acknowledged singly. Compare only the ratios of one run: the rates
    depend on what else the machine does.
    """
    guard_change("Bench", read_only=invocation.settings.read_only.value)
    from dmq_core.bench.rounds import BenchSettings, run_bench

    settings = BenchSettings(messages=messages, size=size, rounds=rounds, queue_type=kind)
    with connect.open_manager(invocation.settings, "dmq bench") as manager, invocation.out.progress() as progress:
        result = run_bench(manager, settings, progress)
    if invocation.out.json:
        invocation.out.document(_document(result))
        return
    for title, pair in (("publish, confirmed", result.publish_confirmed), ("consume, acked", result.consume_acked)):
        invocation.out.text(_line(title, pair))
    invocation.out.say(
        f"{size}-byte persistent messages on a {kind} queue of RabbitMQ {result.rabbitmq}, {rounds} rounds"
    )


def _document(result: BenchResult) -> dict[str, Any]:
    def pair(measured: Pair) -> dict[str, float]:
        return {
            "dmq": round(measured.dmq, 1),
            "pika_blocking": round(measured.pika_blocking, 1),
            "ratio": round(measured.ratio, 2),
        }

    return {
        "publish_confirmed": pair(result.publish_confirmed),
        "consume_acked": pair(result.consume_acked),
        "rabbitmq": result.rabbitmq,
        **dataclasses.asdict(result.settings),
    }


def _line(title: str, pair: Pair) -> str:
    return f"{title:20} dmq {pair.dmq:9,.0f}/s   pika {pair.pika_blocking:8,.0f}/s   {pair.ratio:5.1f} times as fast"
