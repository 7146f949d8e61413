"""A broker, a publisher and a consumer made believe, whose journals tell the truth whatever happens to them."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from dmq_core.messaging.messages import Outcome
from dmq_core.proof.journal.records import (
    AnswerRecord,
    AttemptRecord,
    ClientEvent,
    ClientRecord,
    CountersRecord,
    DeliveryRecord,
    DepthRecord,
    EndRecord,
    FaultRecord,
    FaultStage,
    HealthRecord,
    LeaderRecord,
    OutcomeRecord,
    PhaseRecord,
    Record,
    RunPhase,
    RunSetup,
)

NODES = ("rmq1", "rmq2", "rmq3")
SETUP = RunSetup(
    run="6f0c",
    backend="docker",
    rabbitmq="4.3.6",
    fault="kill",
    target="leader",
    nodes=NODES,
    queues=("proof",),
    keys=("k0", "k1", "k2"),
    ordered=True,
)
EPOCH_S = 1_790_000_000.0


@dataclass
class Copy:
    """One message in the queue."""

    number: int
    key: int
    flagged: bool = False
    retried: bool = False


@dataclass
class World:
    """Everything that happens, and what is written down of it; outcomes and answers are written down late."""

    rng: random.Random
    now: float = 100.0
    records: list[Record] = field(default_factory=list)
    late: list[Record] = field(default_factory=list)
    queue: deque[Copy] = field(default_factory=deque)
    unacked: list[Copy] = field(default_factory=list)
    on_wire: list[tuple[int, int]] = field(default_factory=list)
    strays: list[Copy] = field(default_factory=list)
    again: list[tuple[int, int]] = field(default_factory=list)
    newest: int = 0
    epoch: int = 1
    confirmed: int = 0
    delivered: int = 0
    started: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NODES, 0))

    @property
    def at(self) -> tuple[float, float]:
        return round(self.now, 6), round(self.now + EPOCH_S, 6)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def pass_time(self, seconds: float = 0.002) -> None:
        self.now += seconds

    def write_late(self) -> None:
        self.records += self.late
        self.late.clear()

    # The publisher and its broker.

    def publish(self) -> None:
        batch = [(self.newest + i + 1, self.rng.randrange(3)) for i in range(self.rng.randint(1, 4))]
        self.newest += len(batch)
        if self.again and self.chance(0.5):
            # What is sent again goes first, in a batch of its own, so that numbers rise.
            batch, self.again = self.again, []
        self.attempt(batch)

    def attempt(self, batch: list[tuple[int, int]]) -> None:
        self.records.append(AttemptRecord(*self.at, 0, tuple(n for n, _ in batch), tuple(k for _, k in batch)))
        self.pass_time()
        for number, key in batch:
            fate = self.rng.choices(list(Outcome), [30, 1, 1, 1, 1])[0]
            if fate is Outcome.CONFIRMED:
                self.on_wire.append((number, key))
            else:
                self.settle(fate, number)

    def broker_takes(self) -> None:
        while self.on_wire and self.chance(0.8):
            number, key = self.on_wire.pop(0)
            self.queue.append(Copy(number, key))
            self.settle(Outcome.CONFIRMED, number)
        if self.strays and self.chance(0.3):
            self.queue.append(self.strays.pop(0))

    def settle(self, outcome: Outcome, number: int) -> None:
        self.confirmed += outcome is Outcome.CONFIRMED
        self.late.append(OutcomeRecord(*self.at, outcome, (number,)))

    def lose_publisher(self, node: str) -> None:
        """What was on the wire arrived up to some point, maybe late, and nobody knows which."""
        arrived = self.rng.randint(0, len(self.on_wire))
        for position, (number, key) in enumerate(self.on_wire):
            if position < arrived:
                self.strays.append(Copy(number, key))
            self.settle(Outcome.UNKNOWN, number)
            if self.chance(0.5):
                self.again.append((number, key))
        self.on_wire.clear()
        self.records.append(
            ClientRecord(*self.at, "publisher", 0, ClientEvent.LOST, node, 1, "the connection was closed")
        )
        self.pass_time(0.1)
        self.records.append(ClientRecord(*self.at, "publisher", 0, ClientEvent.RECONNECTED, "rmq3", 2))

    # The consumer and its broker.

    def consume(self) -> None:
        batch = [self.queue.popleft() for _ in range(min(len(self.queue), self.rng.randint(1, 5)))]
        if not batch:
            return
        if self.chance(0.02):
            # It came to a client that did not live to see it.
            self.requeue(batch)
            return
        self.records.append(
            DeliveryRecord(
                *self.at,
                0,
                self.epoch,
                "proof",
                tuple(copy.number for copy in batch),
                tuple(copy.key for copy in batch),
                tuple(i for i, copy in enumerate(batch) if copy.flagged),
                (),
                tuple(i for i, copy in enumerate(batch) if copy.retried),
            )
        )
        self.delivered += len(batch)
        self.unacked += batch
        self.pass_time()

    def answer(self) -> None:
        for copy in self.unacked:
            if self.chance(0.03):
                self.queue.append(Copy(copy.number, copy.key, retried=True))
        if self.unacked:
            numbers = tuple(copy.number for copy in self.unacked)
            self.late.append(AnswerRecord(*self.at, 0, self.epoch, numbers))
        self.unacked.clear()

    def lose_consumer(self) -> None:
        self.records.append(ClientRecord(*self.at, "consumer", 0, ClientEvent.LOST, "rmq2", self.epoch, "gone"))
        self.requeue(self.unacked, forgetful=True)
        self.unacked = []
        self.epoch += 1
        self.pass_time(0.05)
        self.records.append(ClientRecord(*self.at, "consumer", 0, ClientEvent.RECONNECTED, "rmq1", self.epoch))

    def requeue(self, copies: list[Copy], forgetful: bool = False) -> None:
        for copy in reversed(copies):
            flagged = not forgetful or self.chance(0.8)
            self.queue.appendleft(Copy(copy.number, copy.key, flagged or copy.flagged, copy.retried))

    # The cluster.

    def look(self) -> None:
        for node in NODES:
            shares = (self.confirmed, self.delivered) if node == "rmq1" else (0, 0)
            self.records.append(CountersRecord(*self.at, node, f"epoch {self.started[node]}", shares[0], *shares, 0))
        self.records.append(HealthRecord(*self.at, NODES))
        self.pass_time()

    def kill(self) -> None:
        self.records.append(FaultRecord(*self.at, False, FaultStage.ASKED, "kill", "rmq2"))
        self.pass_time(0.02)
        self.records.append(FaultRecord(*self.at, False, FaultStage.BEGAN, "kill", "rmq2"))
        self.lose_publisher("rmq2")
        if self.chance(0.7):
            self.lose_consumer()
        self.records.append(LeaderRecord(*self.at, "proof", "rmq3", 2))
        self.records.append(
            FaultRecord(*self.at, False, FaultStage.HOLDS, "kill", "rmq2", "its container exited with 137")
        )
        self.started["rmq2"] += 1

    def undo(self) -> None:
        self.records.append(FaultRecord(*self.at, True, FaultStage.ASKED, "start", "rmq2"))
        self.pass_time(4.0)
        self.records.append(FaultRecord(*self.at, True, FaultStage.HOLDS, "start", "rmq2"))


def honest_run(seed: int, ticks: int = 40) -> list[Record]:
    """The records of one run; about three messages a tick."""
    world = World(random.Random(seed))
    world.look()
    world.records.append(LeaderRecord(*world.at, "proof", "rmq2", 1))
    world.records.append(PhaseRecord(*world.at, RunPhase.BEGAN))
    strike = world.rng.randint(ticks // 4, ticks // 2)
    for tick in range(ticks):
        _tick(world)
        if tick == strike:
            world.write_late()
            world.look()
            world.kill()
        elif tick == 3 * ticks // 4:
            world.undo()
            world.look()
    world.attempt(world.again or [(world.newest + 1, 0)])
    world.records.append(PhaseRecord(*world.at, RunPhase.PUBLISHED))
    _drain(world)
    return world.records


def _tick(world: World) -> None:
    world.publish()
    if world.chance(0.8):
        world.broker_takes()
    if world.chance(0.8):
        world.consume()
    if world.chance(0.6):
        world.answer()
    if world.chance(0.5):
        world.write_late()
    if world.chance(0.03):
        world.lose_consumer()
    world.pass_time()


def _drain(world: World) -> None:
    while world.on_wire or world.strays or world.queue or world.unacked:
        world.broker_takes()
        world.consume()
        world.answer()
        world.pass_time()
    world.write_late()
    world.records.append(PhaseRecord(*world.at, RunPhase.DRAINED))
    for _ in range(3):
        world.records += [DepthRecord(*world.at, node, "proof", 0, 0) for node in NODES]
        world.pass_time(1.0)
    world.look()
    world.records.append(EndRecord(*world.at, len(world.records) + 2))
