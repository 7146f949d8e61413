"""URLs of somebody else's cluster, read into endpoints: pure functions, and no URL is ever repeated in an error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import unquote, urlsplit

from dmq_core.endpoints import Credentials, NodeEndpoint, TlsSettings
from dmq_core.errors import InvalidInputError

_GOOD = "Give one like amqp://user:password@host:5672/vhost or https://host:15671."
_LONGEST_VHOST = 255
_APART = 10_000


class Scheme(StrEnum):
    """What a URL speaks."""

    AMQP = "amqp"
    AMQPS = "amqps"
    HTTP = "http"
    HTTPS = "https"

    @property
    def secured(self) -> bool:
        """Whether it speaks TLS."""
        return self in (Scheme.AMQPS, Scheme.HTTPS)

    @property
    def is_amqp(self) -> bool:
        """Whether it leads to AMQP and not to the management API."""
        return self in (Scheme.AMQP, Scheme.AMQPS)

    @property
    def port(self) -> int:
        """RabbitMQ's port for it."""
        return {Scheme.AMQP: 5672, Scheme.AMQPS: 5671, Scheme.HTTP: 15672, Scheme.HTTPS: 15671}[self]

    @property
    def other(self) -> Scheme:
        """What RabbitMQ offers beside it on the same host."""
        pairs = {Scheme.AMQP: Scheme.HTTP, Scheme.AMQPS: Scheme.HTTPS}
        return pairs.get(self) or next(amqp for amqp, http in pairs.items() if http is self)


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """What one URL says; the password never shows in a repr."""

    scheme: Scheme
    host: str
    port: int
    virtual_host: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class PlannedEndpoint:
    """An endpoint with what was given, and what is only guessed and has to be tried."""

    endpoint: NodeEndpoint
    guessed: Scheme | None = None

    @property
    def guesses(self) -> tuple[NodeEndpoint, ...]:
        """The endpoint as it may be, likeliest first; empty if nothing is guessed."""
        known, guessed = self.endpoint, self.guessed
        if guessed is None:
            return ()
        if guessed.is_amqp:
            ports = _guesses(guessed.port, known.management_port, -_APART)
            return tuple(replace(known, amqp_port=port) for port in ports)
        ports = _guesses(guessed.port, known.amqp_port, _APART)
        return tuple(replace(known, management_port=port) for port in ports)


def parse_url(url: str) -> BrokerUrl:
    """What `url` says; `InvalidInputError` if it leads to no broker."""
    if not url.isprintable() or " " in url:
        raise InvalidInputError("the URL has spaces or characters that cannot be seen", _GOOD)
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise InvalidInputError("the URL's host or port makes no sense", _GOOD) from None
    if parts.scheme not in tuple(Scheme) or "://" not in url:
        raise InvalidInputError("the URL begins with none of amqp:// amqps:// http:// https://", _GOOD)
    scheme = Scheme(parts.scheme)
    if not host or port == 0:
        raise InvalidInputError("the URL names no host" if not host else "port 0 cannot be reached", _GOOD)
    if parts.query:
        raise InvalidInputError("the URL carries options after a '?', which dmq does not know", _GOOD)
    try:
        username = None if parts.username is None else unquote(parts.username, errors="strict")
        password = None if parts.password is None else unquote(parts.password, errors="strict")
        virtual_host = _virtual_host(parts.path) if scheme.is_amqp else None
    except UnicodeDecodeError:
        raise InvalidInputError("the URL's percent escapes are no UTF-8", _GOOD) from None
    if not scheme.is_amqp and parts.path.strip("/") not in ("", "api"):
        raise InvalidInputError("the URL of a management API may have no path", "Give one like http://host:15672.")
    return BrokerUrl(scheme, host, port or scheme.port, virtual_host, username or None, password)


def credentials_of(urls: Sequence[BrokerUrl]) -> Credentials | None:
    """The user that the URLs name; None if none does, `InvalidInputError` if they name several."""
    named = {Credentials(u.username, u.password or "") for u in urls if u.username is not None}
    if len(named) > 1:
        raise InvalidInputError("the URLs name different users", "One user for all endpoints of a cluster, please.")
    return next(iter(named), None)


def plan_endpoints(urls: Sequence[BrokerUrl], tls: TlsSettings | None = None) -> tuple[PlannedEndpoint, ...]:
    """Endpoints in the order of the URLs.

    An AMQP and a management URL of the same host, either both with TLS or both without, are one endpoint, paired in
    order; whatever stays single gets RabbitMQ's other port as a guess, unless the host has such a URL already.
    """
    unique = list(dict.fromkeys(urls))
    planned: list[PlannedEndpoint] = []
    paired: set[BrokerUrl] = set()
    for url in unique:
        if url in paired:
            continue
        partner = next((u for u in unique if u not in paired and u != url and _belong_together(url, u)), None)
        paired |= {url} | ({partner} if partner else set())
        taken = any(u.host == url.host and u.scheme.is_amqp is not url.scheme.is_amqp for u in unique)
        planned.append(PlannedEndpoint(_endpoint(url, partner, tls), None if taken else url.scheme.other))
    return tuple(planned)


def _guesses(usual: int, given: int | None, apart: int) -> tuple[int, ...]:
    """Nodes that share a host keep the distance between their two ports, so that one is tried before the usual one."""
    near = [given + apart] if given is not None and 0 < given + apart < 65536 else []
    return tuple(dict.fromkeys([*near, usual]))


def _belong_together(one: BrokerUrl, other: BrokerUrl) -> bool:
    return one.host == other.host and one.scheme.other is other.scheme


def _endpoint(url: BrokerUrl, partner: BrokerUrl | None, tls: TlsSettings | None) -> NodeEndpoint:
    both = [u for u in (url, partner) if u is not None]
    return NodeEndpoint(
        host=url.host,
        amqp_port=next((u.port for u in both if u.scheme.is_amqp), None),
        management_port=next((u.port for u in both if not u.scheme.is_amqp), None),
        tls=(tls or TlsSettings()) if url.scheme.secured else None,
        virtual_host=next((u.virtual_host for u in both if u.virtual_host), "/"),
    )


def _virtual_host(path: str) -> str | None:
    name = unquote(path.removeprefix("/"), errors="strict")
    if "/" in path.removeprefix("/"):
        raise InvalidInputError("the URL names a virtual host with a bare /", "Write %2F for each / within it.")
    if len(name.encode()) > _LONGEST_VHOST:
        raise InvalidInputError("the URL's virtual host is too long", f"At most {_LONGEST_VHOST} bytes.")
    return name or None
