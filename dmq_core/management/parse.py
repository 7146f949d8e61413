"""What the management API answers, as values: pure, and tolerant of figures that are missing or odd.

An entry without its name is left out; a figure that is not what it should be is None. `MalformedError` says that the
document as a whole is something else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from dmq_core.management.models import (
    NO_ARGUMENTS,
    Alarm,
    Arguments,
    BindingFigures,
    ChannelFigures,
    ConnectionFigures,
    ConsumerFigures,
    ExchangeFigures,
    NodeFigures,
    Overview,
    Page,
    QueueFigures,
)

T = TypeVar("T")
_UNSAID = frozenset({"", "undefined", "unknown", "none"})
_LONGEST_NUMBER = 40
_TYPES = {
    "rabbit_classic_queue": "classic",
    "rabbit_quorum_queue": "quorum",
    "rabbit_stream_queue": "stream",
}


class MalformedError(ValueError):
    """The document is not of the shape that was asked for."""


def overview(document: object) -> Overview:
    """`/api/overview`."""
    d = _object(document)
    objects, depths, stats = _sub(d, "object_totals"), _sub(d, "queue_totals"), _sub(d, "message_stats")
    return Overview(
        cluster_name=_text(d.get("cluster_name")) or "",
        node=_text(d.get("node")) or "",
        rabbitmq_version=_text(d.get("rabbitmq_version")) or _text(d.get("product_version")) or "",
        erlang_version=_text(d.get("erlang_version")),
        queues=_count(objects.get("queues")),
        exchanges=_count(objects.get("exchanges")),
        connections=_count(objects.get("connections")),
        channels=_count(objects.get("channels")),
        consumers=_count(objects.get("consumers")),
        ready=_count(depths.get("messages_ready")),
        unacked=_count(depths.get("messages_unacknowledged")),
        publish_rate=_rate(stats, "publish"),
        deliver_rate=_rate(stats, "deliver_get"),
        published=_count(stats.get("publish")),
        delivered=_count(stats.get("deliver_get")),
    )


def nodes(document: object) -> tuple[NodeFigures, ...]:
    """`/api/nodes`."""
    return _each(document, _node)


def exchanges(document: object) -> tuple[ExchangeFigures, ...]:
    """`/api/exchanges`."""
    return _each(document, _exchange)


def queues(document: object) -> tuple[QueueFigures, ...]:
    """`/api/queues`, full, with `columns`, or without statistics."""
    return _each(document, _queue)


def queue_page(document: object) -> Page[QueueFigures]:
    """`/api/queues?page=N`; a plain list is its own only page."""
    items = queues(document)
    d = document if isinstance(document, Mapping) else {}
    total = _count(d.get("total_count"))
    filtered = _count(d.get("filtered_count"))
    return Page(
        items=items,
        page=_count(d.get("page")) or 1,
        page_count=_count(d.get("page_count")) or 1,
        total=len(items) if total is None else total,
        filtered=len(items) if filtered is None else filtered,
    )


def queue(document: object) -> QueueFigures | None:
    """`/api/queues/VHOST/NAME`; None if it does not even tell its name."""
    return _queue(_object(document))


def bindings(document: object) -> tuple[BindingFigures, ...]:
    """`/api/bindings`."""
    return _each(document, _binding)


def connections(document: object) -> tuple[ConnectionFigures, ...]:
    """`/api/connections`."""
    return _each(document, _connection)


def channels(document: object) -> tuple[ChannelFigures, ...]:
    """`/api/channels`."""
    return _each(document, _channel)


def consumers(document: object) -> tuple[ConsumerFigures, ...]:
    """`/api/consumers`."""
    return _each(document, _consumer)


def alarms(document: object) -> tuple[Alarm, ...]:
    """`/api/health/checks/alarms`: empty where the check is passed."""
    return _each(_object(document).get("alarms") or [], _alarm)


def _node(d: Mapping[str, Any]) -> NodeFigures | None:
    name = _text(d.get("name"))
    if name is None:
        return None
    return NodeFigures(
        name=name,
        running=_flag(d.get("running")) or False,
        version=_text(d.get("rabbitmq_version")) or _version_of_applications(d.get("applications")),
        memory_bytes=_count(d.get("mem_used")),
        memory_limit_bytes=_count(d.get("mem_limit")),
        disk_free_bytes=_count(d.get("disk_free")),
        disk_limit_bytes=_count(d.get("disk_free_limit")),
        memory_alarm=_flag(d.get("mem_alarm")),
        disk_alarm=_flag(d.get("disk_free_alarm")),
        files_used=_count(d.get("fd_used")),
        files_total=_count(d.get("fd_total")),
        sockets_used=_count(d.get("sockets_used")),
        processes_used=_count(d.get("proc_used")),
        uptime_ms=_count(d.get("uptime")),
        being_drained=_flag(d.get("being_drained")),
        partitions=_texts(d.get("partitions")),
    )


def _version_of_applications(applications: object) -> str | None:
    if not isinstance(applications, list):
        return None
    told = (a.get("version") for a in applications if isinstance(a, Mapping) and a.get("name") == "rabbit")
    return _text(next(told, None))


def _exchange(d: Mapping[str, Any]) -> ExchangeFigures | None:
    vhost, name, kind = _name(d.get("vhost")), _name(d.get("name")), _text(d.get("type"))
    if vhost is None or name is None or kind is None:
        return None
    stats = _sub(d, "message_stats")
    return ExchangeFigures(
        vhost=vhost,
        name=name,
        type=kind,
        durable=_flag(d.get("durable")) is not False,
        auto_delete=_flag(d.get("auto_delete")) or False,
        internal=_flag(d.get("internal")) or False,
        arguments=_arguments(d.get("arguments")),
        policy=_text(d.get("policy")),
        publish_in_rate=_rate(stats, "publish_in"),
        publish_out_rate=_rate(stats, "publish_out"),
        published_in=_count(stats.get("publish_in")),
        published_out=_count(stats.get("publish_out")),
    )


def _queue(d: Mapping[str, Any]) -> QueueFigures | None:
    vhost, name = _name(d.get("vhost")), _name(d.get("name"))
    if vhost is None or name is None:
        return None
    kind = _queue_type(d)
    leader = _text(d.get("leader")) or _text(d.get("node"))
    state = _text(d.get("state"))
    members, online = _texts(d.get("members")), _texts(d.get("online"))
    if kind == "classic" and leader is not None:
        members = members or (leader,)
        online = online or (() if state in ("down", "stopped") else members)
    stats = _sub(d, "message_stats")
    return QueueFigures(
        vhost=vhost,
        name=name,
        type=kind,
        state=state,
        leader=leader,
        members=members or online,
        online=online,
        ready=_count(d.get("messages_ready")),
        unacked=_count(d.get("messages_unacknowledged")),
        consumers=_count(d.get("consumers")),
        durable=_flag(d.get("durable")) is not False,
        exclusive=_flag(d.get("exclusive")) or False,
        auto_delete=_flag(d.get("auto_delete")) or False,
        arguments=_arguments(d.get("arguments")),
        policy=_text(d.get("policy")),
        memory_bytes=_count(d.get("memory")),
        publish_rate=_rate(stats, "publish"),
        deliver_rate=_rate(stats, "deliver_get"),
        ack_rate=_rate(stats, "ack"),
        redeliver_rate=_rate(stats, "redeliver"),
        published=_count(stats.get("publish")),
        delivered=_count(stats.get("deliver_get")),
        acked=_count(stats.get("ack")),
        redelivered=_count(stats.get("redeliver")),
    )


def _queue_type(d: Mapping[str, Any]) -> str:
    told = _text(d.get("type")) or _text(_sub(d, "arguments").get("x-queue-type")) or "classic"
    return _TYPES.get(told, told)


def _binding(d: Mapping[str, Any]) -> BindingFigures | None:
    vhost, source, destination = (_name(d.get(field)) for field in ("vhost", "source", "destination"))
    if vhost is None or source is None or destination is None:
        return None
    return BindingFigures(
        vhost=vhost,
        source=source,
        destination=destination,
        destination_type=_text(d.get("destination_type")) or "queue",
        routing_key=_name(d.get("routing_key")) or "",
        arguments=_arguments(d.get("arguments")),
        properties_key=_name(d.get("properties_key")) or "",
    )


def _connection(d: Mapping[str, Any]) -> ConnectionFigures | None:
    name = _text(d.get("name"))
    if name is None:
        return None
    told = _text(d.get("user_provided_name")) or _text(_sub(d, "client_properties").get("connection_name"))
    return ConnectionFigures(
        name=name,
        node=_text(d.get("node")),
        vhost=_text(d.get("vhost")),
        user=_text(d.get("user")),
        client_name=told,
        protocol=_text(d.get("protocol")),
        state=_text(d.get("state")),
        channels=_count(d.get("channels")),
        peer_host=_text(d.get("peer_host")),
        peer_port=_count(d.get("peer_port")),
        connected_at_ms=_count(d.get("connected_at")),
        receive_rate=_rate(d, "recv_oct"),
        send_rate=_rate(d, "send_oct"),
    )


def _channel(d: Mapping[str, Any]) -> ChannelFigures | None:
    name = _text(d.get("name"))
    if name is None:
        return None
    stats = _sub(d, "message_stats")
    return ChannelFigures(
        name=name,
        connection=_text(_sub(d, "connection_details").get("name")),
        node=_text(d.get("node")),
        vhost=_text(d.get("vhost")),
        user=_text(d.get("user")),
        number=_count(d.get("number")),
        state=_text(d.get("state")),
        consumers=_count(d.get("consumer_count")),
        prefetch=_count(d.get("prefetch_count")),
        unacked=_count(d.get("messages_unacknowledged")),
        unconfirmed=_count(d.get("messages_unconfirmed")),
        confirms=_flag(d.get("confirm")),
        publish_rate=_rate(stats, "publish"),
        deliver_rate=_rate(stats, "deliver_get"),
    )


def _consumer(d: Mapping[str, Any]) -> ConsumerFigures | None:
    about, channel = _sub(d, "queue"), _sub(d, "channel_details")
    vhost, name, tag = _name(about.get("vhost")), _name(about.get("name")), _name(d.get("consumer_tag"))
    if vhost is None or name is None or tag is None:
        return None
    return ConsumerFigures(
        vhost=vhost,
        queue=name,
        tag=tag,
        connection=_text(channel.get("connection_name")),
        node=_text(channel.get("node")),
        user=_text(channel.get("user")),
        prefetch=_count(d.get("prefetch_count")),
        acknowledges=_flag(d.get("ack_required")),
        exclusive=_flag(d.get("exclusive")),
        active=_flag(d.get("active")),
    )


def _alarm(d: Mapping[str, Any]) -> Alarm | None:
    node, resource = _text(d.get("node")), _text(d.get("resource"))
    return None if node is None or resource is None else Alarm(node, resource)


def _each(document: object, parse: Callable[[Mapping[str, Any]], T | None]) -> tuple[T, ...]:
    items = document.get("items") if isinstance(document, Mapping) else document
    if not isinstance(items, list):
        raise MalformedError("a list was expected")
    parsed = (parse(item) for item in items if isinstance(item, Mapping))
    return tuple(value for value in parsed if value is not None)


def _object(document: object) -> Mapping[str, Any]:
    if not isinstance(document, Mapping):
        raise MalformedError("an object was expected")
    return document


def _sub(d: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = d.get(field)
    return value if isinstance(value, Mapping) else {}


def _name(value: object) -> str | None:
    """A name as it is: `undefined` and the empty string are names too."""
    return value if isinstance(value, str) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value not in _UNSAID else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list) else ()


def _flag(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value) if isinstance(value, str) else None


def _number(value: object) -> float | int | None:
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if value >= 0 and (isinstance(value, int) or math.isfinite(value)) else None


def _count(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _rate(d: Mapping[str, Any], counter: str) -> float | None:
    number = _number(_sub(d, f"{counter}_details").get("rate"))
    # An integer beyond any float is no rate.
    return float(number) if number is not None and number < 1e300 else None


def _arguments(value: object) -> Arguments:
    return MappingProxyType(dict(value)) if isinstance(value, Mapping) and value else NO_ARGUMENTS
