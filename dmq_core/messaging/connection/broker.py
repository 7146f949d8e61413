"""What a registered broker is, from a host and port or from a URL; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dmq_core.endpoints import Credentials, NodeEndpoint, TlsSettings
from dmq_core.errors import InvalidInputError
from dmq_core.text import visible
from dmq_core.urls import BrokerUrl

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


def endpoint_of(
    host: str | None, port: int | None, url: BrokerUrl | None, virtual_host: str | None, tls: TlsSettings | None
) -> NodeEndpoint:
    """Where a broker is, by `host` and `port` or by `url`; `InvalidInputError` if that is nowhere."""
    endpoint = _endpoint(host, port, tls) if url is None else _endpoint_of(url, tls)
    return endpoint if virtual_host is None else replace(endpoint, virtual_host=virtual_host)


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


def _endpoint_of(url: BrokerUrl, tls: TlsSettings | None) -> NodeEndpoint:
    if not url.scheme.is_amqp:
        raise InvalidInputError(
            "messages go over AMQP, and the URL is that of a management API", "Give amqp:// or amqps://."
        )
    secured = tls or (TlsSettings() if url.scheme.secured else None)
    return NodeEndpoint(url.host, url.port, None, secured, url.virtual_host or "/")


def credentials_of(username: str | None, password: str | None, url: BrokerUrl | None) -> Credentials:
    """As whom a broker is asked: the user that is given, else the one in the URL, else guest."""
    if username is None and password is None and url is not None and url.username is not None:
        return Credentials(url.username, url.password or "")
    usual = Credentials()
    return Credentials(username or usual.username, usual.password if password is None else password)
