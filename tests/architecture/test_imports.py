"""Who may import whom."""

from __future__ import annotations

import ast
import itertools
import resource
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from source_trees import ROOT, sources

HOMES = {
    # The benchmark's peer is pika itself, as its users have it.
    "pika": {"dmq_core.messaging.transport.pika_transport", "dmq_core.bench.pika_peer"},
    "docker": {"dmq_core.cluster.docker.engine"},
    "requests": {"dmq_core.management.client"},
}


def test_every_import_contract_of_pyproject_is_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("library", HOMES)
def test_a_library_is_known_to_its_home_only(library: str) -> None:
    knowers = {
        source.module
        for package in ("dmq_core", "dmq_tui")
        for source in sources(package)
        if library in _imported_roots(source.tree)
    }
    assert knowers == HOMES[library]


def test_no_packages_import_each_other_in_a_circle_while_programs_run() -> None:
    """Names that only annotations use are left out; `lint-imports` holds those too."""
    graph = grimp.build_graph("dmq_core", exclude_type_checking_imports=True, cache_dir=None)
    packages = graph.find_children("dmq_core")
    for package in packages:
        graph.squash_module(package)
    circles = [
        (importer, imported)
        for importer, imported in itertools.permutations(sorted(packages), 2)
        if graph.chain_exists(importer, imported) and graph.chain_exists(imported, importer)
    ]
    assert circles == []


def test_importing_the_whole_core_brings_neither_textual_nor_rich() -> None:
    modules = [source.module for source in sources("dmq_core")]
    loaded = _modules_after("; ".join(f"import {module}" for module in modules))
    assert not {"textual", "rich", "dmq_tui"} & loaded


def test_the_command_line_loads_nothing_heavy_before_it_is_needed() -> None:
    loaded = _modules_after("import dmq_core.cli, dmq_core.cli.app")
    assert not {"docker", "requests", "pika", "textual", "rich"} & loaded


def test_help_is_on_screen_within_a_quarter_of_a_second() -> None:
    """Measured as processor time, which other programs on the machine do not stretch."""
    took = min(_seconds_of_help() for _ in range(5))
    assert took <= 0.25


def _imported_roots(tree: ast.Module) -> set[str]:
    roots: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.partition(".")[0])
    return roots


def _modules_after(statements: str) -> set[str]:
    program = f"{statements}; import sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def _seconds_of_help() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", "from dmq_core.cli import main; main(['--help'])"],
        capture_output=True,
        timeout=30,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
