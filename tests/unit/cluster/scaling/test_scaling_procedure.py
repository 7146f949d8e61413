"""Whenever a node's coming or going is cut short, the next call ends it: definition, data and members agree."""

from __future__ import annotations

import pytest

from dmq_core.cluster.protocol import NodeInfo, NodeState
from dmq_core.cluster.scaling import procedure as scale_works
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import ClusterError, NodeBootError, RefusedError
from dmq_core.management.models import QueueFigures
from dmq_core.progress import ProgressListener, silent

NODES = {"rmq1", "rmq2", "rmq3"}


class Killed(BaseException):
    """The program is gone: nothing that it would do comes to be any more."""


class PaperGround:
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

    def enlist(self, node: str) -> None:
        self.step("enlist")
        self.listed.add(node)
        self.joining = node

    def strike(self, node: str) -> None:
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


class PaperWorks:
    def __init__(self, ground: PaperGround) -> None:
        self._ground = ground

    def queues(self, but: str) -> tuple[QueueFigures, ...]:
        return self._ground.queues

    def grow(self, node: str, progress: ProgressListener) -> None:
        self._ground.step("grow")

    def delete(self, node: str, queues: tuple[QueueFigures, ...]) -> None:
        self._ground.step("delete")

    def shrink(self, node: str) -> None:
        self._ground.step("shrink")

    def drain(self, node: str) -> None:
        self._ground.step("drain")
        self._ground.drained.add(node)
        self._ground.queues = (*self._ground.queues, *self.declared_meanwhile)

    def revive(self, node: str) -> None:
        self._ground.step("revive")
        self._ground.drained.discard(node)

    def forget(self, node: str, erlang_name: str, progress: ProgressListener) -> None:
        self._ground.step("forget")
        self._ground.members.discard(node)

    declared_meanwhile: tuple[QueueFigures, ...] = ()


@pytest.fixture(autouse=True)
def works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_works, "_works", PaperWorks)


def agrees(ground: PaperGround, nodes: set[str]) -> bool:
    return ground.listed == ground.there == ground.members == nodes and not (ground.joining or ground.leaving)


def add(ground: PaperGround) -> str:
    return scale_works.add(ground, silent)


def remove(ground: PaperGround, node: str) -> None:
    scale_works.remove(ground, node, silent, force=False)


def test_a_node_comes_and_goes() -> None:
    ground = PaperGround()
    assert add(ground) == "rmq4"
    assert agrees(ground, NODES | {"rmq4"})
    remove(ground, "rmq2")
    assert agrees(ground, {"rmq1", "rmq3", "rmq4"})
    assert ground.done[-4:] == ["stop_app", "forget", "discard", "settle"]
    assert add(ground) == "rmq2"


@pytest.mark.parametrize("ends_at", range(5))
def test_an_addition_that_dies_at_any_step_is_finished_by_the_next(ends_at: int) -> None:
    ground = PaperGround(ends_at)
    with pytest.raises(Killed):
        add(ground)
    ground.ends_at = 1000
    assert add(ground) == "rmq4"
    assert agrees(ground, NODES | {"rmq4"})


@pytest.mark.parametrize("ends_at", range(10))
def test_a_removal_that_dies_at_any_step_is_finished_by_the_next(ends_at: int) -> None:
    ground = PaperGround(ends_at)
    with pytest.raises(Killed):
        remove(ground, "rmq3")
    ground.ends_at = 1000
    remove(ground, "rmq3")
    assert agrees(ground, NODES - {"rmq3"})


def test_a_node_that_does_not_boot_is_removed_again() -> None:
    ground = PaperGround()
    ground.boots = False
    with pytest.raises(NodeBootError):
        add(ground)
    assert agrees(ground, NODES)


def test_a_node_on_which_a_queue_was_declared_at_the_last_moment_stays_and_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = QueueFigures("/", "late", "classic", leader="rmq3", members=("rmq3",), online=("rmq3",))
    monkeypatch.setattr(PaperWorks, "declared_meanwhile", (late,))
    ground = PaperGround()
    with pytest.raises(RefusedError, match="late"):
        remove(ground, "rmq3")
    assert agrees(ground, NODES)
    assert ground.drained == set()
