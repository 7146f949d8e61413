"""What a proof run does and when: built-in scenarios by name, and those that users write as TOML; no I/O but one file.

title = "Two nodes in turn"
duration = 30                  # seconds of publishing, and longer where a step is not undone by then
seed = 7
[workload]
rate = 200
[[step]]
at = 4                         # seconds after the load began
fault = "pause"
target = "leader"              # or follower, connected, or a node's name
undo = 12
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from dmq_core.actions.catalog import PROOF_FAULTS, PROOF_NAMES, PROOF_USES, ActionKind
from dmq_core.cluster.faults.model import FaultKind
from dmq_core.cluster.protocol import NodeAction
from dmq_core.errors import InvalidInputError
from dmq_core.messaging.topology.queue_arguments import STREAM
from dmq_core.proof.result import Workload
from dmq_core.text import visible

MOST_SECONDS: Final = 24 * 3600.0
MOST_RATE: Final = 20_000.0
QUEUE_TYPES: Final = ("quorum", "classic", STREAM)
EXCHANGE_TYPES: Final = ("direct", "topic", "fanout", "headers")
SOAK: Final = "soak"
LOAD: Final = "load"
ROLES: Final = ("leader", "follower", "connected")
_MOST_STEPS: Final = 100


@dataclass(frozen=True, slots=True)
class ScenarioStep:
    """A fault, of those in the catalog for proofs, that begins `at_s` seconds after the load and is undone at `undo_s`.

    `target` is leader, follower, connected or a node's name: the one that is hit, at which an alarm is, whose link is
    cut or slow, to which a leader moves (leader: from which). Some faults have none, or nothing to undo.
    """

    at_s: float
    fault: ActionKind
    target: str = "leader"
    undo_s: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole run: the load for `duration_s` seconds, and the steps in the order of their beginning.

    Publishing goes on until the last step is undone, where that is later.
    """

    name: str
    title: str
    steps: tuple[ScenarioStep, ...]
    duration_s: float
    workload: Workload = field(default_factory=Workload)
    seed: int = 0

    @property
    def fault(self) -> str:
        """The fault, or all of them: `kill`, `kill+pause`; of random ones only that they are."""
        if self.name == SOAK:
            return SOAK
        return "+".join(dict.fromkeys(PROOF_NAMES[step.fault] for step in self.steps)) or "none"

    @property
    def target(self) -> str:
        """The target, or all of them."""
        if self.name == SOAK:
            return "random"
        return "+".join(dict.fromkeys(step.target for step in self.steps if step.target))


def scenario_of(name: str, target: str, duration_s: float | None = None) -> Scenario:
    """One fault with sensible times: it begins after an eighth to a quarter of the run, and is undone past its middle.

    `duration_s` None: long enough to see the cluster whole again. `InvalidInputError` if there is no fault called
    `name`.
    """
    if name not in PROOF_FAULTS:
        raise InvalidInputError(f"there is no fault {visible(name)!r}", f"Say {', '.join(PROOF_FAULTS)}.")
    fault = PROOF_FAULTS[name]
    use = PROOF_USES[fault]
    lasts_s, undo_s = duration_s or use.lasts_s, use.undo_s
    begin_s = _BEGINS_S
    if duration_s is not None and undo_s is not None:
        begin_s, undo_s = min(_BEGINS_S, duration_s / 4), max(min(undo_s, duration_s * 0.6), duration_s / 2)
    if not use.targeted:
        return Scenario(name, use.title, (ScenarioStep(begin_s, fault, "", undo_s),), lasts_s)
    who = _WHO.get(target, target)
    title = use.title.format(who) if (fault, target) != _AWAY else "Move the queue's leader elsewhere, and back"
    return Scenario(f"{name}-{target}", title, (ScenarioStep(begin_s, fault, target, undo_s),), lasts_s)


def built_in_scenarios() -> dict[str, Scenario]:
    """Every scenario that has a name, in the order to list them."""
    single = [
        scenario_of(name, role)
        for name, kind in PROOF_FAULTS.items()
        for role in (ROLES if PROOF_USES[kind].targeted else [""])
    ]
    return {scenario.name: scenario for scenario in (*single, *_COMPOSED)}


def find_scenario(name_or_file: str) -> Scenario:
    """The built-in scenario of that name, or the one in that TOML file.

    `InvalidInputError` says what is wrong, and where.
    """
    known = built_in_scenarios()
    if name_or_file in known:
        return known[name_or_file]
    path = Path(name_or_file)
    if path.suffix != ".toml":
        raise InvalidInputError(
            f"there is no scenario {visible(name_or_file)!r}", "'dmq proof list' names them; a file ends in .toml."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InvalidInputError(f"{visible(name_or_file)} cannot be read: {why}", "Give a TOML file.") from error
    return parse_scenario(text, visible(name_or_file))


def parse_scenario(text: str, name: str) -> Scenario:
    """The scenario that `text` describes, called `name` in messages.

    Raises `InvalidInputError` for whatever makes no sense in it.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{name}: {visible(str(error))}", "See 'dmq proof list' for an example.") from error
    top = _Table(document, name)
    steps = [_step(top.inside(table, f"step {number}")) for number, table in enumerate(top.tables("step"), start=1)]
    scenario = Scenario(
        name=name,
        title=top.text("title", Path(name).stem),
        steps=tuple(sorted(steps, key=lambda step: step.at_s)),
        duration_s=top.number("duration", 30.0, least=1.0, most=MOST_SECONDS),
        workload=_workload(top.inside(top.table("workload"), "workload")),
        seed=top.whole("seed", 0, 0, 2**63 - 1),
    )
    top.nothing_else()
    if len(steps) > _MOST_STEPS:
        raise InvalidInputError(f"{name}: {len(steps)} steps are too many", f"At most {_MOST_STEPS}.")
    return checked_scenario(scenario, name)


def checked_scenario(scenario: Scenario, name: str) -> Scenario:
    """`scenario`, unless its times or figures make no sense (`InvalidInputError`)."""
    for number, step in enumerate(scenario.steps, start=1):
        if step.at_s >= scenario.duration_s:
            raise InvalidInputError(
                f"{name}: step {number}: it begins at {step.at_s:g} s, and the load ends at {scenario.duration_s:g} s",
                "Let it begin earlier, or the run last longer.",
            )
        if PROOF_USES[step.fault].quorum_only and scenario.workload.queue_type != "quorum":
            raise InvalidInputError(
                f"{name}: step {number}: {PROOF_NAMES[step.fault]} is for quorum queues, and this is a "
                f"{scenario.workload.queue_type} queue",
                "Leave out --queue-type, or take another fault.",
            )
    return replace(scenario, workload=checked_workload(scenario.workload, name))


def checked_workload(workload: Workload, where: str) -> Workload:
    """`workload`, unless it makes no sense (`InvalidInputError`)."""
    limits = {"keys": 1000, "publishers": 64, "consumers": 64}
    for name, most in limits.items():
        if not 1 <= getattr(workload, name) <= most:
            raise InvalidInputError(
                f"{where}: {name} is {getattr(workload, name)}", f"Give a whole number from 1 to {most}."
            )
    if not 0 < workload.rate <= MOST_RATE:
        raise InvalidInputError(
            f"{where}: rate is {workload.rate:g}", f"Give messages a second, at most {MOST_RATE:g}."
        )
    if not 0 <= workload.size <= 1 << 20:
        raise InvalidInputError(f"{where}: size is {workload.size}", "Give bytes, at most 1048576.")
    if not 0 <= workload.handler_s <= 1:
        raise InvalidInputError(f"{where}: handler_s is {workload.handler_s:g}", "Give seconds, at most 1.")
    for name, choices in (("queue_type", QUEUE_TYPES), ("exchange_type", EXCHANGE_TYPES)):
        if getattr(workload, name) not in choices:
            given = visible(str(getattr(workload, name)))
            raise InvalidInputError(f"{where}: {name} is {given!r}", f"Say {', '.join(choices)}.")
    return workload


class _Table:
    """A table of a document, each key of which is taken once and judged; `where` names it in messages."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = dict(values)
        self._where = where

    def inside(self, values: Mapping[str, Any], what: str) -> _Table:
        return _Table(values, f"{self._where}: {what}")

    def text(self, key: str, usual: str | None = None) -> str:
        value = self._take(key, usual)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, value, "Give a text.")
        return value

    def number(self, key: str, usual: float | None = None, *, least: float, most: float) -> float:
        value = self._take(key, usual)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.wrong(key, value, f"Give a number from {least:g} to {most:g}.")
        return float(value)

    def whole(self, key: str, usual: int, least: int, most: int) -> int:
        value = self._take(key, usual)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(key, value, f"Give a whole number from {least} to {most}.")
        return value

    def table(self, key: str) -> Mapping[str, Any]:
        value = self._values.pop(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, value, f"Write [{key}] and its settings below it.")
        return value

    def tables(self, key: str) -> list[Mapping[str, Any]]:
        value = self._values.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.wrong(key, value, f"Write [[{key}]] for each, and its settings below it.")
        return value

    def has(self, key: str) -> bool:
        return key in self._values

    def nothing_else(self) -> None:
        if self._values:
            unknown = visible(next(iter(self._values)))
            raise InvalidInputError(
                f"{self._where}: there is no setting {unknown!r}", "See 'dmq proof list' for an example."
            )

    def _take(self, key: str, usual: object) -> Any:
        value = self._values.pop(key, usual)
        if value is None:
            raise InvalidInputError(f"{self._where}: {key} is missing", "See 'dmq proof list' for an example.")
        return value

    def wrong(self, key: str, value: object, hint: str) -> InvalidInputError:
        return InvalidInputError(f"{self._where}: {key} is {visible(str(value))[:80]!r}", hint)


def _step(table: _Table) -> ScenarioStep:
    at_s = table.number("at", least=0.0, most=MOST_SECONDS)
    said = table.text("fault")
    if said not in PROOF_FAULTS:
        raise table.wrong("fault", said, f"Say {', '.join(PROOF_FAULTS)}.")
    fault = PROOF_FAULTS[said]
    use = PROOF_USES[fault]
    target = table.text("target", "leader") if use.targeted else ""
    # A node that is not brought back cannot be asked whether its queues are empty.
    undo_s = None if use.undo_s is None else table.number("undo", least=at_s, most=MOST_SECONDS)
    step = ScenarioStep(at_s, fault, target, undo_s)
    table.nothing_else()
    return step


def _workload(table: _Table) -> Workload:
    usual = Workload()
    readers: dict[str, Callable[[str, Any], Any]] = {
        "float": lambda key, value: table.number(key, value, least=0.0, most=MOST_RATE),
        "int": lambda key, value: table.whole(key, value, 0, 1 << 20),
        "str": table.text,
    }
    said = {f.name: readers[str(f.type)](f.name, getattr(usual, f.name)) for f in fields(Workload) if table.has(f.name)}
    table.nothing_else()
    return replace(usual, **said)


_BEGINS_S: Final = 3.0
_AWAY: Final = (FaultKind.MOVE_LEADER, "leader")
_WHO: Final = {
    "leader": "the node that leads the queue",
    "follower": "a node that follows",
    "connected": "the node that the clients are connected to",
}
_COMPOSED: Final = (
    Scenario(
        "leader-twice",
        "Kill the leader, and the next leader once the first is back",
        (ScenarioStep(3.0, NodeAction.KILL, "leader", 6.0), ScenarioStep(18.0, NodeAction.KILL, "leader", 21.0)),
        duration_s=34.0,
    ),
)
EXAMPLE: Final = """title = "Freeze the leader, then kill it"
duration = 40
[workload]
rate = 200
[[step]]
at = 4
fault = "pause"
target = "leader"
undo = 12
[[step]]
at = 20
fault = "kill"
target = "connected"
undo = 26
"""
