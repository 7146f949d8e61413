"""The protocol of a session. `dmq_core.session.live` has the real one, `dmq_core.testing` one in memory; both pass the
same contract tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from dmq_core.actions.action import Action
from dmq_core.cluster.protocol import Cluster
from dmq_core.messaging.messages import OutgoingMessage, PublishResult, SeenMessage
from dmq_core.messaging.tap.source import TailSource, TailStatus
from dmq_core.observe.observation import Observation
from dmq_core.progress import ProgressListener, no_progress
from dmq_core.proof.progress import ProofProgress, ProofReport
from dmq_core.proof.scenario import Scenario

if TYPE_CHECKING:
    from dmq_core.demo.runner import DemoRun


class Tail(Protocol):
    """A running tail; it never takes a message from a consumer."""

    def status(self) -> TailStatus:
        """How it is doing, without I/O."""
        ...

    def close(self) -> None:
        """Ends it within 2 s and removes its queue; may be called twice."""
        ...


class Proof(Protocol):
    """A proof run or a load under way; whatever ends it, its own faults are undone."""

    def progress(self) -> ProofProgress:
        """How it does, without I/O."""
        ...

    def stop(self) -> None:
        """Asks it to undo its faults, drain, and end with what it has so far; does not wait."""
        ...

    def wait(self, timeout_s: float) -> bool:
        """Waits for its end, `timeout_s` seconds at most; whether it has come."""
        ...

    def finish(self) -> ProofReport:
        """Waits for its end and gives what it leaves, or raises what kept it from a result."""
        ...


class Observer(Protocol):
    """A running observation; its listener is called from one background thread, never two at once."""

    def poke(self) -> None:
        """Looks again now rather than at the next tick; does not wait."""
        ...

    def close(self) -> None:
        """Ends it within 2 s; may be called twice."""
        ...


class Session(Protocol):
    """One cluster as a front end sees it.

    Every method blocks its caller for a bounded time and belongs on a worker thread; what `observe` and `tail` give
    answers without I/O, and their listeners are called from background threads.
    """

    @property
    def cluster(self) -> Cluster:
        """The cluster itself."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether everything that changes the cluster or its messages is refused."""
        ...

    def start_cluster(self, progress: ProgressListener = no_progress) -> None:
        """Starts the cluster, made if need be; `RefusedError` if read-only."""
        ...

    def observe(self, listener: Callable[[Observation], None]) -> Observer:
        """Begins to observe; every change and every tick gives the listener an `Observation`."""
        ...

    def publish(self, message: OutgoingMessage, timeout_s: float = 5.0) -> PublishResult:
        """Publishes one message, confirmed, and tells its outcome, which is never an error.

        Raises `RefusedError` if read-only.
        """
        ...

    def tail(self, source: TailSource, listener: Callable[[tuple[SeenMessage, ...]], None]) -> Tail:
        """Begins to copy messages to the listener in batches, oldest first."""
        ...

    def load(self, rate: float) -> Proof:
        """Begins a load of `rate` messages/s: a proof run that goes on until it is stopped. `RefusedError` if
        read-only.

        It breaks nothing; faults done by this session are in its account and its verdict, and so is what anybody else
        does to a node.
        """
        ...

    def prove(self, scenario: Scenario, *, allow_majority_loss: bool = False) -> Proof:
        """Begins a proof run, whose faults are events, as is what its clients feel.

        `RefusedError` as with `perform`, or for the majority.

        With `allow_majority_loss` it also runs on a cluster that is not whole.
        """
        ...

    def demo(self, name: str) -> DemoRun[Any]:
        """Begins a demo, whose steps its caller plays; `RefusedError` if read-only, or as with `perform` if it needs
        that.

        `close` ends it, within the seconds that its step may still take.
        """
        ...

    def perform(self, action: Action, progress: ProgressListener = no_progress) -> Action | None:
        """Does what the catalog of actions knows, through its gate, and returns what undoes it (None: nothing does).

        `RefusedError` where it may not be done, or if messages would go with a node that is removed.
        """
        ...

    def close(self) -> None:
        """Closes every observer, tail, load, proof run and connection within 5 s; may be called twice."""
        ...
