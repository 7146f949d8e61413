"""What differs between the versions of RabbitMQ that the in-memory broker can be; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dmq_core.messaging.topology.queue_arguments import delivery_limit
from dmq_core.versions import Version


@dataclass(frozen=True, slots=True)
class VersionRules:
    """The habits of `version`.

    `counts_tries`: a message that was given back is told from one that failed, and only the latter counts toward the
    delivery limit. `held_s`: how long a quorum queue waits for the consumers of a node that is gone, in seconds, as our
    clusters are configured. `returns_to_the_end`: so does what a consumer returns where there is no limit.
    `marks_delivered`: a dead letter that a consumer has had arrives as redelivered. `streams_take_rejections`: they
    count as acknowledgements, where others end the connection.
    """

    version: Version
    counts_tries: bool
    held_s: float
    returns_to_the_end: bool
    marks_delivered: bool
    last_death: bool
    trusts_client_deaths: bool
    delays_retries: bool
    streams_take_rejections: bool
    largest_body: int

    @classmethod
    def of(cls, version: Version) -> VersionRules:
        """The habits of a version from 3.10 on."""
        v4, v43 = version >= Version(4, 0), version >= Version(4, 3)
        return cls(
            version=version,
            counts_tries=v43,
            held_s=1.0 if v43 else 0.0,
            returns_to_the_end=not v43,
            marks_delivered=v43,
            last_death=v4,
            trusts_client_deaths=not v4,
            delays_retries=v43,
            streams_take_rejections=v4,
            largest_body=(16 if v4 else 128) << 20,
        )


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What the arguments of a queue ask for. Times in seconds, None: no such bound."""

    max_length: int | None
    max_bytes: int | None
    rejects: bool
    ttl_s: float | None
    expires_s: float | None
    dead_letter_exchange: str | None
    dead_letter_key: str | None
    at_least_once: bool
    delivery_limit: int | None
    single_active: bool
    retry: RetryDelay | None

    @classmethod
    def of(cls, arguments: Mapping[str, object], quorum: bool, rules: VersionRules) -> QueueRules:
        """What `arguments` mean to a queue; they are known to be well formed."""
        overflow = arguments.get("x-overflow")
        rejects = overflow == "reject-publish" or (overflow == "reject-publish-dlx" and not quorum)
        exchange = _text(arguments.get("x-dead-letter-exchange"))
        return cls(
            max_length=_whole(arguments.get("x-max-length")),
            max_bytes=_whole(arguments.get("x-max-length-bytes")),
            rejects=rejects,
            ttl_s=_seconds(arguments.get("x-message-ttl")),
            expires_s=_seconds(arguments.get("x-expires")),
            dead_letter_exchange=exchange,
            dead_letter_key=_text(arguments.get("x-dead-letter-routing-key")),
            # Without the other two it falls back in silence.
            at_least_once=quorum and rejects and arguments.get("x-dead-letter-strategy") == "at-least-once",
            delivery_limit=delivery_limit(arguments, rules.version) if quorum else None,
            single_active=arguments.get("x-single-active-consumer") is True,
            retry=RetryDelay.of(arguments) if quorum and rules.delays_retries else None,
        )


@dataclass(frozen=True, slots=True)
class RetryDelay:
    """Native delayed retry: which returns wait (`all`, `failed` or `returned`), and how long in seconds."""

    kind: str
    shortest_s: float
    longest_s: float

    @classmethod
    def of(cls, arguments: Mapping[str, object]) -> RetryDelay | None:
        """What `arguments` ask for; None without a type or a shortest delay."""
        kind = arguments.get("x-delayed-retry-type")
        shortest = _seconds(arguments.get("x-delayed-retry-min"))
        if kind not in ("all", "failed", "returned") or shortest is None:
            return None
        longest = _seconds(arguments.get("x-delayed-retry-max"))
        return cls(str(kind), shortest, float("inf") if longest is None else longest)

    def seconds(self, failed: bool, failures: int) -> float | None:
        """How long a message waits that was returned and has failed `failures` times; None: not at all."""
        if self.kind not in ("all", "failed" if failed else "returned"):
            return None
        return min(self.shortest_s * max(1, failures), self.longest_s)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(value: object) -> float | None:
    whole = _whole(value)
    return None if whole is None else whole / 1000


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
