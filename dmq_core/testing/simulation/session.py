"""`FakeSession`: the `Session` protocol over the simulation, for tests of front ends and for looking at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dmq_core.actions.action import Action
from dmq_core.actions.catalog import Scaling
from dmq_core.actions.gate import actions_on, guard, guard_change, perform
from dmq_core.cluster.protocol import Backend, Cluster
from dmq_core.errors import MessagingError
from dmq_core.management.models import EntityKey
from dmq_core.messaging.messages import Outcome, OutgoingMessage, PublishResult, SeenMessage
from dmq_core.messaging.tap.source import TailSource, TailStatus
from dmq_core.messaging.topology.routing import topic_matches
from dmq_core.observe.events import ActionDetails, Origin, Severity
from dmq_core.observe.observation import Observation
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.progress import ProgressListener, no_progress
from dmq_core.proof.run.load import load_of
from dmq_core.proof.scenario import Scenario
from dmq_core.session.protocol import Observer, Proof
from dmq_core.testing.simulation.broker import STEP_S, SimBroker, SimNode
from dmq_core.testing.simulation.cluster import FakeCluster
from dmq_core.testing.simulation.figures import Place
from dmq_core.testing.simulation.listener_thread import ListenerThread
from dmq_core.testing.simulation.observation import SimObservation
from dmq_core.testing.simulation.proof_run import SimProof
from dmq_core.testing.simulation.samples import shop
from dmq_core.testing.simulation.scripted_failures import ScriptedFailures
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.demo.runner import DemoRun
    from dmq_core.testing.simulation.demo_environment import MemoryDemoEnvironment

CONFIRM_S = 0.004
# Front ends under test are known to be done by the process being idle.
_PAUSE_S = 0.01


class FakeSession:
    """A session on a simulated three-node cluster.

    Without `realtime` nothing moves but by `advance` or by a call that takes its time (a boot, a confirm), so tests are
    deterministic. `sample` fills it with exchanges and queues; `script` makes calls fail or wait.

    >>> from dmq_core.messaging import OutgoingMessage
    >>> from dmq_core.testing import FakeSession
    >>> session = FakeSession()
    >>> print(session.publish(OutgoingMessage("", "orders", b"a book")).outcome)
    confirmed
    >>> session.advance(1.0)
    >>> session.close()
    """

    def __init__(
        self,
        sample: Callable[[SimBroker], None] = shop,
        *,
        name: str = "dmq",
        node_count: int = 3,
        backend: Backend = Backend.DOCKER,
        started: bool = True,
        read_only: bool = False,
        realtime: bool = False,
    ) -> None:
        self.script = ScriptedFailures()
        self.broker = SimBroker(name, node_count, backend=backend, started=started, realtime=realtime)
        sample(self.broker)
        self._cluster = FakeCluster(self.broker, self.script)
        self._read_only = read_only
        self._observation = SimObservation(self.broker, self._clients)
        self._tails: list[_Tail] = []
        self._proofs: list[SimProof] = []
        self._playings: list[DemoRun[Any]] = []
        self._stages: list[MemoryDemoEnvironment] = []
        self._closed = False

    @property
    def cluster(self) -> Cluster:
        """The simulated cluster."""
        return self._cluster

    @property
    def read_only(self) -> bool:
        """Whether every change is refused."""
        return self._read_only

    def advance(self, seconds: float) -> None:
        """Moves the clock by `seconds` and returns once every listener has heard what happened."""
        self.broker.advance(seconds)
        self.settle()

    def settle(self) -> None:
        """Returns once every listener has heard what happened so far; raises what a listener raised."""
        self._observation.settle()
        for tail in self._tails:
            tail.settle()

    def snapshot(self) -> ClusterSnapshot:
        """The cluster as an observer would see it now."""
        return self._observation.snapshot()

    def start_cluster(self, progress: ProgressListener = no_progress) -> None:
        """Starts the cluster in about 9 simulated seconds."""
        guard(self._cluster, f"start {self.broker.name}", read_only=self._read_only)
        self.script.enter("start_cluster")
        self._cluster.start(progress)

    def observe(self, listener: Callable[[Observation], None]) -> Observer:
        """Begins to observe: a snapshot at once, then one a simulated second and one for each change."""
        self._refuse_if_closed()
        self.script.enter("observe")
        return self._observation.observe(listener)

    def publish(self, message: OutgoingMessage, timeout_s: float = 5.0) -> PublishResult:
        """Publishes one message; a queue without a leader is waited for until `timeout_s` has passed."""
        guard_change("Publish", read_only=self._read_only)
        self._refuse_if_closed()
        self.script.enter("publish")
        first = self._first()
        if first is None:
            return PublishResult(Outcome.NOT_SENT, None, 0.0, "no node can be reached")
        endpoint = f"{first.endpoint.host}:{first.endpoint.amqp_port}"
        started = self.broker.now
        while not self.broker.can_settle(message) and self.broker.now - started < timeout_s:
            self.broker.wait(STEP_S)
        self.broker.wait(CONFIRM_S)
        with self.broker.lock:
            outcome, reason = self.broker.publish(message)
            return PublishResult(outcome, endpoint, max(CONFIRM_S, self.broker.now - started), reason)

    def tail(self, source: TailSource, listener: Callable[[tuple[SeenMessage, ...]], None]) -> _Tail:
        """Begins to copy what is published from now on."""
        self._refuse_if_closed()
        self.script.enter("tail")
        tail = _Tail(self.broker, source, listener)
        self._tails.append(tail)
        return tail

    def load(self, rate: float) -> Proof:
        """Begins a load on the quorum queue `dmq.load`."""
        guard_change("Load", read_only=self._read_only)
        self._refuse_if_closed()
        self.script.enter("load")
        return self._run(load_of(rate), allow_majority_loss=True)

    def prove(self, scenario: Scenario, *, allow_majority_loss: bool = False) -> Proof:
        """Begins a proof run that `advance` moves on."""
        guard(self._cluster, scenario.title, read_only=self._read_only)
        self._refuse_if_closed()
        self.script.enter("prove")
        return self._run(scenario, allow_majority_loss=allow_majority_loss)

    def _run(self, scenario: Scenario, *, allow_majority_loss: bool) -> SimProof:
        proof = SimProof(self.broker, scenario, self._cluster, self.snapshot, allow_majority_loss=allow_majority_loss)
        self._proofs.append(proof)
        return proof

    def demo(self, name: str) -> DemoRun[Any]:
        """Begins a demo, on a RabbitMQ in memory whose time goes by by itself."""
        from dmq_core.demo.discovery import find_demo
        from dmq_core.demo.runner import DemoRun
        from dmq_core.testing.simulation.demo_environment import MemoryDemoEnvironment

        self._refuse_if_closed()
        self.script.enter("demo")
        stage = MemoryDemoEnvironment(self.broker, self._cluster, pause_s=_PAUSE_S)
        self._stages.append(stage)
        actions = replace(actions_on(self._cluster, no_progress, read_only=self._read_only), perform=self.perform)
        environment = replace(stage.environment(read_only=self._read_only), actions=actions)
        demo_run: DemoRun[Any] = DemoRun(name, find_demo(name), environment)
        self._playings.append(demo_run)
        return demo_run

    def perform(self, action: Action, progress: ProgressListener = no_progress) -> Action | None:
        """Does an action; a destructive one is told as a fault as it begins, any other once it is done."""
        guard(self._cluster, visible(action.title), read_only=self._read_only)
        self.script.enter("perform")
        if action.destructive:
            self._tell(action, Severity.FAULT)
        undo = perform(self._cluster, action, read_only=self._read_only, progress=progress)
        if not action.destructive:
            added = undo is not None and action.kind is Scaling.ADD
            self._tell(replace(action, node=undo.node) if added and undo else action, Severity.PLAIN)
        return undo

    def close(self) -> None:
        """Closes every observer, tail, load, proof run and demo."""
        self._closed = True
        for demo_run in self._playings:
            demo_run.close()
        for stage in self._stages:
            stage.close()
        for proof in self._proofs:
            proof.close()
        for tail in self._tails:
            tail.close()
        self._observation.close()
        self._tails, self._proofs, self._playings, self._stages = [], [], [], []
        self.broker.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise MessagingError("the session is closed", "Open another one.")

    def _tell(self, action: Action, severity: Severity) -> None:
        subject = action.node or self.broker.name
        with self.broker.lock:
            self.broker.say(Origin.YOU, severity, action.event_kind, subject, ActionDetails(subject, action.done))

    def _clients(self) -> tuple[Place, ...]:
        first = self._first()
        own = () if first is None else (("observer", first.name),)
        return (*own, *(place for proof in self._proofs for place in proof.places))

    def _first(self) -> SimNode | None:
        return next(iter(self.broker.serving()), None)


class _Tail:
    def __init__(
        self, broker: SimBroker, source: TailSource, listener: Callable[[tuple[SeenMessage, ...]], None]
    ) -> None:
        self._broker = broker
        self._source = source
        self._seen = 0
        self._pump: ListenerThread[SeenMessage] = ListenerThread("fake-tail", listener)
        self._tap = self._take
        broker.taps.append(self._tap)

    def status(self) -> TailStatus:
        """How it looks and what it has seen."""
        if self._source.exchange is None and self._source.queue is None:
            return TailStatus("firehose", (), self._seen)
        return TailStatus("tap", ("default exchange",), self._seen)

    def settle(self) -> None:
        """Returns once the listener knows everything."""
        self._pump.settle()

    def close(self) -> None:
        """Ends it; may be called twice."""
        if self._tap in self._broker.taps:
            self._broker.taps.remove(self._tap)
        self._pump.close()

    def _take(self, message: SeenMessage, targets: tuple[EntityKey, ...]) -> None:
        source = self._source
        if source.queue is not None:
            wanted = message.exchange != "" and EntityKey(source.virtual_host, source.queue) in targets
        elif source.exchange is not None:
            wanted = message.exchange == source.exchange and topic_matches(source.pattern, message.routing_key)
        else:
            wanted = True
        if wanted:
            self._seen += 1
            self._pump.put(message)
