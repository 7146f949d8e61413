"""What real brokers answer, read; and whatever else may come, survived."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.management import parse
from dmq_core.management.models import Alarm, BindingFigures, QueueFigures

DATA = Path(__file__).parents[2] / "data" / "management"
VERSIONS = sorted(path.stem for path in DATA.glob("[0-9]*.json"))
# The sample of 3.10 is of nodes that are processes, the others are of containers.
NODES_OF = {"3.10": tuple(f"rmq{i}@localhost" for i in (1, 2, 3))}
NODES = tuple(f"rabbit@rmq{i}" for i in (1, 2, 3))
LISTS = (
    parse.nodes,
    parse.exchanges,
    parse.queues,
    parse.bindings,
    parse.connections,
    parse.channels,
    parse.consumers,
)


@pytest.fixture(params=VERSIONS)
def recorded(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """A broker's version and what its API answered: orders (quorum) and audit (classic) get messages, one consumes."""
    return request.param, json.loads((DATA / f"{request.param}.json").read_text())


def nodes_of(recorded: tuple[str, dict[str, Any]]) -> tuple[str, ...]:
    return NODES_OF.get(recorded[0], NODES)


def queue(recorded: tuple[str, dict[str, Any]], name: str, path: str = "queues") -> QueueFigures:
    return next(q for q in parse.queues(recorded[1][path]) if q.name == name)


def test_samples_of_every_version_that_we_serve_are_here() -> None:
    assert VERSIONS == ["3.10", "4.0", "4.3"]


def test_the_overview_of_a_real_broker(recorded: tuple[str, dict[str, Any]]) -> None:
    told = parse.overview(recorded[1]["overview"])
    assert told.rabbitmq_version.startswith(recorded[0])
    assert told.node in nodes_of(recorded)
    assert told.queues == 4
    assert told.connections is not None
    assert told.connections >= 1
    assert told.published is not None
    assert told.published > 0


def test_the_nodes_of_a_real_broker(recorded: tuple[str, dict[str, Any]]) -> None:
    nodes = parse.nodes(recorded[1]["nodes"])
    assert tuple(n.name for n in nodes) == nodes_of(recorded)
    for node in nodes:
        assert node.running
        assert (node.version or "").startswith(recorded[0])
        assert (node.memory_bytes or 0) > 1_000_000
        assert (node.disk_free_bytes or 0) > (node.disk_limit_bytes or 0) > 0
        assert (node.memory_alarm, node.disk_alarm, node.partitions) == (False, False, ())
        assert (node.uptime_ms or 0) > 0


def test_a_quorum_queue_of_a_real_broker(recorded: tuple[str, dict[str, Any]]) -> None:
    orders = queue(recorded, "orders")
    assert (orders.type, orders.state, orders.durable, orders.exclusive) == ("quorum", "running", True, False)
    assert orders.leader in nodes_of(recorded)
    assert tuple(sorted(orders.members)) == tuple(sorted(orders.online)) == nodes_of(recorded)
    assert orders.consumers == 1
    assert (orders.ready or 0) > 0
    assert orders.unacked == 10
    assert (orders.published or 0) > 0
    assert (orders.delivered or 0) >= 10
    assert orders.arguments["x-queue-type"] == "quorum"


def test_a_classic_queue_of_a_real_broker_is_led_by_its_node(recorded: tuple[str, dict[str, Any]]) -> None:
    audit = queue(recorded, "audit")
    assert audit.type == "classic"
    assert audit.leader in nodes_of(recorded)
    assert audit.members == audit.online == (audit.leader,)
    assert audit.consumers == 1


def test_a_stream_of_a_real_broker(recorded: tuple[str, dict[str, Any]]) -> None:
    log = queue(recorded, "log")
    assert log.type == "stream"
    assert tuple(sorted(log.members)) == nodes_of(recorded)


def test_the_cheap_list_tells_state_and_place_without_rates(recorded: tuple[str, dict[str, Any]]) -> None:
    path = "queues?disable_stats=true&enable_queue_totals=true"
    orders = queue(recorded, "orders", path)
    assert orders.leader in nodes_of(recorded)
    assert tuple(sorted(orders.online)) == nodes_of(recorded)
    assert orders.publish_rate is None
    assert {q.key for q in parse.queues(recorded[1][path])} == {q.key for q in parse.queues(recorded[1]["queues"])}


def test_names_with_control_characters_come_through_unchanged(recorded: tuple[str, dict[str, Any]]) -> None:
    assert queue(recorded, "odd \x1b[31m name").type == "quorum"


def test_a_page_of_a_real_broker(recorded: tuple[str, dict[str, Any]]) -> None:
    page = parse.queue_page(recorded[1]["queues?page=1&page_size=2"])
    assert (len(page.items), page.page, page.page_count, page.total, page.filtered) == (2, 1, 2, 4, 4)


def test_exchanges_and_bindings_of_a_real_broker(recorded: tuple[str, dict[str, Any]]) -> None:
    exchanges = {e.name: e for e in parse.exchanges(recorded[1]["exchanges"])}
    assert exchanges[""].type == "direct"
    assert exchanges["orders"].type == "topic"
    assert (exchanges["orders"].published_in or 0) > 0
    assert exchanges["amq.fanout"].durable
    bindings = parse.bindings(recorded[1]["bindings"])
    assert BindingFigures("/", "orders", "orders", "queue", "order.#", {}, "order.%23") in [
        dataclasses.replace(b, arguments={}) for b in bindings
    ]
    audit = next(b for b in bindings if b.destination == "audit" and b.source == "orders")
    assert dict(audit.arguments) == {"k": 1}
    assert any(b.destination_type == "exchange" for b in bindings)


def test_connections_channels_and_consumers_of_a_real_broker(recorded: tuple[str, dict[str, Any]]) -> None:
    filler = next(c for c in parse.connections(recorded[1]["connections"]) if c.client_name == "filler")
    assert filler.node in nodes_of(recorded)
    assert (filler.protocol, filler.user, filler.vhost, filler.channels) == ("AMQP 0-9-1", "guest", "/", 1)
    channel = next(c for c in parse.channels(recorded[1]["channels"]) if c.connection == filler.name)
    assert (channel.consumers, channel.prefetch, channel.confirms) == (2, 10, False)
    consumers = {c.queue: c for c in parse.consumers(recorded[1]["consumers"])}
    assert consumers["orders"].connection == filler.name
    assert consumers["orders"].acknowledges


def test_a_passed_alarm_check_of_a_real_broker(recorded: tuple[str, dict[str, Any]]) -> None:
    assert parse.alarms(recorded[1]["health/checks/alarms"]) == ()


def test_a_failed_alarm_check_names_node_and_resource() -> None:
    answer = {"reason": "There are alarms", "status": "failed", "alarms": [{"node": "rabbit@rmq2", "resource": "disk"}]}
    assert parse.alarms(answer) == (Alarm("rabbit@rmq2", "disk"),)


def test_what_the_broker_does_not_say_is_none_and_never_nought() -> None:
    (bare,) = parse.queues([{"vhost": "/", "name": "q"}])
    assert bare == QueueFigures("/", "q", "classic")
    assert (bare.ready, bare.consumers, bare.publish_rate, bare.leader) == (None, None, None, None)


@pytest.mark.parametrize("odd", ["undefined", "", None, True, [], {}, "NaN", -1, math.nan, math.inf, "9" * 50])
def test_an_odd_figure_is_none(odd: object) -> None:
    (told,) = parse.queues([{"vhost": "/", "name": "q", "messages_ready": odd, "message_stats": {"publish": odd}}])
    assert (told.ready, told.published) == (None, None)


@pytest.mark.parametrize(("figure", "number"), [("12", 12), (12.0, 12), ("12.5", 12), (0, 0)])
def test_a_number_in_another_dress_is_a_number(figure: object, number: int) -> None:
    (told,) = parse.queues([{"vhost": "/", "name": "q", "messages_ready": figure}])
    assert told.ready == number


def test_one_bad_entry_does_not_cost_the_others() -> None:
    good = {"vhost": "/", "name": "good"}
    bad: list[object] = [None, 3, "x", [], {}, {"vhost": "/"}, {"name": 7, "vhost": "/"}]
    assert [q.name for q in parse.queues([*bad, good, *bad])] == ["good"]


def test_a_queue_may_be_called_undefined() -> None:
    (told,) = parse.queues([{"vhost": "/", "name": "undefined"}])
    assert told.name == "undefined"


def test_a_classic_queue_whose_node_is_down_has_nobody_online() -> None:
    (told,) = parse.queues([{"vhost": "/", "name": "q", "type": "classic", "node": "rabbit@n2", "state": "down"}])
    assert (told.leader, told.members, told.online) == ("rabbit@n2", ("rabbit@n2",), ())


@pytest.mark.parametrize("read", LISTS)
@pytest.mark.parametrize("document", [None, 3, "text", {}, {"items": None}, {"items": 3}])
def test_a_document_of_another_shape_is_malformed(read: Any, document: object) -> None:
    with pytest.raises(parse.MalformedError):
        read(document)


FIELDS = sorted(
    {"name", "vhost", "type", "node", "leader", "members", "online", "arguments", "message_stats", "state", "running"}
    | {"source", "destination", "routing_key", "queue", "consumer_tag", "channel_details", "applications", "tags"}
    | {"messages_ready", "mem_used", "partitions", "publish_details", "rate", "publish", "client_properties", "policy"}
    | {"object_totals", "queue_totals", "items", "alarms", "resource", "recv_oct_details", "deliver_get_details"}
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("undefined"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=8),
    max_leaves=25,
)
NAMED = st.fixed_dictionaries({"vhost": st.text(max_size=4), "name": st.text(max_size=8), "type": st.text(max_size=8)})


@given(document=ANYTHING)
def test_no_document_makes_a_reader_stumble(document: object) -> None:
    for read in (*LISTS, parse.overview, parse.queue_page, parse.queue, parse.alarms):
        try:
            read(document)  # type: ignore[operator]  # all of them take a document
        except parse.MalformedError:
            continue


@given(
    entries=st.lists(
        NAMED.flatmap(lambda named: ANYTHING.map(lambda a: {**(a if isinstance(a, dict) else {}), **named}))
    )
)
def test_every_entry_with_its_names_is_read_and_its_figures_are_sound(entries: list[dict[str, Any]]) -> None:
    told = parse.queues(entries)
    assert [(q.vhost, q.name) for q in told] == [(e["vhost"], e["name"]) for e in entries]
    for figures in told:
        for number in (figures.ready, figures.unacked, figures.published):
            assert number is None or (isinstance(number, int) and number >= 0)
        for rate in (figures.publish_rate, figures.deliver_rate):
            assert rate is None or (math.isfinite(rate) and rate >= 0)
