"""The project's source as syntax trees, for tests that hold its laws."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Source:
    """One module: its dotted name, file and tree."""

    module: str
    path: Path
    tree: ast.Module

    def at(self, node: ast.expr | ast.stmt) -> str:
        """`dmq_core/x.py:12`, for messages."""
        return f"{self.path.relative_to(ROOT)}:{node.lineno}"


@cache
def sources(package: str) -> tuple[Source, ...]:
    """Every module of `package`, in name order."""
    return tuple(_source(path) for path in sorted((ROOT / package).rglob("*.py")) if "bundled" not in path.parts)


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Every call in `tree`."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def called_name(call: ast.Call) -> str:
    """The last word of what is called: `join` in `thread.join(2)`, `print` in `print()`."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    """The keyword arguments of a call."""
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}


def functions_around(tree: ast.Module) -> dict[ast.AST, tuple[str, ...]]:
    """For each node the names of the classes and functions that it stands in, outermost first."""
    around: dict[ast.AST, tuple[str, ...]] = {}

    def visit(node: ast.AST, names: tuple[str, ...]) -> None:
        around[node] = names
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = (*names, node.name)
        for child in ast.iter_child_nodes(node):
            visit(child, names)

    visit(tree, ())
    return around


def _source(path: Path) -> Source:
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Source(module, path, ast.parse(path.read_text(), str(path)))
