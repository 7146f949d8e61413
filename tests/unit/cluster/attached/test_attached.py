"""Attaching to somebody else's cluster: brokers here are sockets that say what a broker would."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.cluster.amqp_probe import Greeting, accepts, greeting, parse_greeting
from dmq_core.cluster.attached.cluster import AttachedCluster
from dmq_core.cluster.protocol import Backend, NodeAction, NodeState
from dmq_core.endpoints import Credentials, NodeEndpoint, TlsSettings
from dmq_core.errors import AccessDeniedError, InvalidInputError, NotReachableError, RefusedError

SECRET = "hunter2hunter2"


def long(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def start_frame(cluster: str, version: str = "4.3.6") -> bytes:
    entries = b"".join(
        bytes([len(name)]) + name + b"S" + long(value.encode())
        for name, value in ((b"cluster_name", cluster), (b"version", version))
    )
    payload = b"\x00\x0a\x00\x0a\x00\x09" + long(entries) + long(b"PLAIN") + long(b"en_US")
    return b"\x01\x00\x00" + long(payload) + b"\xce"


TUNE = b"\x01\x00\x00" + long(b"\x00\x0a\x00\x1e\x00\x00\x00\x00\x00\x00\x00\x00") + b"\xce"
CLOSE = b"\x01\x00\x00" + long(b"\x00\x0a\x00\x32\x01\x93\x00\x00\x00\x00\x00") + b"\xce"


@dataclass
class Broker:
    """One node: its cluster, its name, and the only user that it knows."""

    cluster: str = "shop"
    node: str = "rabbit@a"
    user: Credentials = field(default_factory=lambda: Credentials("me", SECRET))


@contextmanager
def amqp(broker: Broker) -> Iterator[int]:
    """Greets, and lets the known user in; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            if connection.recv(8) != b"AMQP\x00\x00\x09\x01":
                return
            connection.sendall(start_frame(broker.cluster))
            right = f"\0{broker.user.username}\0{broker.user.password}".encode()
            reply = connection.recv(4096)
            if reply:
                connection.sendall(TUNE if right in reply else CLOSE)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextmanager
def management(broker: Broker) -> Iterator[int]:
    """Answers the overview to the known user; yields its port."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pair = f"{broker.user.username}:{broker.user.password}".encode()
            known = self.headers["Authorization"] == "Basic " + base64.b64encode(pair).decode()
            body = {"node": broker.node, "cluster_name": broker.cluster, "rabbitmq_version": "4.3.6"} if known else {}
            raw = json.dumps(body).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def attached(*urls: str, **options: object) -> AttachedCluster:
    cluster = AttachedCluster(urls, **options)  # type: ignore[arg-type]  # the tests' own options
    cluster.attach()
    return cluster


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_an_endpoint_with_both_urls_has_the_name_that_rabbitmq_gives_its_node() -> None:
    with amqp(Broker()) as port, management(Broker()) as api:
        cluster = attached(f"amqp://me:{SECRET}@127.0.0.1:{port}/v", f"http://127.0.0.1:{api}")
        (node,) = cluster.nodes()
        assert (node.name, node.erlang_name, node.state) == ("rabbit@a", "rabbit@a", NodeState.RUNNING)
        assert node.endpoint == NodeEndpoint("127.0.0.1", port, api, None, "v")
        assert (cluster.name, cluster.backend) == ("127.0.0.1", Backend.ATTACHED)
        assert cluster.credentials == Credentials("me", SECRET)


def test_without_a_management_api_an_endpoint_is_called_by_its_address() -> None:
    with amqp(Broker()) as port:
        (node,) = attached(f"amqp://me:{SECRET}@127.0.0.1:{port}").nodes()
        assert node.name == f"127.0.0.1:{port}"
        assert node.endpoint.management_port is None


def test_a_guessed_port_of_another_cluster_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with amqp(Broker()) as port, management(Broker("another")) as other, management(Broker()) as same:
        for guessed, expected in ((other, None), (same, same)):
            monkeypatch.setattr("dmq_core.urls._guesses", lambda *_, guessed=guessed: (guessed,))
            (node,) = attached(f"amqp://me:{SECRET}@127.0.0.1:{port}").nodes()
            assert node.endpoint.management_port == expected


def test_the_given_user_beats_the_one_in_the_urls() -> None:
    with management(Broker()) as api:
        cluster = attached(f"http://you:no@127.0.0.1:{api}", credentials=Credentials("me", SECRET))
        assert cluster.nodes()[0].name == "rabbit@a"


@pytest.mark.parametrize("serve", [amqp, management])
def test_a_wrong_password_is_denied_in_words_without_it(serve: Callable[[Broker], object]) -> None:
    scheme = "amqp" if serve is amqp else "http"
    with serve(Broker()) as port, pytest.raises(AccessDeniedError) as caught:  # type: ignore[attr-defined]
        attached(f"{scheme}://me:wrong{SECRET}@127.0.0.1:{port}")
    assert SECRET not in caught.value.what + caught.value.hint
    assert "me" in caught.value.what


def test_where_nothing_answers_it_is_not_reachable_and_does_not_exist() -> None:
    url = f"amqp://me:{SECRET}@127.0.0.1:{free_port()}"
    with pytest.raises(NotReachableError) as caught:
        attached(url)
    assert SECRET not in caught.value.what + caught.value.hint
    cluster = AttachedCluster([url])
    assert not cluster.exists()
    assert cluster.nodes()[0].state is NodeState.UNREACHABLE


def test_one_endpoint_that_answers_is_enough() -> None:
    with management(Broker()) as api:
        cluster = attached(f"http://me:{SECRET}@127.0.0.1:{api}", f"amqp://127.0.0.1:{free_port()}")
        assert cluster.exists()


def test_two_doors_to_the_same_node_have_names_of_their_own() -> None:
    with management(Broker()) as one, management(Broker()) as two:
        cluster = attached(f"http://me:{SECRET}@127.0.0.1:{one}", f"http://127.0.0.1:{two}")
        names = [n.name for n in cluster.nodes()]
        assert names == ["rabbit@a", f"127.0.0.1:{two}"]


def test_an_endpoint_that_dies_is_told_and_keeps_its_name() -> None:
    stop = threading.Event()
    with management(Broker()) as api:
        cluster = attached(f"http://me:{SECRET}@127.0.0.1:{api}")
        changes = cluster.watch(stop)
        first: list[object] = []
        listener = threading.Thread(target=lambda: first.append(next(changes)))
        listener.start()
        stop.wait(0.5)
    listener.join(10)
    stop.set()
    (change,) = first
    assert (change.node, change.state) == ("rabbit@a", NodeState.UNREACHABLE)  # type: ignore[attr-defined]


def test_everything_that_changes_a_node_is_refused_in_a_sentence() -> None:
    cluster = AttachedCluster([f"amqp://me:{SECRET}@127.0.0.1"])
    acts: list[Callable[[], object]] = [cluster.start, cluster.stop, cluster.destroy, lambda: cluster.logs("x")]
    acts += [partial(cluster.act, action, "x") for action in NodeAction]
    acts += [cluster.add_node, lambda: cluster.remove_node("x")]
    for act in acts:
        with pytest.raises(RefusedError) as caught:
            act()
        assert caught.value.hint


def test_no_password_shows_in_a_repr() -> None:
    cluster = AttachedCluster([f"amqp://me:{SECRET}@127.0.0.1"])
    assert SECRET not in repr(cluster) + repr(vars(cluster))


def test_a_tls_file_that_is_not_there_is_bad_input_before_anything_is_asked() -> None:
    with pytest.raises(InvalidInputError, match="TLS files"):
        AttachedCluster(["amqps://127.0.0.1"], tls=TlsSettings(ca_file="/nowhere/ca.pem"))


def test_a_plain_port_behind_a_tls_url_says_that_no_tls_is_spoken_there() -> None:
    with amqp(Broker()) as port, pytest.raises(NotReachableError, match="TLS"):
        attached(f"amqps://127.0.0.1:{port}")


@given(st.text(st.characters(codec="utf-8"), max_size=30), st.text(st.characters(codec="utf-8"), max_size=10))
def test_a_greeting_is_read_back_whatever_the_cluster_is_called(cluster: str, version: str) -> None:
    assert parse_greeting(start_frame(cluster, version)) == Greeting(cluster, version)


@given(st.binary(max_size=200), st.integers(0, 80))
def test_any_other_bytes_are_no_greeting_and_never_an_error(noise: bytes, cut: int) -> None:
    frame = start_frame("shop")
    assert parse_greeting(noise) is None or noise[:3] == b"\x01\x00\x00"
    assert parse_greeting(frame[: min(cut, len(frame) - 2)]) is None


def test_a_port_that_is_silent_or_speaks_otherwise_is_left_within_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, management(Broker()) as api:
        for port in (silent.getsockname()[1], api):
            endpoint = NodeEndpoint("127.0.0.1", port, None)
            assert greeting(endpoint, 0.3) is None
            assert accepts(endpoint, Credentials(), 0.3) is None
