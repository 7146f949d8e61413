"""Only the command line prints, and text from outside is escaped in one place."""

from __future__ import annotations

import ast

from source_trees import Source, called_name, calls, sources


def test_nothing_in_the_core_but_the_command_line_prints() -> None:
    speakers = [
        source.at(node)
        for source in sources("dmq_core")
        if not source.module.startswith("dmq_core.cli")
        for node in ast.walk(source.tree)
        if _prints(node)
    ]
    assert speakers == []


def test_names_are_percent_encoded_by_one_function() -> None:
    encoders = {
        source.module
        for package in ("dmq_core", "dmq_tui")
        for source in sources(package)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and node.module == "urllib.parse"
        if {alias.name for alias in node.names} & {"quote", "quote_plus", "urlencode"}
    }
    assert encoders == {"dmq_core.text"}


def test_acts_on_nodes_pass_the_one_gate() -> None:
    """`Cluster.act` is called by `dmq_core.actions.gate` only, where read-only and attached clusters are refused."""
    callers = {
        source.module
        for package in ("dmq_core", "dmq_tui")
        for source in sources(package)
        for call in calls(source.tree)
        if called_name(call) == "act" and isinstance(call.func, ast.Attribute)
    }
    assert callers == {"dmq_core.actions.gate"}


def test_starting_stopping_and_destroying_stand_behind_the_gate() -> None:
    """Wherever a front end or session changes a whole cluster, the same function asks `guard` first."""
    unguarded = [
        source.at(function)
        for source in _front_doors()
        for function in ast.walk(source.tree)
        if isinstance(function, ast.FunctionDef) and _changes_cluster(function) and not _guards(function)
    ]
    assert unguarded == []


def _front_doors() -> list[Source]:
    doors = ("dmq_core.cli.", "dmq_core.session.live", "dmq_tui")
    return [s for package in ("dmq_core", "dmq_tui") for s in sources(package) if s.module.startswith(doors)]


def _changes_cluster(function: ast.FunctionDef) -> bool:
    return any(
        isinstance(call.func, ast.Attribute)
        and call.func.attr in ("start", "stop", "destroy")
        and ast.unparse(call.func.value).endswith("cluster")
        for call in calls(function)
    )


def _guards(function: ast.FunctionDef) -> bool:
    return any(called_name(call) == "guard" for call in calls(function))


def _prints(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "print"
    return (
        isinstance(node, ast.Attribute)
        and node.attr in ("stdout", "stderr")
        and isinstance(node.value, ast.Name)
        and node.value.id == "sys"
    )
