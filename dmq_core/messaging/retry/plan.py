"""What a retry needs at the broker, and what becomes of a message after its n-th failure; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dmq_core.errors import InvalidInputError
from dmq_core.messaging.amqp.validation import check_address
from dmq_core.messaging.retry.failure_policy import DELIVERY_LIMIT, FailurePlan
from dmq_core.messaging.topology.model import Queue
from dmq_core.messaging.topology.queue_arguments import (
    QUORUM,
    STREAM,
    WITH_DELAYED_RETRY,
    WITH_DELIVERY_LIMIT,
    queue_kind,
)
from dmq_core.versions import Version

LONGEST_DELAY_S: Final = 86400.0 * 365


class Mode(StrEnum):
    """Who lets a failed message wait.

    LADDER: one queue for each delay, to which a copy goes. NATIVE: the queue itself, where RabbitMQ 4.3 or newer can;
    delays then grow by the first one up to the longest. IN_PLACE: the worker, so that the order holds. AUTO: the queue
    itself if it can keep the very delays that were asked for, else the ladder.
    """

    AUTO = "auto"
    LADDER = "ladder"
    NATIVE = "native"
    IN_PLACE = "in place"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a message is tried, and the seconds to wait after each failure; the last delay serves for the rest."""

    delays: tuple[float, ...]
    attempts: int

    def delay_s(self, failures: int) -> float:
        """The seconds to wait after so many failures, from 1."""
        return self.delays[min(failures, len(self.delays)) - 1]

    def is_last(self, failures: int) -> bool:
        """Whether a message that failed so often is given up."""
        return failures >= self.attempts


def policy(delays: Sequence[float], attempts: int | None) -> RetryPolicy:
    """The policy of these numbers; `InvalidInputError` if they make no sense."""
    if not delays or not all(0.001 <= delay <= LONGEST_DELAY_S for delay in delays):
        raise InvalidInputError(f"the delays are {list(delays)}", "Give at least one, each from 0.001 s to a year.")
    wanted = len(delays) + 1 if attempts is None else attempts
    if wanted < 1:
        raise InvalidInputError(f"{wanted} attempts are none", "Allow at least one.")
    return RetryPolicy(tuple(delays), wanted)


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, at least one."""
    return max(1, round(seconds * 1000))


def delay_queue(queue: str, delay_s: float) -> str:
    """The queue in which copies for `queue` wait for `delay_s` seconds."""
    return f"{queue}.retry.{milliseconds(delay_s)}"


def parking_queue(queue: str) -> str:
    """The queue for messages of `queue` that are given up."""
    return f"{queue}.parked"


def chosen_mode(mode: Mode, asked: RetryPolicy, queue: Queue, version: Version) -> Mode:
    """The mode that serves `queue` on RabbitMQ `version`; never AUTO. `InvalidInputError` if `mode` cannot serve it."""
    kind = queue_kind(queue)
    if kind == STREAM:
        if mode in (Mode.AUTO, Mode.IN_PLACE):
            return Mode.IN_PLACE
        # A copy that came back would be a new message to everybody who reads the stream.
        raise InvalidInputError(
            f"{queue.name!r} is a stream, which takes no failed message back", "Retry in place, or auto."
        )
    if mode is Mode.IN_PLACE and kind != QUORUM:
        raise InvalidInputError(f"{queue.name!r} does not count deliveries", "Retry in place needs a quorum queue.")
    if mode in (Mode.IN_PLACE, Mode.LADDER):
        return mode
    # A queue that is taken as it is may lack the arguments, and nobody would tell us.
    able = version >= WITH_DELAYED_RETRY and kind == QUORUM and not queue.adopt
    return Mode.NATIVE if able and (mode is Mode.NATIVE or _is_linear(asked)) else Mode.LADDER


def retry_plan(mode: Mode, asked: RetryPolicy, parking: bool, queue: Queue, version: Version) -> FailurePlan:
    """What to declare for `queue`, served by `mode`.

    Raises `InvalidInputError` if a message would be lost after its last attempt.
    """
    check_address(
        "", max(parking_queue(queue.name), *(delay_queue(queue.name, delay) for delay in asked.delays), key=len)
    )
    kind = queue_kind(queue)
    if kind == STREAM:
        if not parking:
            raise InvalidInputError(f"a stream like {queue.name!r} dead-letters nothing", "Leave parking on.")
        return FailurePlan(entities=(_declared_parking_queue(queue.name, version),))
    if not parking and "x-dead-letter-exchange" not in queue.arguments:
        raise InvalidInputError(
            f"without parking, {queue.name!r} would drop a message after its last attempt",
            "Give it an x-dead-letter-exchange, or leave parking on.",
        )
    arguments: dict[str, object] = {}
    if kind == QUORUM:
        # Beyond our own count: what kills its consumer, who then counts nothing, is given up as well.
        arguments["x-delivery-limit"] = asked.attempts + DELIVERY_LIMIT
    if parking:
        arguments |= _dead_letters(kind == QUORUM, parking_queue(queue.name))
    if mode is Mode.NATIVE:
        arguments |= {
            "x-delayed-retry-type": "failed",
            "x-delayed-retry-min": milliseconds(asked.delays[0]),
            "x-delayed-retry-max": milliseconds(max(asked.delays)),
        }
    delay_queues = _declared_delay_queues(queue.name, asked) if mode is Mode.LADDER else ()
    return FailurePlan(
        arguments, (*delay_queues, *((_declared_parking_queue(queue.name, version),) if parking else ()))
    )


def _declared_delay_queues(queue: str, asked: RetryPolicy) -> tuple[Queue, ...]:
    used = asked.delays[: max(0, asked.attempts - 1)]
    waits = dict.fromkeys(milliseconds(delay) for delay in used)
    return tuple(
        Queue(delay_queue(queue, ms / 1000), QUORUM, arguments={"x-message-ttl": ms, **_dead_letters(True, queue)})
        for ms in waits
    )


def _declared_parking_queue(queue: str, version: Version) -> Queue:
    # Looking at what is parked must not wear it out.
    unlimited = {"x-delivery-limit": -1} if version >= WITH_DELIVERY_LIMIT else {}
    return Queue(parking_queue(queue), QUORUM, arguments=unlimited, adopt=True)


def _dead_letters(is_quorum: bool, target: str) -> dict[str, object]:
    arguments: dict[str, object] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target}
    if is_quorum:
        arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    return arguments


def _is_linear(asked: RetryPolicy) -> bool:
    first, most = (milliseconds(asked.delays[0]), milliseconds(max(asked.delays)))
    waits = [milliseconds(asked.delay_s(n)) for n in range(1, max(2, asked.attempts))]
    return waits == [min(first * n, most) for n in range(1, len(waits) + 1)]
