"""What a registered broker is, from a host and port or from a URL; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dmq_core.endpoints import Credentials, NodeEndpoint, TlsSettings
from dmq_core.errors import InvalidInputError
from dmq_core.text import visible
from dmq_core.urls import BrokerUrl, parse_url

BrokerId = int | str


@dataclass(frozen=True, slots=True)
class Broker:
    """A registered broker; its password never shows in a repr.

    >>> broker = manager.register_broker("backup", "mq9.example.org", 5672, cluster="backup")
    >>> print(broker.id, broker.endpoint.amqp_url, broker.credentials.username)
    backup amqp://mq9.example.org:5672 guest
    """

    id: BrokerId
    endpoint: NodeEndpoint
    credentials: Credentials
    cluster: str = ""


def broker_of(
    broker_id: BrokerId,
    host: str | None,
    port: int | None,
    *,
    url: str | None,
    username: str | None,
    password: str | None,
    virtual_host: str | None,
    tls: TlsSettings | None,
    cluster: str,
) -> Broker:
    """The broker at `host` and `port` or `url`, as guest/guest unless a user is given.

    Raises `InvalidInputError` if that is none.
    """
    said = None if url is None else parse_url(url)
    endpoint = _endpoint(host, port, tls) if said is None else _endpoint_of(said, tls)
    if virtual_host is not None:
        endpoint = replace(endpoint, virtual_host=virtual_host)
    return Broker(broker_id, endpoint, _credentials(username, password, said), cluster)


def _endpoint(host: str | None, port: int | None, tls: TlsSettings | None) -> NodeEndpoint:
    if not host or "://" in host or any(c.isspace() for c in host):
        raise InvalidInputError(
            f"{visible(str(host))!r} is no host", "Give a name or an address; a URL goes into url=."
        )
    number = port if port is not None else (5671 if tls else 5672)
    if not isinstance(number, int) or not 0 < number < 65536:
        raise InvalidInputError(
            f"{visible(repr(port))} is no port", "Ports are whole numbers from 1 to 65535; AMQP's is 5672."
        )
    return NodeEndpoint(host, number, None, tls)


def _endpoint_of(said: BrokerUrl, tls: TlsSettings | None) -> NodeEndpoint:
    if not said.scheme.is_amqp:
        raise InvalidInputError(
            "messages go over AMQP, and the URL is that of a management API", "Give amqp:// or amqps://."
        )
    secured = tls or (TlsSettings() if said.scheme.secured else None)
    return NodeEndpoint(said.host, said.port, None, secured, said.virtual_host or "/")


def _credentials(username: str | None, password: str | None, said: BrokerUrl | None) -> Credentials:
    if username is None and password is None and said is not None and said.username is not None:
        return Credentials(said.username, said.password or "")
    usual = Credentials()
    return Credentials(username or usual.username, usual.password if password is None else password)
