"""Whenever a node's coming or going is cut short, the next call ends it: definition, data and members agree."""

from __future__ import annotations

import pytest

from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.cluster.scaling import procedure
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import ClusterError, NodeBootError, RefusedError
from dmq_core.management.models import QueueFigures
from dmq_core.progress import ProgressListener, no_progress

NODES = {"rmq1", "rmq2", "rmq3"}


class Killed(BaseException):
    """The program is gone: nothing that it would do comes to be any more."""


class PaperBackend:
    """A cluster on paper; at step `ends_at` the program that changes it dies."""

    def __init__(self, ends_at: int = 1000) -> None:
        self.ends_at = ends_at
        self.listed, self.there, self.members = set(NODES), set(NODES), set(NODES)
        self.joining: str | None = None
        self.leaving: str | None = None
        self.boots = True
        self.queues: tuple[QueueFigures, ...] = ()
        self.drained: set[str] = set()
        self.done: list[str] = []

    @property
    def credentials(self) -> Credentials:
        return Credentials()

    def step(self, what: str) -> None:
        if len(self.done) >= self.ends_at:
            raise Killed
        self.done.append(what)

    def nodes(self) -> tuple[NodeInfo, ...]:
        return tuple(
            NodeInfo(name, f"rabbit@{name}", self._state(name), NodeEndpoint("127.0.0.1", 1, 2))
            for name in sorted(self.listed)
        )

    def _state(self, name: str) -> NodeState:
        if name in self.drained:
            return NodeState.DRAINING
        return NodeState.RUNNING if name in self.members else NodeState.STOPPED

    def run(self, node: str, _tool: str, words: tuple[str, ...], _limit_s: float) -> str:
        self.step(words[0])
        if node not in self.there:
            raise ClusterError("the node does not run")
        return ""

    def erlang_name(self, node: str) -> str:
        return f"rabbit@{node}"

    def define_joining(self, node: str) -> None:
        self.step("enlist")
        self.listed.add(node)
        self.joining = node

    def define_leaving(self, node: str) -> None:
        self.step("strike")
        self.listed.discard(node)
        self.leaving = node
        self.joining = None if self.joining == node else self.joining

    def settle(self) -> None:
        self.step("settle")
        self.joining = self.leaving = None

    def bring_up(self, node: str, _progress: ProgressListener) -> None:
        self.step("make")
        self.there.add(node)
        self.step("boot")
        if not self.boots:
            raise NodeBootError("no room")
        self.members.add(node)

    def discard(self, node: str) -> None:
        self.step("discard")
        self.there.discard(node)


class PaperMembers:
    def __init__(self, backend: PaperBackend) -> None:
        self._backend = backend

    def queues(self, but: str) -> tuple[QueueFigures, ...]:
        return self._backend.queues

    def grow(self, node: str, progress: ProgressListener) -> None:
        self._backend.step("grow")

    def delete(self, node: str, queues: tuple[QueueFigures, ...]) -> None:
        self._backend.step("delete")

    def shrink(self, node: str) -> None:
        self._backend.step("shrink")

    def drain(self, node: str) -> None:
        self._backend.step("drain")
        self._backend.drained.add(node)
        self._backend.queues = (*self._backend.queues, *self.declared_meanwhile)

    def revive(self, node: str) -> None:
        self._backend.step("revive")
        self._backend.drained.discard(node)

    def forget(self, node: str, erlang_name: str, progress: ProgressListener) -> None:
        self._backend.step("forget")
        self._backend.members.discard(node)

    declared_meanwhile: tuple[QueueFigures, ...] = ()


@pytest.fixture(autouse=True)
def works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedure, "_members", PaperMembers)


def agrees(backend: PaperBackend, nodes: set[str]) -> bool:
    return backend.listed == backend.there == backend.members == nodes and not (backend.joining or backend.leaving)


def add(backend: PaperBackend) -> str:
    return procedure.add(backend, no_progress)


def remove(backend: PaperBackend, node: str) -> None:
    procedure.remove(backend, node, no_progress, force=False)


def test_a_node_comes_and_goes() -> None:
    backend = PaperBackend()
    assert add(backend) == "rmq4"
    assert agrees(backend, NODES | {"rmq4"})
    remove(backend, "rmq2")
    assert agrees(backend, {"rmq1", "rmq3", "rmq4"})
    assert backend.done[-4:] == ["stop_app", "forget", "discard", "settle"]
    assert add(backend) == "rmq2"


@pytest.mark.parametrize("ends_at", range(5))
def test_an_addition_that_dies_at_any_step_is_finished_by_the_next(ends_at: int) -> None:
    backend = PaperBackend(ends_at)
    with pytest.raises(Killed):
        add(backend)
    backend.ends_at = 1000
    assert add(backend) == "rmq4"
    assert agrees(backend, NODES | {"rmq4"})


@pytest.mark.parametrize("ends_at", range(10))
def test_a_removal_that_dies_at_any_step_is_finished_by_the_next(ends_at: int) -> None:
    backend = PaperBackend(ends_at)
    with pytest.raises(Killed):
        remove(backend, "rmq3")
    backend.ends_at = 1000
    remove(backend, "rmq3")
    assert agrees(backend, NODES - {"rmq3"})


def test_a_node_that_does_not_boot_is_removed_again() -> None:
    backend = PaperBackend()
    backend.boots = False
    with pytest.raises(NodeBootError):
        add(backend)
    assert agrees(backend, NODES)


def test_a_node_on_which_a_queue_was_declared_at_the_last_moment_stays_and_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = QueueFigures("/", "late", "classic", leader="rmq3", members=("rmq3",), online=("rmq3",))
    monkeypatch.setattr(PaperMembers, "declared_meanwhile", (late,))
    backend = PaperBackend()
    with pytest.raises(RefusedError, match="late"):
        remove(backend, "rmq3")
    assert agrees(backend, NODES)
    assert backend.drained == set()
