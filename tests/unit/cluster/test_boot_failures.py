"""The reason for a failed boot, read from what real nodes of three versions logged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.cluster.node_log import boot_failure_reason

SAMPLES = Path(__file__).parent / "boot_logs"
COOKIE = "cannot read /var/lib/rabbitmq/.erlang.cookie (eacces)"
EXPECTED = {
    "bad-key": "Conf file attempted to set unknown variable: no_such_key",
    "bad-value": 'Error transforming datatype for: net_ticktime; "banana" cannot be converted to a(n) integer',
    "cookie": COOKIE,
}


@pytest.mark.parametrize("version", ["4.3", "4.0", "3.10"])
@pytest.mark.parametrize("trouble", sorted(EXPECTED))
def test_each_version_tells_its_reason(version: str, trouble: str) -> None:
    assert boot_failure_reason((SAMPLES / f"{version}-{trouble}.log").read_text()) == EXPECTED[trouble]


@pytest.mark.parametrize("version", ["4.3", "4.0"])
def test_a_port_in_use_is_named(version: str) -> None:
    assert boot_failure_reason((SAMPLES / f"{version}-port.log").read_text()) == "port 5672 on 0.0.0.0 is in use"


def test_a_port_in_use_is_named_by_3_10_too() -> None:
    assert boot_failure_reason((SAMPLES / "3.10-port.log").read_text()) == "port 41997 on 127.0.0.1 is in use"


@pytest.mark.parametrize("version", ["4.3", "4.0"])
def test_an_exception_is_told_without_its_stack(version: str) -> None:
    reason = boot_failure_reason((SAMPLES / f"{version}-perm.log").read_text())
    assert reason.startswith("throw:{feature_flags_file_read_error,")
    assert "line" not in reason


@pytest.mark.parametrize("version", ["4.3", "4.0"])
def test_a_broken_advanced_config_is_told_with_its_syntax_error(version: str) -> None:
    reason = boot_failure_reason((SAMPLES / f"{version}-advanced.log").read_text())
    assert reason.startswith('Failed to load advanced configuration file "/etc/rabbitmq/advanced.config"')
    assert "syntax error" in reason


def test_an_empty_log_gives_no_reason() -> None:
    assert boot_failure_reason("") == ""
    assert boot_failure_reason("\n \n") == ""


def test_a_log_that_says_something_else_gives_its_last_words() -> None:
    assert boot_failure_reason("one\nsh: rabbitmq-server: not found\n") == "sh: rabbitmq-server: not found"


@given(st.text(max_size=2000) | st.text().map(lambda t: f"BOOT FAILED\n===\nError during startup: {t}"))
def test_any_log_gives_one_short_safe_line(log: str) -> None:
    reason = boot_failure_reason(log)
    assert len(reason) <= 300
    assert "\n" not in reason
    assert "\x1b" not in reason
