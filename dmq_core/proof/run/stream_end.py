"""How a run knows that its streams were read to the end: marks behind everything, found by every reader on every node.

A stream keeps what was read, so that its depth says nothing. A mark that was confirmed stands behind all that was
confirmed before it, and marks at offsets next to each other show that nothing came between them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Final

from dmq_core.cluster.protocol import Cluster, NodeInfo, NodeState
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.errors import DmqError
from dmq_core.messaging.consuming.consumers import DirectConsumer
from dmq_core.proof.run.queue_checks import MOST_READS, READ_EVERY_S, READS

if TYPE_CHECKING:
    from typing import Self

    from dmq_core.messaging.consuming.decoding import MessageHeaders
    from dmq_core.proof.journal.file import Journal
    from dmq_core.proof.journal.records import RunSetup

FOUND_WITHIN_S: Final = 5.0


class EndMarks:
    """At which offsets of its stream each reader found which marks; from any thread."""

    def __init__(self, run: str) -> None:
        self._prefix = f"{run}-end-"
        self._changed = threading.Condition()
        self._found: dict[Hashable, dict[int, int]] = {}

    def message_id(self, number: int) -> str:
        """What that mark is called."""
        return f"{self._prefix}{number}"

    def note(self, reader: Hashable, message_id: str | None, offset: int | None) -> bool:
        """Notes what `reader` got; whether that is a mark."""
        head, is_mark, number = (message_id or "").partition(self._prefix)
        if head or not is_mark or not number.isdecimal():
            return False
        if offset is not None:
            with self._changed:
                self._found.setdefault(reader, {})[offset] = int(number)
                self._changed.notify_all()
        return True

    def await_found(self, readers: Sequence[Hashable], number: int, timeout_s: float) -> bool:
        """Whether each of `readers` finds that mark within `timeout_s` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: all(self._at(r, number) is not None for r in readers), timeout_s)

    def offset(self, reader: Hashable, number: int) -> int | None:
        """Where `reader` found that mark first; None: nowhere yet."""
        with self._changed:
            return self._at(reader, number)

    def between(self, reader: Hashable, number: int) -> int | None:
        """How many messages stand between that mark and the one before it, 0 for the first; None: it is not found."""
        with self._changed:
            at = self._at(reader, number)
            if at is None:
                return None
            before = max((offset for offset in self._found[reader] if offset < at), default=at - 1)
            return at - before - 1

    def _at(self, reader: Hashable, number: int) -> int | None:
        return min((o for o, found in self._found.get(reader, {}).items() if found == number), default=None)


class StreamEnd:
    """Puts marks behind the streams of a run and reads on every node up to them, into the journal.

    `put(message_id)` publishes a mark and tells whether it was confirmed; `readers` are, for each stream, the consumers
    of the run that have to find the marks, too.
    """

    def __init__(
        self,
        cluster: Cluster,
        setup: RunSetup,
        journal: Journal,
        marks: EndMarks,
        readers: Callable[[str], Sequence[Hashable]],
        put: Callable[[str], bool],
    ) -> None:
        self._cluster = cluster
        self._setup = setup
        self._journal = journal
        self._marks = marks
        self._readers = readers
        self._put = put
        self._nodes = tuple(n for n in cluster.nodes() if n.endpoint.amqp_port is not None)
        self._open = contextlib.ExitStack()
        self._reading: set[Hashable] = set()

    def is_stably_empty(self, patience_s: float) -> bool:
        """Whether three marks in a row, a second apart, were found by all with nothing between; eight are tried.

        The consumers of the run have `patience_s` seconds to reach the first one.
        """
        zeros = 0
        for number in range(1, MOST_READS + 1):
            time.sleep(READ_EVERY_S if number > 1 else 0.0)
            zeros = zeros + 1 if self._read(number, patience_s if number == 1 else FOUND_WITHIN_S) else 0
            if zeros == READS:
                return True
        return False

    def close(self) -> None:
        """Ends its readers."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, number: int, patience_s: float) -> bool:
        put = self._put(self._marks.message_id(number))
        deadline = time.monotonic() + (patience_s if put else 0.0)
        found = [self._read_stream(stream, number, deadline) for stream in self._setup.queues]
        return put and all(found)

    def _read_stream(self, stream: str, number: int, deadline: float) -> bool:
        readers = self._readers(stream)
        reached = self._marks.await_found(readers, number, max(0.0, deadline - time.monotonic()))
        first = self._marks.offset(readers[0], number)
        if reached and first is not None:
            self._read_on_nodes(stream, first)
            self._marks.await_found([(n.name, stream) for n in self._nodes], number, FOUND_WITHIN_S)
        depths = [self._marks.between((node.name, stream), number) if reached else None for node in self._nodes]
        for node, depth in zip(self._nodes, depths, strict=True):
            self._journal.append_depth(node.name, stream, depth, None if depth is None else 0)
        return bool(depths) and all(depth == 0 for depth in depths)

    def _read_on_nodes(self, stream: str, offset: int) -> None:
        """Has each node that runs read from `offset` on, by a connection to it alone."""
        for node in self._nodes:
            reader = (node.name, stream)
            if node.state is NodeState.RUNNING and reader not in self._reading:
                self._reading.add(reader)
                with contextlib.suppress(DmqError):
                    self._begin(node, stream, offset)

    def _begin(self, node: NodeInfo, stream: str, offset: int) -> None:
        manager = self._open.enter_context(BrokerConnectionManager(name="dmq proof end"))
        manager.register_nodes([node], self._cluster.credentials)

        def take(_message: object, headers: MessageHeaders) -> bool:
            delivery = headers.delivery
            self._marks.note((node.name, stream), delivery.properties.message_id, delivery.offset)
            return True

        self._open.enter_context(DirectConsumer(manager, stream).start_consuming(take, offset=offset))
