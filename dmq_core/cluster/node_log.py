"""What a node's own log tells: why it did not boot, why a tool failed, whether the node is in maintenance."""

from __future__ import annotations

import re
from datetime import datetime

from dmq_core.text import visible

_STAMP = re.compile(r"^\d{4}-\d\d-\d\d[ T][\d:.]+\S* \[\w+\] <[\d.]+> ?")
_VERDICT = re.compile(r"(?:Error|Exception) during startup:\s*(.*)", re.DOTALL)
_STACK_LINE = re.compile(r"^\s+[\w:'/-]+(?:/\d+)?, line \d+$")
_CONFIG_COMPLAINT = re.compile(r"^\s+- (\S.*)$")
_ADVANCED_COMPLAINT = re.compile(r"Failed to load advanced configuration file.*", re.DOTALL)
_LISTENER = re.compile(r"could_not_start_listener,\s*\"([^\"]+)\",\s*(\d+)")
_UNREADABLE = re.compile(r"Error when reading (\S+): (\w+)")
_LIMIT = 300


def boot_failure_reason(log: str) -> str:
    """The reason that a node's log gives for not booting, as one safe line of at most 300 characters; "" if none."""
    # A node that gives up prints BOOT FAILED and its reason more than once, with stack traces between; the first block
    # has it in full. One that Erlang itself refuses to run leaves only last words.
    lines = [_STAMP.sub("", line) for line in log.splitlines()]
    starts = [i for i, line in enumerate(lines) if line.strip() == "BOOT FAILED"]
    if not starts:
        return _shorten(_last_words(lines))
    before, after = lines[: starts[0]], lines[starts[0] + 1 :]
    verdict = _verdict(after)
    return _shorten(_plain_words(verdict, before) or verdict or _last_words(lines))


def _verdict(after: list[str]) -> str:
    paragraphs = re.split(r"\n\s*\n", "\n".join(after))
    text = "\n".join(p for p in paragraphs[:3] if not all(_STACK_LINE.match(line) for line in p.splitlines()))
    found = _VERDICT.search(text)
    if found is None:
        return ""
    return re.split(r"\n(?:BOOT FAILED|\s*\n|=====)", found[1].strip())[0]


def _plain_words(verdict: str, before: list[str]) -> str:
    """What an Erlang term means, for failures that people cause; a complaint itself stands `before` the verdict."""
    listener = _LISTENER.search(verdict)
    if listener is not None and "eaddrinuse" in verdict:
        return f"port {listener[2]} on {listener[1]} is in use"
    unreadable = _UNREADABLE.search(verdict)
    if unreadable is not None:
        return f"cannot read {unreadable[1]} ({unreadable[2]})"
    if "failed_to_read_advanced_configuration_file" in verdict:
        found = _ADVANCED_COMPLAINT.search("\n".join(before))
        return found[0] if found else ""
    if "configuration" in verdict:
        complaints = [m[1] for line in before if (m := _CONFIG_COMPLAINT.match(line))]
        return "; ".join(dict.fromkeys(complaints))
    return ""


def _last_words(lines: list[str]) -> str:
    for marker in ("Kernel pid terminated", "Runtime terminating during boot", "ERROR:", "rror:"):
        found = [line for line in lines if marker in line]
        if found:
            return found[-1]
    return next((line for line in reversed(lines) if line.strip()), "")


def _shorten(text: str) -> str:
    line = visible(" ".join(text.split()))
    return line if len(line) <= _LIMIT else line[: _LIMIT - 1] + "…"


def tool_failure_reason(said: str) -> str:
    """Why one of RabbitMQ's tools failed, in one line of what it said; empty if it said nothing."""
    lines = [line.strip() for line in said.splitlines() if line.strip() not in ("", "Error:")]
    return visible(lines[0]) if lines else ""


# A drained node closes its ports like one that hangs; only its log tells the two apart.
LOG_LINES = 2000
_MARK = re.compile(
    r"^(?P<at>\S+ \S+) \[\w+\] <[\d.]+> +(?:"
    r"(?P<begun>This node is being put into maintenance|Marked this node as undergoing maintenance)"
    r"|(?:Marked this node as back from maintenance|Starting RabbitMQ ))",
    re.MULTILINE,
)


def in_maintenance(log: str, since: float = 0.0) -> bool:
    """Whether the last word of a node's log on the matter is that it was drained, and not revived or booted since.

    What it said before the epoch second `since` was said by a broker that is gone.
    """
    begun = [mark["begun"] is not None for mark in _MARK.finditer(log) if _epoch(mark["at"]) >= since]
    return bool(begun) and begun[-1]


def _epoch(stamp: str) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return 0.0
