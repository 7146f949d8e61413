"""Faults of a whole cluster that people do while a load runs, put down in its journal with the cluster's own word."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from dmq_core.cluster.faults.model import Fault, FaultKind, undo_of
from dmq_core.cluster.protocol import Cluster, NodeAction, NodeState
from dmq_core.errors import DmqError
from dmq_core.proof.acts import told_of
from dmq_core.proof.records import Stage
from dmq_core.proof.sounding import leader_of

if TYPE_CHECKING:
    from dmq_core.proof.journal import Journal

SCALE: Final = "scale"
REMOVE: Final = "remove"
_RESTARTED: Final = frozenset({NodeAction.KILL, NodeAction.STOP, NodeAction.RESTART})
_ALARMS: Final = frozenset({FaultKind.MEMORY_ALARM, FaultKind.DISK_ALARM})


class Beside:
    """Puts down in `journal` what is done to `cluster` inside its contexts; `queue` of `host` is the load's own.

    Of an act on a node, which its state shows, it only hears that the node is back.
    """

    def __init__(self, journal: Journal, cluster: Cluster, queue: str, host: str) -> None:
        self._journal = journal
        self._cluster = cluster
        self._queue = queue
        self._host = host
        self._lock = threading.Lock()
        self._standing: dict[Fault, tuple[Fault, ...]] = {}
        self._added: set[str] = set()
        self._leaving: set[str] = set()
        self._over = False

    @contextlib.contextmanager
    def doing(self, fault: Fault) -> Iterator[None]:
        """Whatever happens inside is `fault`, or takes one back."""
        if fault.mends:
            with self._mending(fault):
                yield
        elif self._concerns(fault):
            node = fault.node or self._leader_or_first()
            with self._striking(str(fault.kind), node, lambda: self._word(fault)):
                yield
        else:
            yield

    @contextlib.contextmanager
    def adding(self, node: str) -> Iterator[None]:
        """Whatever happens inside adds `node`."""
        with self._lock:
            self._leaving.discard(node)
        with self._striking(SCALE, node, lambda: self._runs(node)):
            yield
        with self._lock:
            self._added.add(node)

    @contextlib.contextmanager
    def removing(self, node: str) -> Iterator[None]:
        """Whatever happens inside removes `node`, which takes back that it was added."""
        with self._lock:
            was_added = node in self._added
            self._leaving.add(node)
        try:
            with self._taking_back(node) if was_added else self._striking(REMOVE, node, lambda: self._is_gone(node)):
                yield
        except DmqError:
            with self._lock:
                self._leaving.discard(node)
            raise

    def is_leaving(self, node: str) -> bool:
        """Whether what its states show is that it is removed."""
        with self._lock:
            return node in self._leaving

    def is_back(self, node: str, after: NodeAction) -> None:
        """A node is back after that act: what a new start or new links end is over."""
        links = after is NodeAction.ISOLATE
        if after not in _RESTARTED and not links:
            return
        with self._lock:
            left = {
                fault: tuple(f for f in told if node not in (f.node, f.peer) or (links and f.kind in _ALARMS))
                for fault, told in self._standing.items()
            }
        now = time.monotonic()
        self._forget(left, now, now, f"{node} is back without it")

    def end(self) -> None:
        """The load is over: nothing more is put down."""
        with self._lock:
            self._over = True

    @contextlib.contextmanager
    def _striking(self, name: str, node: str, word: Callable[[], str]) -> Iterator[None]:
        self._fault(Stage.ASKED, name, node)
        try:
            yield
        except DmqError as error:
            self._fault(Stage.FAILED, name, node, error.what)
            raise
        at, said = time.monotonic(), ""
        # Without evidence the verdict is in doubt, and says so.
        with contextlib.suppress(DmqError):
            said = word()
        self._fault(Stage.BEGAN, name, node, at=at)
        self._fault(Stage.HOLDS, name, node, said, at)

    @contextlib.contextmanager
    def _mending(self, mend: Fault) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except DmqError as error:
            for fault in self._meant(mend):
                self._undo(Stage.FAILED, str(mend.kind), fault.node or "", error.what)
            raise
        at = time.monotonic()
        # Nobody can tell what is left of them while the nodes do not answer.
        with contextlib.suppress(DmqError):
            now = self._cluster.standing()
            with self._lock:
                left = {fault: tuple(f for f in told if f in now) for fault, told in self._standing.items()}
            self._forget(left, began, at, "the nodes tell of it no more")

    @contextlib.contextmanager
    def _taking_back(self, node: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except DmqError as error:
            self._undo(Stage.FAILED, REMOVE, node, error.what)
            raise
        with self._lock:
            self._added.discard(node)
        at = time.monotonic()
        self._undo(Stage.BEGAN, REMOVE, node, at=began)
        self._undo(Stage.HOLDS, REMOVE, node, self._is_gone(node), at)

    def _forget(self, left: dict[Fault, tuple[Fault, ...]], began: float, at: float, text: str) -> None:
        """Puts down the end of every fault of which nothing is left."""
        for fault, told in left.items():
            undo = undo_of(fault)
            with self._lock:
                is_over = not told and self._standing.pop(fault, None) is not None
                if told:
                    self._standing[fault] = told
            if is_over and undo is not None:
                self._undo(Stage.BEGAN, str(undo.kind), fault.node or "", at=began)
                self._undo(Stage.HOLDS, str(undo.kind), fault.node or "", text, at)

    def _meant(self, mend: Fault) -> list[Fault]:
        """The faults that `mend` was to end, or a part of them."""
        ends = {mend.node, mend.peer} - {None}
        with self._lock:
            return [
                fault
                for fault, told in self._standing.items()
                if (undo_of(fault) or fault).kind is mend.kind and any(ends <= {f.node, f.peer} for f in told)
            ]

    def _concerns(self, fault: Fault) -> bool:
        """Whether the load may feel it, and its nodes do not show it by their states."""
        if fault.kind is FaultKind.MOVE_LEADER:
            return (fault.queue, fault.virtual_host) == (self._queue, self._host)
        return fault.kind is not FaultKind.ROLLING_RESTART

    def _word(self, fault: Fault) -> str:
        """The cluster's evidence; of what can be taken back it is remembered."""
        if fault.kind in (FaultKind.MOVE_LEADER, FaultKind.REBALANCE):
            return f"{self._leader()} leads the queue, as the management API tells"
        told = told_of(fault, self._cluster.standing())
        with self._lock:
            self._standing[fault] = told
        return f"the nodes tell of it: {told[0].title}" if told else ""

    def _leader_or_first(self) -> str:
        # Whoever does it must not wait for this, or be kept from it.
        with contextlib.suppress(DmqError):
            return self._leader()
        return self._cluster.nodes()[0].name

    def _leader(self) -> str:
        return leader_of(self._cluster, self._queue, self._host)

    def _runs(self, node: str) -> str:
        states = {info.name: info.state for info in self._cluster.nodes()}
        return f"{self._cluster.backend} shows it as running" if states.get(node) is NodeState.RUNNING else ""

    def _is_gone(self, node: str) -> str:
        gone = node not in [info.name for info in self._cluster.nodes()]
        return f"{self._cluster.backend} knows it no more" if gone else ""

    def _fault(self, stage: Stage, name: str, node: str, text: str = "", at: float | None = None) -> None:
        with self._lock:
            if not self._over:
                self._journal.append_fault(stage, name, node, text, at)

    def _undo(self, stage: Stage, name: str, node: str, text: str = "", at: float | None = None) -> None:
        with self._lock:
            if not self._over:
                self._journal.append_undo(stage, name, node, text, at)
