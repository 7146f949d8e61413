"""Where a node is reached, as whom, and how its TLS is verified."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """A broker user; the password never shows in a repr."""

    username: str = "guest"
    password: str = field(default="guest", repr=False)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How to verify a TLS endpoint: a CA file (None: the system's), an optional client certificate, or no check.

    >>> tls = TlsSettings(ca_file="/etc/ssl/shop-ca.pem")
    >>> print(manager.register_broker(7, "mq7.example.org", tls=tls, cluster="tls").endpoint.amqp_url)
    amqps://mq7.example.org:5671
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True)
class NodeEndpoint:
    """Where clients reach one node. A port of None: not known or not offered. `tls` of None: plain text."""

    host: str
    amqp_port: int | None
    management_port: int | None
    tls: TlsSettings | None = None
    virtual_host: str = "/"

    @property
    def amqp_url(self) -> str | None:
        """`amqp://host:port` without credentials."""
        scheme = "amqps" if self.tls else "amqp"
        return None if self.amqp_port is None else f"{scheme}://{_bracketed(self.host)}:{self.amqp_port}"

    @property
    def management_url(self) -> str | None:
        """`http://host:port` without credentials."""
        scheme = "https" if self.tls else "http"
        return None if self.management_port is None else f"{scheme}://{_bracketed(self.host)}:{self.management_port}"
