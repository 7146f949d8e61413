"""What is said of a topology before it is declared; tests/cluster/test_topology_refusals.py asks brokers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.messaging.topology.lint import LintFinding, LintSeverity, explain, in_order, judge
from dmq_core.messaging.topology.model import Binding, Entity, Exchange, Queue
from dmq_core.text import visible
from dmq_core.versions import Version

V310, V40, V43 = Version(3, 10, 8), Version(4, 0, 5), Version(4, 3, 6)
VERSIONS = (V310, V40, V43)
REFUSED, IGNORED, LOSS_TRAP, NOTE = LintSeverity
TO_DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
SURE = {**TO_DEAD, "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
DEAD = Queue("dead", "classic")


def quorum(name: str = "q", /, **arguments: object) -> Queue:
    return Queue(name, "quorum", arguments={f"x-{key.replace('_', '-')}": value for key, value in arguments.items()})


def found(severity: LintSeverity, version: Version, *entities: Entity) -> list[LintFinding]:
    return [f for f in judge(entities, version) if f.severity is severity]


def says(severity: LintSeverity, version: Version, *entities: Entity) -> str:
    """The one thing that is found with this severity."""
    (finding,) = found(severity, version, *entities)
    return finding.what


@pytest.mark.parametrize("version", VERSIONS)
def test_a_work_queue_with_a_sure_way_for_its_dead_letters_is_beyond_reproach(version: Version) -> None:
    work = Queue("work", "quorum", arguments={**SURE, "x-delivery-limit": 20})
    entities = (Exchange("orders", "topic"), work, DEAD, Binding("orders", "work", "order.#"))
    assert judge(entities, version) == ()


@pytest.mark.parametrize("kind", ["quorum", "stream"])
@pytest.mark.parametrize("change", [{"exclusive": True}, {"auto_delete": True}, {"durable": False}])
def test_quorum_queues_and_streams_are_durable_and_shared(kind: str, change: dict[str, bool]) -> None:
    assert f"is a {kind} queue and" in says(REFUSED, V43, Queue("q", kind, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "arguments", "words"),
    [
        (V310, {"x-delayed-retry-type": "failed"}, "It needs 4.3; take it out."),
        (V40, {"x-delayed-retry-min": 100}, "It needs 4.3; take it out."),
        (V43, {"x-overflow": "reject-publish-dlx"}, "It must be one of drop-head, reject-publish."),
        (V43, {"x-delivery-limit": "5"}, "It must be a whole number."),
        (V43, {"x-mesage-ttl": 5}, "It is ignored in silence; is it a slip of the pen?"),
        (V40, {"x-ha-policy": "all"}, "Mirrored classic queues are gone; take a quorum queue."),
        (V43, {"x-delayed-retry-type": "failed"}, "Set both, or none."),
        (V43, {"x-delayed-retry-min": 100}, "Set both, or none."),
        (V43, {"x-delayed-retry-type": "sometimes", "x-delayed-retry-min": 1}, "It must be one of disabled, all,"),
    ],
)
def test_what_the_broker_takes_and_ignores_is_told(version: Version, arguments: dict[str, object], words: str) -> None:
    (finding,) = found(IGNORED, version, Queue("q", "quorum", arguments=arguments))
    assert finding.hint.startswith(words)


def test_lazy_mode_counts_until_3_12_and_delayed_retry_from_4_3_on() -> None:
    lazy = Queue("q", "classic", arguments={"x-queue-mode": "lazy"})
    assert found(IGNORED, V310, lazy) == []
    assert len(found(IGNORED, V43, lazy)) == 1
    assert found(IGNORED, V43, quorum(delayed_retry_type="failed", delayed_retry_min=100)) == []


def test_an_argument_of_another_type_of_queue_is_refused_once_the_broker_knows_it() -> None:
    classic = Queue("q", "classic", arguments={"x-delayed-retry-min": 100})
    assert found(REFUSED, V40, classic) == []
    assert "a classic queue has no x-delayed-retry-min" in says(REFUSED, V43, classic)
    assert "no x-delivery-limit" in says(REFUSED, V43, Queue("q", "classic", arguments={"x-delivery-limit": 5}))
    assert "no x-max-priority" in says(REFUSED, V43, quorum(max_priority=5))


def test_of_a_queue_without_a_type_only_what_is_wrong_for_every_type_is_told() -> None:
    assert judge([Queue("q", arguments={"x-delivery-limit": 5})], V43) == ()
    assert judge([Queue("q", arguments={"x-max-priority": 5})], V43) == ()
    assert "x-message-ttl is -1" in says(REFUSED, V43, Queue("q", arguments={"x-message-ttl": -1}))
    private = Queue("q", exclusive=True, arguments={"x-delivery-limit": 5})
    assert "a classic queue has no x-delivery-limit" in says(REFUSED, V43, private)


def test_arguments_that_were_never_the_brokers_are_only_noted() -> None:
    assert "'q': owner means nothing" in says(NOTE, V43, Queue("q", "classic", arguments={"owner": "billing"}))


def test_a_limit_without_dead_letters_drops_and_the_default_of_4_counts_too() -> None:
    assert "more than 5 times" in says(LOSS_TRAP, V310, quorum(delivery_limit=5))
    assert "more than 20 times, the default of 4.0.5" in says(LOSS_TRAP, V40, quorum())
    assert judge([quorum()], V310) == ()
    assert judge([quorum(delivery_limit=-1)], V43) == ()


def test_minus_one_means_no_limit_on_4_and_the_first_return_on_3() -> None:
    assert "gives a message up at its first return" in says(LOSS_TRAP, V310, quorum(delivery_limit=-1))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (TO_DEAD, "does not reject publishes"),
        ({**TO_DEAD, "x-overflow": "drop-head"}, "does not reject publishes"),
        ({"x-overflow": "reject-publish", "x-delivery-limit": -1}, "has no dead-letter exchange"),
    ],
)
def test_at_least_once_that_the_broker_would_do_without_is_a_trap(arguments: dict[str, object], why: str) -> None:
    queue = Queue("q", "quorum", arguments={**arguments, "x-dead-letter-strategy": "at-least-once"})
    assert why in says(LOSS_TRAP, V43, queue, DEAD)


def test_dead_letters_need_an_exchange_and_a_queue_that_are_declared() -> None:
    assert "which is not declared here" in says(LOSS_TRAP, V310, quorum(dead_letter_exchange="dlx"))
    nowhere = quorum(dead_letter_exchange="", dead_letter_routing_key="nobody")
    assert "reach no queue" in says(LOSS_TRAP, V310, nowhere)
    through = quorum(dead_letter_exchange="dlx", dead_letter_routing_key="dead.q")
    bound = (Exchange("dlx", "topic"), DEAD, Binding("dlx", "dead", "dead.#"))
    assert judge((through, *bound), V310) == ()
    assert "reach no queue" in says(LOSS_TRAP, V310, through, *bound[:2])


def test_where_dead_letters_go_by_headers_or_by_a_key_of_their_own_is_not_guessed() -> None:
    by_headers = quorum(dead_letter_exchange="amq.headers", dead_letter_routing_key="x")
    by_own_key = quorum(dead_letter_exchange="amq.direct")
    assert judge([by_headers, by_own_key], V310) == ()


def test_a_ttl_queue_that_returns_to_a_queue_with_a_limit_is_a_circle() -> None:
    work = quorum("work", dead_letter_exchange="", dead_letter_routing_key="wait")
    wait = Queue("wait", "quorum", arguments={
        "x-message-ttl": 1000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "work",
    })  # fmt: skip
    (finding,) = found(LOSS_TRAP, V43, wait, work)
    assert "queue 'wait' then queue 'work'" in finding.what
    assert found(LOSS_TRAP, V310, wait, work) == [], "without a limit only a rejection leads from work to wait"


def test_a_circle_is_found_through_exchanges_and_by_the_key_of_a_binding() -> None:
    work = Queue("work", "classic", arguments={"x-dead-letter-exchange": "dlx", "x-message-ttl": 5})
    wait = Queue("wait", "classic", arguments={"x-dead-letter-exchange": "orders", "x-max-length": 5})
    entities = (
        Exchange("orders", "topic"), Exchange("dlx", "fanout"), Exchange("inner", "direct"), work, wait,
        Binding("orders", "work", "order.new"), Binding("dlx", "inner", to_exchange=True),
        Binding("inner", "wait", "order.new"),
    )  # fmt: skip
    assert "queue 'work' then queue 'wait'" in says(LOSS_TRAP, V43, *entities)


def test_a_queue_that_dead_letters_to_itself_is_a_circle() -> None:
    itself = Queue("q", "classic", arguments={"x-dead-letter-exchange": "", "x-message-ttl": 5})
    assert "in a circle through queue 'q'" in says(LOSS_TRAP, V43, itself)


def test_strict_order_needs_a_positive_limit() -> None:
    def ordered(**more: int) -> Queue:
        return quorum("q", single_active_consumer=True, **more)

    assert "no positive delivery limit" in says(LOSS_TRAP, V310, ordered())
    assert "no positive delivery limit" in says(LOSS_TRAP, V43, ordered(delivery_limit=-1))
    assert judge([Queue("q", "quorum", arguments={**ordered(delivery_limit=9).arguments, **TO_DEAD}), DEAD], V310) == ()


def test_transient_shared_queues_and_dropped_heads_are_told() -> None:
    assert "it and its messages go when its node stops" in says(LOSS_TRAP, V43, Queue("q", "classic", durable=False))
    assert judge([Queue("q", "classic", durable=False, exclusive=True)], V43) == ()
    assert "drops its oldest" in says(NOTE, V43, Queue("q", "classic", arguments={"x-max-length": 5}))
    assert judge([Queue("q", "classic", arguments={"x-max-length": 5, "x-overflow": "reject-publish"})], V43) == ()


def test_names_and_bindings_that_the_broker_keeps_for_itself_are_refused() -> None:
    for entity in (
        Exchange(""),
        Exchange("amq.mine"),
        Exchange("amq.topic", "direct"),
        Queue("amq.mine"),
        Binding("", "q"),
    ):
        assert len(found(REFUSED, V43, entity)) == 1
    assert judge([Exchange("amq.topic", "topic")], V43) == ()
    assert judge([Exchange("amq.topic", "topic", durable=False, adopt=True)], V43) == ()


def test_a_binding_to_what_is_not_declared_here_is_noted() -> None:
    assert {f.what for f in found(NOTE, V43, Binding("x", "y", to_exchange=True))} == {
        "exchange 'x' is not declared here",
        "exchange 'y' is not declared here",
    }


def test_an_explanation_follows_the_order_of_declaring_and_names_defaults_and_findings() -> None:
    entities = (
        Binding("orders", "work", "order.\x1b#"),
        Queue("work", "quorum", arguments=TO_DEAD),
        Binding("all", "orders", "#", to_exchange=True),
        DEAD,
        Exchange("orders", "topic"),
        Exchange("all", "fanout", durable=False, auto_delete=True),
    )
    assert [str(e) for e in explain(entities, V43)] == [
        "declare the durable topic exchange 'orders'.",
        "declare the transient auto-deleted fanout exchange 'all'.",
        "bind exchange 'orders' to exchange 'all' by the key '#'.",
        "declare the durable quorum queue 'work' with x-dead-letter-exchange= and x-dead-letter-routing-key=dead, "
        "with a delivery limit of 20 by default, "
        "where messages are dead-lettered to the default exchange when they were returned more than 20 times.",
        "declare the durable classic queue 'dead'.",
        "bind queue 'work' to exchange 'orders' by the key 'order.\\x1b#'.",
    ]
    (explanation,) = explain([quorum(delivery_limit=3)], V43)
    assert str(explanation).endswith(
        "3 times; loss trap: queue 'q' drops a message that was returned more than 3 times "
        "(Give it a dead-letter exchange, or x-delivery-limit -1.)."
    )


values = st.one_of(st.none(), st.booleans(), st.integers(-5, 300), st.text(max_size=8), st.sampled_from(["", "a", "b"]))
names = st.sampled_from(["", "a", "b", "c", "amq.topic", "\x00"])
keys = st.sampled_from(
    ["x-dead-letter-exchange", "x-dead-letter-routing-key", "x-message-ttl", "x-delivery-limit", "x-max-length",
     "x-overflow", "x-queue-type", "x-match", "alternate-exchange", "x-single-active-consumer", "x-delayed-retry-type"]
)  # fmt: skip
tables = st.dictionaries(keys, values, max_size=5)
kinds = st.sampled_from(["direct", "topic", "fanout", "headers", "x-plugin"])
entities_of_any_kind = st.one_of(
    st.builds(Exchange, names, kinds, st.booleans(), arguments=tables),
    st.builds(Queue, names, st.sampled_from([None, "classic", "quorum", "stream"]), st.booleans(), arguments=tables),
    st.builds(Binding, names, names, names, tables, st.booleans()),
)


@given(st.lists(entities_of_any_kind, max_size=8), st.sampled_from(VERSIONS))
def test_any_topology_is_judged_and_every_finding_stands_in_its_explanation(
    entities: list[Entity], version: Version
) -> None:
    findings = judge(entities, version)
    explanations = explain(entities, version)
    assert [e.entity for e in explanations] == list(in_order(entities))
    assert {str(f) for f in findings} == {str(f) for e in explanations for f in e.findings}
    assert [visible(str(e)) for e in explanations] == [str(e) for e in explanations]
