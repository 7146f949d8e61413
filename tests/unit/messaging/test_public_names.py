"""What `dmq_core.messaging` offers is there, is explained, and costs nothing until it is used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import pytest

from dmq_core import messaging


@pytest.mark.parametrize("name", messaging.__all__)
def test_every_public_name_resolves_and_has_a_docstring(name: str) -> None:
    thing = getattr(messaging, name)
    assert thing.__name__ == name
    assert vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="DirectProduser"):
        getattr(messaging, "DirectProduser")  # noqa: B009  # a type checker knows that it is not there


def test_what_a_type_checker_sees_comes_from_where_it_is_loaded_from() -> None:
    seen = {
        alias.name: node.module
        for node in ast.walk(ast.parse(inspect.getsource(messaging)))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in messaging.__all__
    }
    assert seen == {name: getattr(messaging, name).__module__ for name in messaging.__all__}


def test_nothing_of_the_package_is_loaded_before_it_is_used() -> None:
    program = "import dmq_core.messaging, sys; print(*(m for m in sys.modules if m.startswith('dmq_core')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert set(done.stdout.split()) == {"dmq_core", "dmq_core.messaging"}
