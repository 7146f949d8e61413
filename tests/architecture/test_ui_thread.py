"""No network, disk or sleep on the UI thread, and no text from outside as markup."""

from __future__ import annotations

import ast
import re

from source_trees import Source, called_name, calls, keywords, sources

REACHES_OUT = frozenset(
    {"socket", "ssl", "subprocess", "urllib", "http", "requests", "pika", "docker", "sqlite3", "shelve", "ftplib"}
)
DISK_AND_SLEEP = frozenset(
    {"sleep", "open", "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "system", "popen"}
)
# What of the seam blocks its caller, by what it is called on.
BLOCKING = {
    "session": {
        "start_cluster",
        "publish",
        "load",
        "prove",
        "demo",
        "perform",
        "close",
    },
    "cluster": {
        "exists",
        "nodes",
        "start",
        "stop",
        "destroy",
        "act",
        "inject",
        "active_faults",
        "add_node",
        "remove_node",
        "logs",
        "watch",
    },
    "load": {"finish"},
    "proof": {"finish"},
    "tail": {"close"},
    "observer": {"close"},
}
# What runs a function that it is given on another thread.
HANDS_OVER = frozenset({"in_background", "Thread", "_begin"})
# Where text becomes something that Textual shows and may read as markup.
SPEAKS_MARKUP = frozenset({"notify", "Static", "Label"})


def test_the_console_does_not_know_how_to_reach_out() -> None:
    found = [
        f"{source.at(node)}: {root}"
        for source in sources("dmq_tui")
        for node in ast.walk(source.tree)
        for root in _imported(node)
        if root in REACHES_OUT and isinstance(node, ast.stmt)
    ]
    assert found == []


def test_the_console_neither_sleeps_nor_touches_the_disk() -> None:
    found = [
        f"{source.at(call)}: {ast.unparse(call.func)}"
        for source in sources("dmq_tui")
        for call in calls(source.tree)
        if called_name(call) in DISK_AND_SLEEP
    ]
    assert found == []


def test_what_blocks_is_called_in_the_background_only() -> None:
    found = [
        f"{source.at(call)}: {ast.unparse(call)}" for source in sources("dmq_tui") for call in _on_ui_thread(source)
    ]
    assert found == []


def test_text_that_is_no_constant_is_never_read_as_markup() -> None:
    found = [
        f"{source.at(call)}: {ast.unparse(call)[:80]}"
        for source in sources("dmq_tui")
        for call in calls(source.tree)
        if called_name(call) in SPEAKS_MARKUP and _may_hold_markup(call)
    ]
    assert found == []


def test_markup_is_only_ever_parsed_from_constants() -> None:
    found = [
        source.at(call)
        for source in sources("dmq_tui")
        for call in calls(source.tree)
        if called_name(call) == "from_markup" and not all(isinstance(a, ast.Constant) for a in call.args)
    ]
    assert found == []


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.partition(".")[0]]
    return []


def _on_ui_thread(source: Source) -> list[ast.Call]:
    background = _background_names(source.tree)
    found: list[ast.Call] = []

    def visit(node: ast.AST, in_background: bool) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            in_background = in_background or node.name in background
        if isinstance(node, ast.Call):
            if _blocks(node) and not in_background:
                found.append(node)
            handed_over = called_name(node) in HANDS_OVER
            for child in ast.iter_child_nodes(node):
                lambda_there = handed_over and isinstance(child, ast.Lambda)
                visit(child, in_background or lambda_there)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, in_background)

    visit(source.tree, False)
    return found


def _background_names(tree: ast.Module) -> set[str]:
    """The functions and methods that are handed over to a thread, and what those call in turn."""
    bodies = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    handed_over = [
        value
        for call in calls(tree)
        if called_name(call) in HANDS_OVER
        for value in (*call.args, *keywords(call).values())
    ]
    names = {_last_word(value) for value in handed_over} & set(bodies)
    reached: list[ast.AST] = [value for value in handed_over if isinstance(value, ast.Lambda)]
    reached += [bodies[name] for name in names]
    while reached:
        called = {called_name(call) for call in calls(reached.pop())} & set(bodies) - names
        names |= called
        reached += [bodies[name] for name in called]
    return names


def _last_word(value: ast.expr) -> str:
    if isinstance(value, ast.Attribute):
        return value.attr
    return value.id if isinstance(value, ast.Name) else ""


def _blocks(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return False
    last = re.split(r"\W+", ast.unparse(call.func.value))[-1].lstrip("_")
    return call.func.attr in BLOCKING.get(last, set())


def _may_hold_markup(call: ast.Call) -> bool:
    markup = keywords(call).get("markup")
    if isinstance(markup, ast.Constant) and markup.value is False:
        return False
    return not all(isinstance(a, ast.Constant) for a in call.args)
