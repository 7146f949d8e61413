"""Whether a node is in maintenance, by its log."""

from __future__ import annotations

from datetime import datetime

import pytest

from dmq_core.cluster.node_log import in_maintenance

STAMP = "2026-11-24 13:27:07.109694+00:00"
BOOT = f"{STAMP} [info] <0.210.0>  Starting RabbitMQ 4.3.6 on Erlang 27.3.4 [jit]"
BEGUN = f"{STAMP} [warning] <0.1195.0> This node is being put into maintenance (drain) mode"
DRAINED = f"{STAMP} [info] <0.1195.0> Marked this node as undergoing maintenance"
REVIVING = f"{STAMP} [info] <0.1240.0> This node is being revived from maintenance (drain) mode"
REVIVED = f"{STAMP} [info] <0.1240.0> Marked this node as back from maintenance and ready to serve clients"
OTHER = f"{STAMP} [info] <0.1117.0> User 'guest' authenticated successfully"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], False),
        ([BOOT, OTHER], False),
        ([BOOT, BEGUN], True),
        ([BOOT, BEGUN, DRAINED, OTHER], True),
        ([BOOT, BEGUN, DRAINED, REVIVING], True),
        ([BOOT, BEGUN, DRAINED, REVIVING, REVIVED, OTHER], False),
        ([BEGUN, DRAINED, BOOT], False),
        ([BEGUN, DRAINED, REVIVED, BEGUN, DRAINED], True),
    ],
)
def test_the_last_word_of_the_log_counts(lines: list[str], expected: bool) -> None:
    assert in_maintenance("\n".join(lines)) is expected


def test_what_was_said_before_the_broker_began_says_nothing_of_it() -> None:
    early = f"{STAMP} [info] <0.221.0> Feature flags: list of feature flags found:"
    log, at = "\n".join([BOOT, BEGUN, DRAINED, early]), datetime.fromisoformat(STAMP).timestamp()
    assert in_maintenance(log, at)
    assert not in_maintenance(log, at + 0.5)


def test_a_user_cannot_speak_for_the_node() -> None:
    name = "<0.1.0> Marked this node as undergoing maintenance"
    assert not in_maintenance(f"{BOOT}\n{STAMP} [info] <0.1117.0> User '{name}' authenticated successfully")
