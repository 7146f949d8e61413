"""The management client against servers that die, freeze, lie, trickle and flood."""

from __future__ import annotations

import base64
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from misbehaving_server import Behaviour, Web, frozen, gathering, reply, says, serving, trickling

from dmq_core.endpoints import Credentials, NodeEndpoint, TlsSettings
from dmq_core.errors import AccessDeniedError, DmqError, InvalidInputError, NotReachableError, OperationTimeoutError
from dmq_core.management.client import ManagementClient
from dmq_core.management.endpoints import ManagementEndpoint, management_endpoints
from dmq_core.management.models import Alarm, EntityKey

NODES = [{"name": "rabbit@rmq1", "running": True}]
FAILOVER_S = 1.5


@contextlib.contextmanager
def cluster_of(*behaviours: Behaviour, **options: object) -> Iterator[tuple[ManagementClient, list[Web]]]:
    with contextlib.ExitStack() as stack:
        webs = [stack.enter_context(serving(b)) for b in behaviours]
        endpoints = [ManagementEndpoint(f"rmq{i}", web.url) for i, web in enumerate(webs, 1)]
        client = ManagementClient(endpoints, Credentials("user", "pa:ss"), **options)  # type: ignore[arg-type]
        stack.callback(client.close)
        yield client, webs


def seconds_of(started: float) -> float:
    return time.monotonic() - started


def asks(client: ManagementClient) -> str | None:
    return None if client.asks is None else client.asks.name


def test_it_asks_one_node_and_stays_with_it() -> None:
    with cluster_of(says(NODES), says(NODES)) as (client, webs):
        assert asks(client) is None
        for _ in range(3):
            assert [n.name for n in client.nodes()] == ["rabbit@rmq1"]
        assert [path for path in webs[0].asked if path != "/api/whoami"] == ["/api/nodes"] * 3
        assert webs[1].asked == []
        assert asks(client) == "rmq1"


def test_a_killed_node_is_left_at_once_for_the_next() -> None:
    with cluster_of(says(NODES), says(NODES)) as (client, webs):
        client.nodes()
        webs[0].die()
        started = time.monotonic()
        assert client.nodes()
        assert seconds_of(started) < 1.0
        assert asks(client) == "rmq2"


def test_a_frozen_node_is_left_within_a_second() -> None:
    with cluster_of(says(NODES), says(NODES)) as (client, webs):
        client.nodes()
        webs[0].behave = frozen
        started = time.monotonic()
        assert client.nodes()
        assert 0.3 < seconds_of(started) < FAILOVER_S
        assert asks(client) == "rmq2"
        started = time.monotonic()
        assert client.nodes()
        assert seconds_of(started) < 0.3, "who froze is remembered"


def test_a_node_that_only_gathers_its_figures_is_not_left() -> None:
    with cluster_of(gathering(NODES, 2.0), says(NODES)) as (client, webs):
        assert client.nodes()
        assert asks(client) == "rmq1"
        assert webs[1].asked == []


def test_a_node_that_freezes_while_it_gathers_is_left() -> None:
    with cluster_of(gathering(NODES, 20.0), says(NODES)) as (client, webs):
        timer = threading.Timer(1.0, lambda: setattr(webs[0], "behave", frozen))
        timer.start()
        started = time.monotonic()
        assert client.nodes()
        assert seconds_of(started) < 4.0
        assert asks(client) == "rmq2"


def test_a_node_that_gathers_too_long_is_a_time_out_that_says_so() -> None:
    with cluster_of(gathering(NODES, 20.0), timeout_s=2.0) as (client, _):
        started = time.monotonic()
        with pytest.raises(OperationTimeoutError, match="rmq1 lives, but did not answer"):
            client.nodes()
        assert 1.8 < seconds_of(started) < 2.8


def test_a_body_that_trickles_in_for_ever_ends_at_the_bound() -> None:
    with cluster_of(trickling, timeout_s=1.5) as (client, _):
        started = time.monotonic()
        with pytest.raises(DmqError):
            client.nodes()
        assert seconds_of(started) < 2.5


def test_the_failed_node_is_asked_again_when_all_others_fail() -> None:
    with cluster_of(says(NODES), says(NODES)) as (client, webs):
        webs[0].behave = says({}, "500 Internal Server Error")
        assert client.nodes()
        webs[0].behave = says(NODES)
        webs[1].die()
        assert client.nodes()
        assert asks(client) == "rmq1"


def test_with_every_node_dead_the_error_names_each_and_why() -> None:
    with cluster_of(says(NODES), says(NODES)) as (client, webs):
        webs[0].die()
        webs[1].behave = says({}, "503 Service Unavailable")
        with pytest.raises(NotReachableError) as caught:
            client.nodes()
    assert caught.value.what == "no management API answers: rmq1 refuses the connection, rmq2 answered 503"
    assert caught.value.hint


def test_without_any_endpoint_it_is_not_reachable() -> None:
    with pytest.raises(NotReachableError, match="no node of the cluster has a management API"):
        ManagementClient((), Credentials()).overview()


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_refused_user_is_access_denied(status: str) -> None:
    with (
        cluster_of(says({"error": "not_authorised"}, status)) as (client, _),
        pytest.raises(AccessDeniedError) as caught,
    ):
        client.nodes()
    assert "pa:ss" not in caught.value.what + caught.value.hint


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>hello</html>", b"\xff\xfe\x00", b"{}", b"17", b'{"items": 3}', b"[" * 100_000],
    ids=["empty", "html", "binary", "object", "number", "no list", "too deep"],
)
def test_garbage_is_one_clear_error(body: bytes) -> None:
    with cluster_of(lambda sock, _: reply(sock, body)) as (client, _), pytest.raises(NotReachableError) as caught:
        client.nodes()
    assert "something else than the management API" in caught.value.what


def test_what_is_no_http_at_all_is_one_clear_error() -> None:
    def amqp(sock: socket.socket, _path: str) -> None:
        sock.sendall(b"AMQP\x00\x00\x09\x01")
        sock.shutdown(socket.SHUT_RDWR)

    with cluster_of(amqp) as (client, _), pytest.raises(NotReachableError, match="broke the connection off"):
        client.nodes()


def test_a_body_without_end_is_cut_at_its_bound() -> None:
    def flood(sock: socket.socket, _path: str) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            sock.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")

    with (
        cluster_of(flood, largest_body=1_000_000) as (client, _),
        pytest.raises(NotReachableError, match="more than 1000000"),
    ):
        client.nodes()


def test_a_body_that_breaks_off_in_the_middle_is_an_error_not_half_a_list() -> None:
    def half(sock: socket.socket, _path: str) -> None:
        sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[{"name": "rabbit@rmq1"}')
        sock.shutdown(socket.SHUT_RDWR)

    with cluster_of(half) as (client, _), pytest.raises(NotReachableError):
        client.nodes()


def test_redirects_are_not_followed() -> None:
    with serving(says(NODES)) as elsewhere:

        def redirect(sock: socket.socket, _path: str) -> None:
            reply(sock, b"", "302 Found", f"Location: {elsewhere.url}/api/nodes\r\n")

        with cluster_of(redirect) as (client, _), pytest.raises(NotReachableError, match="answered 302"):
            client.nodes()
        assert elsewhere.asked == []


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with cluster_of(says(NODES)) as (client, _):
        assert client.nodes()


def test_the_password_travels_in_its_header_only() -> None:
    with cluster_of(says(NODES)) as (client, webs):
        client.nodes()
        head = webs[0].heads[0]
    assert f"Basic {base64.b64encode(b'user:pa:ss').decode()}" in head
    assert "pa:ss" not in head
    assert "pa:ss" not in repr(client)


def test_an_alarm_is_told_by_a_status_that_is_no_failure() -> None:
    body = {"status": "failed", "alarms": [{"node": "rabbit@rmq2", "resource": "memory"}]}
    with cluster_of(says(body, "503 Service Unavailable")) as (client, _):
        assert client.alarms() == (Alarm("rabbit@rmq2", "memory"),)


def test_a_queue_that_does_not_exist_is_none() -> None:
    with cluster_of(says({"error": "Object Not Found"}, "404 Not Found")) as (client, webs):
        assert client.queue(EntityKey("team/a", "odd ?#/ name")) is None
        assert webs[0].asked == ["/api/queues/team%2Fa/odd%20%3F%23%2F%20name"]


def test_a_name_that_no_broker_can_have_is_bad_input() -> None:
    with cluster_of(says({})) as (client, webs), pytest.raises(InvalidInputError):
        client.queue(EntityKey("/", "\ud800"))
    assert webs[0].asked == []


def test_a_page_out_of_range_is_bad_input_with_the_brokers_reason() -> None:
    body = {"error": "bad_request", "reason": "Page out of range, page: 9\x1b[2J"}
    with cluster_of(says(body, "400 Bad Request")) as (client, _), pytest.raises(InvalidInputError) as caught:
        client.queue_page(9)
    assert caught.value.what.endswith("Page out of range, page: 9\\x1b[2J")


def test_pages_are_asked_with_filter_and_columns() -> None:
    page = {"items": [{"vhost": "/", "name": "q"}], "page": 2, "page_count": 3, "total_count": 9, "filtered_count": 5}
    with cluster_of(says(page)) as (client, webs):
        got = client.queue_page(2, 4, name_filter="or&ders", columns=("vhost", "name"))
        asked = webs[0].asked[0]
    assert (got.page, got.page_count, got.total, got.filtered, len(got.items)) == (2, 3, 9, 5, 1)
    assert "page=2&page_size=4&name=or%26ders&use_regex=false&columns=vhost%2Cname" in asked


@pytest.mark.parametrize(("page", "size"), [(0, 10), (1, 0), (1, 501)])
def test_pages_that_cannot_be_are_bad_input(page: int, size: int) -> None:
    with pytest.raises(InvalidInputError):
        ManagementClient((), Credentials()).queue_page(page, size)


def test_closing_interrupts_a_call_in_another_thread() -> None:
    with cluster_of(gathering(NODES, 20.0)) as (client, webs):
        caught: list[BaseException] = []

        def ask() -> None:
            try:
                client.nodes()
            except DmqError as error:
                caught.append(error)

        asker = threading.Thread(target=ask)
        asker.start()
        deadline = time.monotonic() + 5.0
        while not webs[0].asked and time.monotonic() < deadline:
            time.sleep(0.01)
        started = time.monotonic()
        client.close()
        asker.join(2.0)
        assert seconds_of(started) < 0.5
        assert isinstance(caught[0], NotReachableError)
        client.close()


def test_a_closed_client_asks_nobody() -> None:
    with cluster_of(says(NODES)) as (client, _):
        client.close()
        with pytest.raises(NotReachableError, match="closed"):
            client.nodes()


def test_many_threads_may_ask_at_once() -> None:
    with cluster_of(says(NODES), says(NODES)) as (client, webs):
        results: list[int] = []
        threads = [threading.Thread(target=lambda: results.append(len(client.nodes()))) for _ in range(20)]
        for thread in threads:
            thread.start()
        webs[0].die()
        for thread in threads:
            thread.join(10.0)
        assert results == [1] * 20


def test_calls_left_behind_at_a_frozen_node_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmq_core.management.client.MOST_LEFT_BEHIND", 3)
    with cluster_of(frozen, timeout_s=25.0) as (client, webs):
        for _ in range(12):
            with pytest.raises(NotReachableError, match="does not answer"):
                client.nodes()
        # A probe ends by itself, a little before or after the next call begins; the call that it was for goes on.
        assert webs[0].asked.count("/api/nodes") <= 3
        assert webs[0].asked.count("/api/whoami") <= 3


def test_new_endpoints_replace_the_old_ones_and_what_stays_is_kept() -> None:
    with cluster_of(says(NODES), says(NODES)) as (client, webs):
        client.nodes()
        client.use(client.endpoints[1:])
        client.nodes()
        assert asks(client) == "rmq2"
        assert (len(webs[0].asked), len(webs[1].asked)) == (1, 1)


def test_endpoints_are_those_nodes_that_offer_one() -> None:
    tls = TlsSettings()
    nodes = (
        ("rmq1", NodeEndpoint("127.0.0.1", 5672, 15672)),
        ("rmq2", NodeEndpoint("127.0.0.1", 5673, None)),
        ("rmq3", NodeEndpoint("host", 5671, 15671, tls)),
    )
    assert management_endpoints(nodes) == (
        ManagementEndpoint("rmq1", "http://127.0.0.1:15672"),
        ManagementEndpoint("rmq3", "https://host:15671", tls),
    )


def test_importing_and_making_a_client_does_not_import_requests() -> None:
    program = (
        "import sys; from dmq_core.management.client import *; from dmq_core.cluster.protocol import Credentials;"
        "ManagementClient([ManagementEndpoint('a', 'http://127.0.0.1:1')], Credentials());"
        "sys.exit('requests' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=30).returncode == 0
