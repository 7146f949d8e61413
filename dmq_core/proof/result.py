"""What a proof run found, as values: the account, the timeline, the curves and the verdict. Reports render these."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Whether every message is accounted for; INCONCLUSIVE where the run cannot tell, never a false PASS."""

    PASS = "PASS"  # noqa: S105  # a verdict, no password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Second deliveries of a message, by what explains them; `unexplained` must be 0."""

    redelivery: int = 0
    republish: int = 0
    retry_handoff: int = 0
    unexplained: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """What became of every message; counts of messages, and the ids of those that went wrong.

    `lost` was confirmed and not delivered, `unexpected` delivered and never attempted, `leak` returned and yet
    delivered, `phantom` not sent and yet delivered. `redelivered` counts deliveries that carried the flag, `recovered`
    messages of unknown outcome that were delivered, `order_violations` first deliveries that came after a later message
    of the same publisher and key.
    """

    attempted: int = 0
    confirmed: int = 0
    nacked: int = 0
    returned: int = 0
    unknown: int = 0
    not_sent: int = 0
    delivered: int = 0
    redelivered: int = 0
    recovered: int = 0
    duplicates: Duplicates = Duplicates()
    lost: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    leak: tuple[str, ...] = ()
    phantom: tuple[str, ...] = ()
    order_violations: int = 0


@dataclass(frozen=True, slots=True)
class Timeline:
    """When what happened: `fault_s` seconds after the load began, the others seconds after the fault; None: never."""

    fault_s: float | None = None
    noticed_s: float | None = None
    reconnected_s: float | None = None
    leader_elected_s: float | None = None
    first_confirm_s: float | None = None
    first_delivery_s: float | None = None
    unknowns_resolved_s: float | None = None


@dataclass(frozen=True, slots=True)
class TimelineMark:
    """Something that happened `at_s` seconds after the load began; `kind` is fault, undo, leader or client."""

    at_s: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Curves:
    """Confirms and deliveries a second, in slices of `slice_s` seconds from the load's beginning."""

    slice_s: float
    confirms: tuple[float, ...]
    deliveries: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CounterCheck:
    """What brokers say they did at least, and what the account says; `allowed` may be missing from the brokers' word.

    It is what happened between the last look at a broker and the first at the one that took its place.
    """

    what: str
    accounted: int
    counted: int
    allowed: int


@dataclass(frozen=True, slots=True)
class Workload:
    """What was put on the cluster: `rate` messages a second of `size` bytes over `queue_type` queues.

    `keys` routing keys whose order is checked, `publishers` and `consumers` of each; `handler_s` seconds that each
    handler takes; `exchange_type` is direct, topic, fanout or headers.
    """

    rate: float = 500.0
    size: int = 100
    keys: int = 8
    publishers: int = 1
    consumers: int = 1
    handler_s: float = 0.0
    queue_type: str = "quorum"
    exchange_type: str = "direct"


@dataclass(frozen=True, slots=True)
class ProofResult:
    """A whole run: the verdict with its reasons, and everything that it rests on.

    `fault` and `target` as they were asked for, `node` the node that was hit. `reasons` say in whole sentences why the
    verdict is what it is. `began_at` and `ended_at` are epoch seconds, `seed` repeats the run's random choices.
    `counter_checks` are empty where the brokers' own counters do not frame the whole run.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    backend: str
    rabbitmq: str
    fault: str
    target: str
    node: str
    workload: Workload
    account: Account
    timeline: Timeline
    marks: tuple[TimelineMark, ...]
    curves: Curves
    max_confirm_gap_s: float
    max_delivery_gap_s: float
    began_at: float
    ended_at: float
    seed: int = 0
    journal: str = ""
    counter_checks: tuple[CounterCheck, ...] = ()
