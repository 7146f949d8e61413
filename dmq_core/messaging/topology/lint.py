"""What a RabbitMQ version would refuse, ignore, or lose messages by, told before anything is declared; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dmq_core.messaging.topology.dead_lettering import DeadLetters, declared_exchange, listing, reasons_to_die
from dmq_core.messaging.topology.model import Binding, Entity, Exchange, Queue
from dmq_core.messaging.topology.queue_arguments import (
    CLASSIC,
    QUEUE_TYPES,
    QUORUM,
    STREAM,
    WITH_DELAYED_RETRY,
    WITH_DELIVERY_LIMIT,
    ArgumentVerdict,
    delivery_limit,
    judge_argument,
    queue_kind,
)
from dmq_core.text import visible
from dmq_core.versions import Version

_PLAIN_EXCHANGES = frozenset({"direct", "topic", "fanout", "headers"})
_HEADER_MATCHES = frozenset({"all", "any", "all-with-x", "any-with-x"})


class LintSeverity(StrEnum):
    """How bad a finding is: the broker refuses the declaration; takes it but ignores a part of it; may lose messages
    or their order by it; or it is only worth knowing.

    >>> [orders] = manager.explain(Queue("orders", "quorum", exclusive=True))
    >>> any(finding.severity is LintSeverity.REFUSED for finding in orders.findings)
    True
    """

    REFUSED = "refused"
    IGNORED = "ignored"
    LOSS_TRAP = "loss trap"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class LintFinding:
    """What is wrong with `entity`, and what to do about it; both are safe to show.

    >>> [orders] = manager.explain(Queue("orders", "quorum", arguments={"x-max-priority": 5}))
    >>> print(orders.findings[0].what)
    queue 'orders': a quorum queue has no x-max-priority
    """

    entity: Entity
    severity: LintSeverity
    what: str
    hint: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.what} ({self.hint})"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What will be declared for `entity`, in one sentence without its full stop, and what was found about it.

    >>> [news] = manager.explain(Exchange("news", "fanout"))
    >>> print(news)
    declare the durable fanout exchange 'news'.
    """

    entity: Entity
    text: str
    findings: tuple[LintFinding, ...] = ()

    def __str__(self) -> str:
        return "; ".join([self.text, *map(str, self.findings)]) + "."


def in_order(entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """The order to declare in: exchanges, bindings between exchanges, queues, bindings of queues; else as given."""
    return tuple(sorted(entities, key=_rank))


def judge(entities: Sequence[Entity], version: Version) -> tuple[LintFinding, ...]:
    """What is to be said about `entities` on RabbitMQ `version`, in the order of `in_order`.

    Only what is among `entities` is known; exchanges and queues that exist already count as not declared here.
    """
    known = DeadLetters(entities, version)
    findings: list[LintFinding] = []
    for entity in in_order(entities):
        match entity:
            case Exchange():
                findings += _about_exchange(entity)
            case Queue():
                findings += _about_queue(entity, version)
                findings += _about_deaths(entity, known, version)
            case Binding():
                findings += _about_binding(entity, known)
    return tuple(findings + [_about_cycle(cycle) for cycle in known.cycles()])


def explain(entities: Sequence[Entity], version: Version) -> tuple[Explanation, ...]:
    """What will be declared on RabbitMQ `version`, in order, with defaults that nobody wrote and with the findings."""
    findings = judge(entities, version)
    return tuple(
        Explanation(entity, _described(entity, version), tuple(f for f in findings if f.entity is entity))
        for entity in in_order(entities)
    )


def _rank(entity: Entity) -> int:
    match entity:
        case Exchange():
            return 0
        case Queue():
            return 2
        case Binding():
            return 1 if entity.to_exchange else 3


# What the broker says to the declaration itself.
def _about_exchange(exchange: Exchange) -> Iterator[LintFinding]:
    name = _named("exchange", exchange.name)
    if exchange.name == "":
        yield LintFinding(
            exchange, LintSeverity.REFUSED, "the default exchange cannot be declared", "It is always there."
        )
    elif exchange.name.startswith("amq.") and not _is_built_in(exchange):
        yield _refused(exchange, f"{name} begins with amq., which the broker keeps for itself", "Take another name.")
    for key, value in exchange.arguments.items():
        if key == "alternate-exchange":
            if not isinstance(value, str):
                yield _refused(exchange, f"the alternate exchange of {name} is no text", "Give the exchange's name.")
        elif exchange.type in _PLAIN_EXCHANGES and key.startswith("x-"):
            yield _ignored(exchange, f"{visible(key)[:60]} means nothing to {name}", "Take it out.")


def _is_built_in(exchange: Exchange) -> bool:
    built_in = declared_exchange(exchange.name)
    return built_in is not None and (exchange.type == built_in.type if exchange.adopt else exchange == built_in)


def _about_binding(binding: Binding, known: DeadLetters) -> Iterator[LintFinding]:
    if binding.source == "" or (binding.to_exchange and binding.destination == ""):
        yield _refused(
            binding, "nothing can be bound to the default exchange", "It routes to every queue by its name already."
        )
        return
    match = binding.arguments.get("x-match", "all")
    if known.exchange_type(binding.source) == "headers" and match not in _HEADER_MATCHES:
        yield _refused(binding, f"x-match is {visible(str(match))[:60]}", f"Say {listing(sorted(_HEADER_MATCHES))}.")
    missing = []
    if known.exchange_type(binding.source) is None:
        missing.append(_named("exchange", binding.source))
    if binding.to_exchange and known.exchange_type(binding.destination) is None:
        missing.append(_named("exchange", binding.destination))
    if not binding.to_exchange and not known.has_queue(binding.destination):
        missing.append(_named("queue", binding.destination))
    for what in missing:
        yield LintFinding(
            binding,
            LintSeverity.NOTE,
            f"{what} is not declared here",
            "The broker refuses the binding if there is none.",
        )


def _about_queue(queue: Queue, version: Version) -> Iterator[LintFinding]:
    name = _named("queue", queue.name)
    kind = queue.all_arguments.get("x-queue-type")
    if queue.name.startswith("amq."):
        yield _refused(queue, f"{name} begins with amq., which the broker keeps for itself", "Take another name.")
    if kind in (QUORUM, STREAM):
        yield from _about_lasting_queue(queue, str(kind), name)
    elif not queue.durable and not queue.exclusive:
        yield LintFinding(
            queue,
            LintSeverity.LOSS_TRAP,
            f"{name} is transient: it and its messages go when its node stops",
            "Make it durable, or exclusive if it is one connection's own; brokers may be set to refuse it.",
        )
    for key, value in queue.all_arguments.items():
        verdict = _verdict(queue, key, value, version)
        if verdict is not None:
            severity = LintSeverity.REFUSED if verdict.refused else LintSeverity.IGNORED
            # Names without x- are never the broker's own; somebody else may read them.
            severity = severity if verdict.refused or key.startswith("x-") else LintSeverity.NOTE
            yield LintFinding(queue, severity, f"{name}: {verdict.what}", verdict.hint)
    if "x-dead-letter-routing-key" in queue.arguments and "x-dead-letter-exchange" not in queue.arguments:
        yield _refused(queue, f"{name} has a dead-letter routing key but no exchange", "Add x-dead-letter-exchange.")


def _about_lasting_queue(queue: Queue, kind: str, name: str) -> Iterator[LintFinding]:
    wrong = [word for word, so in (("exclusive", queue.exclusive), ("auto-delete", queue.auto_delete)) if so]
    wrong += [] if queue.durable else ["transient"]
    if wrong:
        yield _refused(
            queue,
            f"{name} is a {kind} queue and {listing(wrong)}",
            f"A {kind} queue is durable and shared; or make it classic.",
        )
    if queue.name == "":
        yield _refused(queue, f"a {kind} queue cannot be named by the broker", "Give it a name.")


def _verdict(queue: Queue, key: str, value: object, version: Version) -> ArgumentVerdict | None:
    kind = queue.all_arguments.get("x-queue-type")
    if key == "x-queue-type":
        return judge_argument(key, value, CLASSIC, version)
    if kind is not None:
        # With a type that does not exist, the type is what is wrong.
        return judge_argument(key, value, str(kind), version) if kind in QUEUE_TYPES else None
    kinds = QUEUE_TYPES if queue_kind(queue) is None else (CLASSIC,)
    verdicts = [judge_argument(key, value, possible, version) for possible in kinds]
    # The virtual host may default to any type: only what is wrong for all is wrong.
    return None if any(v is None for v in verdicts) else next((v for v in verdicts if v and not v.refused), verdicts[0])


# How messages get lost though everything was declared.
def _about_deaths(queue: Queue, known: DeadLetters, version: Version) -> Iterator[LintFinding]:
    name = _named("queue", queue.name)
    arguments = queue.all_arguments
    dead_letters = isinstance(arguments.get("x-dead-letter-exchange"), str)
    if dead_letters:
        yield from _about_target(queue, known)
    if queue_kind(queue) == QUORUM:
        yield from _about_limit(queue, dead_letters, version)
        yield from _about_strategy(queue, dead_letters, version)
    bounded = "x-max-length" in arguments or "x-max-length-bytes" in arguments
    if (
        bounded
        and not dead_letters
        and arguments.get("x-overflow", "drop-head") not in ("reject-publish", "reject-publish-dlx")
    ):
        yield LintFinding(
            queue,
            LintSeverity.NOTE,
            f"{name} drops its oldest messages when it is full",
            "Set x-overflow to reject-publish, so that publishers learn of it, or give it a dead-letter exchange.",
        )


def _about_target(queue: Queue, known: DeadLetters) -> Iterator[LintFinding]:
    name = _named("queue", queue.name)
    exchange = str(queue.arguments["x-dead-letter-exchange"])
    if known.exchange_type(exchange) is None:
        yield LintFinding(
            queue,
            LintSeverity.LOSS_TRAP,
            f"{name} dead-letters to {_named('exchange', exchange)}, which is not declared here",
            "Declare it with a queue bound to it: dead letters that reach no queue are dropped in silence.",
        )
    elif not known.targets(queue) and known.sure_of(queue):
        yield LintFinding(
            queue,
            LintSeverity.LOSS_TRAP,
            f"the dead letters of {name} reach no queue that is declared here",
            f"Declare a queue that {_named('exchange', exchange)} routes them to, else they are dropped in silence.",
        )


def _about_limit(queue: Queue, dead_letters: bool, version: Version) -> Iterator[LintFinding]:
    name = _named("queue", queue.name)
    limit = delivery_limit(queue.arguments, version)
    written = queue.arguments.get("x-delivery-limit")
    if isinstance(written, int) and written < 0 and version < WITH_DELIVERY_LIMIT:
        yield LintFinding(
            queue,
            LintSeverity.LOSS_TRAP,
            f"{name} has a delivery limit of {written}, which on {version} gives a message up at its first return",
            "Leave x-delivery-limit out: before 4.0 that means no limit.",
        )
    elif limit is not None and not dead_letters:
        default = "" if "x-delivery-limit" in queue.arguments else f", the default of {version}"
        yield LintFinding(
            queue,
            LintSeverity.LOSS_TRAP,
            f"{name} drops a message that was returned more than {limit} times{default}",
            "Give it a dead-letter exchange" + (", or x-delivery-limit -1." if version >= WITH_DELIVERY_LIMIT else "."),
        )
    if queue.arguments.get("x-single-active-consumer") is True and not limit:
        yield LintFinding(
            queue,
            LintSeverity.LOSS_TRAP,
            f"{name} has a single active consumer but no positive delivery limit: a returned message goes to the back",
            "Set x-delivery-limit, so that returned messages come first again and keep their order.",
        )


def _about_strategy(queue: Queue, dead_letters: bool, version: Version) -> Iterator[LintFinding]:
    name = _named("queue", queue.name)
    arguments = queue.arguments
    if arguments.get("x-dead-letter-strategy") == "at-least-once":
        why = "" if dead_letters else "has no dead-letter exchange"
        if dead_letters and arguments.get("x-overflow") != "reject-publish":
            why = "does not reject publishes when it is full"
        if why:
            yield LintFinding(
                queue,
                LintSeverity.LOSS_TRAP,
                f"{name} asks for at-least-once dead-lettering but {why}, so the broker silently does without",
                "Set x-dead-letter-exchange and x-overflow reject-publish.",
            )
    if version >= WITH_DELAYED_RETRY:
        kind = arguments.get("x-delayed-retry-type", "disabled")
        if (kind != "disabled") != ("x-delayed-retry-min" in arguments):
            yield _ignored(
                queue,
                f"{name} sets one of x-delayed-retry-type and x-delayed-retry-min, which work only together",
                "Set both, or none.",
            )


def _about_cycle(cycle: tuple[Queue, ...]) -> LintFinding:
    names = listing([_named("queue", q.name) for q in cycle], "then")
    return LintFinding(
        cycle[0],
        LintSeverity.LOSS_TRAP,
        f"dead letters go round in a circle through {names}, and the broker drops one that comes round unrejected",
        "Break the circle, or publish a copy and acknowledge instead of dead-lettering.",
    )


# One sentence for each.
def _described(entity: Entity, version: Version) -> str:
    match entity:
        case Exchange():
            head = f"declare the {_lifetime(entity)}{visible(entity.type)} {_named('exchange', entity.name)}"
        case Queue():
            return _described_queue(entity, version)
        case Binding():
            target = _named("exchange" if entity.to_exchange else "queue", entity.destination)
            key = f"the key '{visible(entity.routing_key)}'" if entity.routing_key else "an empty key"
            head = f"bind {target} to {_named('exchange', entity.source)} by {key}"
    return head + _rest(entity.arguments.items())


def _described_queue(queue: Queue, version: Version) -> str:
    kind = queue_kind(queue)
    exclusive = "exclusive " if queue.exclusive else ""
    head = f"declare the {_lifetime(queue)}{exclusive}{visible(kind or 'untyped')} {_named('queue', queue.name)}"
    parts = [] if kind else ["whose type the virtual host's default decides"]
    written = [(k, v) for k, v in queue.arguments.items() if k != "x-queue-type"]
    if kind == QUORUM and "x-delivery-limit" not in queue.arguments:
        limit = delivery_limit(queue.arguments, version)
        parts.append(f"with {'no delivery limit' if limit is None else f'a delivery limit of {limit}'} by default")
    return ", ".join([head + _rest(written), *parts, *_ways_out(queue, version)])


def _ways_out(queue: Queue, version: Version) -> list[str]:
    """Why messages leave `queue` other than by being acknowledged or rejected, and where they go then."""
    reasons = reasons_to_die(queue, version)
    if not reasons:
        return []
    exchange = queue.arguments.get("x-dead-letter-exchange")
    where = "dropped" if exchange is None else f"dead-lettered to {_named('exchange', str(exchange))}"
    return [f"where messages are {where} when {listing(reasons, 'or')}"]


def _lifetime(entity: Exchange | Queue) -> str:
    return ("durable " if entity.durable else "transient ") + ("auto-deleted " if entity.auto_delete else "")


def _rest(arguments: Iterable[tuple[str, object]]) -> str:
    shown = [f"{visible(key)}={visible(str(value))}" for key, value in arguments]
    return f" with {listing(shown)}" if shown else ""


def _named(what: str, name: str) -> str:
    return f"the default {what}" if name == "" and what == "exchange" else f"{what} '{visible(name)}'"


def _refused(entity: Entity, what: str, hint: str) -> LintFinding:
    return LintFinding(entity, LintSeverity.REFUSED, what, hint)


def _ignored(entity: Entity, what: str, hint: str) -> LintFinding:
    return LintFinding(entity, LintSeverity.IGNORED, what, hint)
