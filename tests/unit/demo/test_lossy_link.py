"""A link on which confirms get lost, between plain sockets: what passes before, meanwhile and afterwards."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from dmq_core.cluster.protocol import Cluster, NodeInfo, NodeState
from dmq_core.demo.lossy_link import ProxyLink
from dmq_core.endpoints import Credentials, NodeEndpoint, TlsSettings
from dmq_core.errors import InvalidInputError, NotReachableError

GREETING = b"AMQP\x00\x00\x09\x01"
HEARTBEAT = struct.pack(">BHI", 8, 0, 0) + b"\xce"
ACK = struct.pack(">BHIHH", 1, 1, 13, 60, 80) + b"\0" * 9 + b"\xce"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        yield listening


def cluster_at(port: int, state: NodeState = NodeState.RUNNING, tls: TlsSettings | None = None) -> Cluster:
    down = NodeInfo("rmq1", "rabbit@rmq1", NodeState.STOPPED, NodeEndpoint("127.0.0.1", 1, None))
    node = NodeInfo("rmq2", "rabbit@rmq2", state, NodeEndpoint("127.0.0.1", port, None, tls, "shop"))
    return cast("Cluster", SimpleNamespace(name="dmq", nodes=lambda: (down, node), credentials=Credentials("ann", "x")))


def ends(link: ProxyLink, server: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new connection, which has begun to speak AMQP."""
    client = socket.create_connection(("127.0.0.1", link.manager.brokers[0].endpoint.amqp_port or 0), 5)
    broker, _ = server.accept()
    broker.settimeout(5)
    client.sendall(GREETING)
    assert broker.recv(len(GREETING)) == GREETING
    return client, broker


def test_confirms_get_lost_until_the_link_breaks_and_later_connections_lose_none(server: socket.socket) -> None:
    link = ProxyLink(cluster_at(server.getsockname()[1]), "a demo")
    try:
        client, broker = ends(link, server)
        link.lose_confirms()
        broker.sendall(ACK + HEARTBEAT)
        assert client.recv(100) == HEARTBEAT
        assert link.lost == 1
        link.break_off()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        later, broker_again = ends(link, server)
        broker_again.sendall(ACK)
        assert later.recv(100) == ACK
        assert link.lost == 1
        for sock in (client, broker, later, broker_again):
            sock.close()
    finally:
        link.close()


def test_its_clients_know_the_node_that_runs_through_the_link_alone(server: socket.socket) -> None:
    port = server.getsockname()[1]
    link = ProxyLink(cluster_at(port), "a demo")
    (broker,) = link.manager.brokers
    assert (broker.id, broker.endpoint.host, broker.endpoint.virtual_host) == ("rmq2", "127.0.0.1", "shop")
    assert broker.endpoint.amqp_port != port
    assert broker.credentials == Credentials("ann", "x")
    assert link.manager.name == "a demo"
    link.close()


def test_there_is_none_to_a_node_that_is_down_or_takes_encrypted_connections_alone() -> None:
    with pytest.raises(NotReachableError, match="no node of dmq runs"):
        ProxyLink(cluster_at(1, NodeState.STOPPED), "a demo")
    with pytest.raises(InvalidInputError, match="the link to rmq2 is encrypted"):
        ProxyLink(cluster_at(1, tls=TlsSettings()), "a demo")
