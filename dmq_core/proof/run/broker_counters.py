"""The brokers' own counters, read beside a run: what each node says it confirmed and delivered, for the journal."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dmq_core.cluster.protocol import Cluster
from dmq_core.errors import DmqError, NotReachableError

if TYPE_CHECKING:
    from typing import Self

    from dmq_core.proof.journal.file import Journal

EVERY_S: Final = 10.0
READS_WITHIN_S: Final = 5.0
# A clock that runs on by itself gives the same beginning within this; a broker takes longer to begin anew.
_SAME_BEGIN_S: Final = 4.0
_LINE = re.compile(
    r'^rabbitmq_global_messages_(received|confirmed|delivered|acknowledged)_total\{protocol="amqp091".*\} (\S+)$', re.M
)
_UPTIME = re.compile(r"^rabbitmq_erlang_uptime_seconds (\S+)$", re.M)


@dataclass(frozen=True, slots=True)
class NodeCounters:
    """What a node counted since it began, `uptime_s` seconds ago: messages of AMQP 0-9-1 clients connected to it."""

    uptime_s: float
    published: int
    confirmed: int
    delivered: int
    acknowledged: int


def parse_counters(text: str) -> NodeCounters:
    """The counters in what a node serves at `/metrics`; `NotReachableError` if there are none."""
    sums = dict.fromkeys(("received", "confirmed", "delivered", "acknowledged"), 0)
    uptime = _UPTIME.search(text)
    try:
        for name, value in _LINE.findall(text):
            sums[name] += int(float(value))
        return NodeCounters(float(uptime[1] if uptime else "none"), *sums.values())
    except (ValueError, OverflowError) as error:
        raise NotReachableError("a node tells no counters that make sense", "Which RabbitMQ is it?") from error


class BrokerEpochs:
    """Tells the lives of one broker apart, by when it began and by counters that only a new one sets back."""

    def __init__(self) -> None:
        self._begin = 0.0
        self._number = 0
        self._last: NodeCounters | None = None

    def of(self, counters: NodeCounters, at: float) -> str:
        """A text that changes when the broker begins anew; `at` is the monotonic second of the reading."""
        begin = at - counters.uptime_s
        last = self._last
        if last is None or abs(begin - self._begin) > _SAME_BEGIN_S or _is_set_back(last, counters):
            self._number += 1
            self._begin = begin
        self._last = counters
        return str(self._number)


class CounterReader:
    """Reads every node's counters into the journal, each node on a thread of its own, and never waits for one.

    It reads when it is told to, and every ten seconds.
    """

    def __init__(self, cluster: Cluster, journal: Journal) -> None:
        self._desks = [_NodeReader(cluster, node.name, journal) for node in cluster.nodes()]
        for desk in self._desks:
            desk.start()

    def read(self) -> None:
        """Has every node read soon, without waiting."""
        for desk in self._desks:
            desk.read()

    def wait_read(self) -> None:
        """Reads every node once more and waits for that, 5 s at most."""
        deadline = time.monotonic() + READS_WITHIN_S
        for goal, desk in [(desk.read(), desk) for desk in self._desks]:
            desk.wait(goal, deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for desk in self._desks:
            desk.close()
        # Whoever still asks must not come to a journal that is closed.
        deadline = time.monotonic() + READS_WITHIN_S
        for desk in self._desks:
            desk.join(deadline)


class _NodeReader:
    """Where one node is asked."""

    def __init__(self, cluster: Cluster, node: str, journal: Journal) -> None:
        self._cluster = cluster
        self._node = node
        self._journal = journal
        self._epochs = BrokerEpochs()
        self._changed = threading.Condition()
        self._asked = self._answered = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"proof counters {node}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def read(self) -> int:
        """The number of the reading that begins next."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
            return self._asked

    def wait(self, goal: int, deadline: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._answered >= goal, max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, deadline: float) -> None:
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._asked > self._answered, EVERY_S)
                if self._closed:
                    return
                goal = self._asked
            self._read()
            with self._changed:
                self._answered = goal
                self._changed.notify_all()

    def _read(self) -> None:
        at = time.monotonic()
        try:
            counters = parse_counters(self._cluster.metrics(self._node))
        except DmqError:
            # A node that is gone, frozen or closed has nothing to tell.
            return
        with self._changed:
            if self._closed:
                return
        epoch = self._epochs.of(counters, time.monotonic())
        self._journal.append_counters(
            self._node,
            epoch,
            counters.published,
            counters.confirmed,
            counters.delivered,
            counters.acknowledged,
            at,
        )


def _is_set_back(before: NodeCounters, now: NodeCounters) -> bool:
    names = ("published", "confirmed", "delivered", "acknowledged")
    return any(getattr(now, name) < getattr(before, name) for name in names)
