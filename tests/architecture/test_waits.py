"""Every wait has a bound."""

from __future__ import annotations

import ast

import pytest
from source_trees import Source, called_name, calls, functions_around, keywords, sources

# A call of this name without arguments waits for ever: Thread.join, Event.wait, Queue.get, Future.result, ...
WAITS_WITHOUT_ARGUMENTS = frozenset({"wait", "join", "get", "result", "acquire", "communicate"})
# A call of this name needs a `timeout`, or this many positional arguments.
NEEDS_TIMEOUT = {"wait_for": 2, "create_connection": 2, "check_output": 99, "check_call": 99}

# Where a wait needs no bound of its own, and why.
ALLOWED = {
    ("dmq_core.cluster.docker.image", "_import_root"): "a timer ends the process that is waited for",
    (
        "dmq_core.messaging.consuming.subscription",
        "Subscription._work",
    ): "the idle wait of a daemon thread until stop()",
    ("dmq_core.messaging.tap.tap", "_Buffer.take"): "its idle wait until close()",
    ("dmq_core.cluster.prerequisites", "_run_lines"): "a timer ends the process that is waited for",
    ("dmq_core.testing.memory.clock", "MemoryClock.serve"): "the idle wait of a loop's thread, ended by stop()",
    (
        "dmq_core.testing.simulation.listener_thread",
        "ListenerThread._run",
    ): "its idle wait until close()",
}


@pytest.mark.parametrize("package", ["dmq_core", "dmq_tui", "demos"])
def test_every_wait_has_a_bound(package: str) -> None:
    endless = [f"{source.at(call)}: {ast.unparse(call)}" for source in sources(package) for call in _endless(source)]
    assert endless == []


def test_every_exception_to_the_rule_is_still_needed() -> None:
    used = {
        (source.module, _function(source, call))
        for source in sources("dmq_core")
        for call in calls(source.tree)
        if _waits_for_ever(source, call)
    }
    assert set(ALLOWED) <= used


def test_requests_always_carry_a_timeout() -> None:
    """`Session.request` and its like wait for ever unless told otherwise."""
    verbs = ("request", "get", "put", "post", "delete")
    silent = [
        source.at(call)
        for source in sources("dmq_core")
        if source.module == "dmq_core.management.client"
        for call in calls(source.tree)
        if called_name(call) in verbs
        and isinstance(call.func, ast.Attribute)
        and ast.unparse(call.func.value) in ("requests", "session", "self._session", "self.session")
        and "timeout" not in keywords(call)
    ]
    assert silent == []


def _endless(source: Source) -> list[ast.Call]:
    return [
        call
        for call in calls(source.tree)
        if _waits_for_ever(source, call) and (source.module, _function(source, call)) not in ALLOWED
    ]


def _function(source: Source, call: ast.Call) -> str:
    return ".".join(functions_around(source.tree)[call])


def _has_queues(source: Source) -> bool:
    """Whether `get()` may be that of a queue; elsewhere it is somebody's own method."""
    return any(
        "queue" in (alias.name for alias in node.names) or getattr(node, "module", None) == "queue"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    )


def _waits_for_ever(source: Source, call: ast.Call) -> bool:
    name = called_name(call)
    if name == "get" and not _has_queues(source):
        return False
    if "timeout" in keywords(call) or any(keyword.arg is None for keyword in call.keywords):
        return False
    if name in WAITS_WITHOUT_ARGUMENTS:
        return isinstance(call.func, ast.Attribute) and not call.args and not call.keywords
    if name == "run" and isinstance(call.func, ast.Attribute):
        return ast.unparse(call.func) == "subprocess.run"
    if name == "wait_for" and (not call.args or isinstance(call.args[0], ast.Constant | ast.JoinedStr)):
        return False  # no Condition: those are given a predicate
    return name in NEEDS_TIMEOUT and len(call.args) < NEEDS_TIMEOUT[name]
