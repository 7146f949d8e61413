"""Where the demos are: one file each in the folder `demos`, in the order in which that folder's `ORDER` names them."""

from __future__ import annotations

import importlib.util
import sys
from functools import lru_cache
from types import ModuleType

from dmq_core.demo.model import AnyDemo, Demo
from dmq_core.errors import InvalidInputError
from dmq_core.resources import demos_folder
from dmq_core.text import visible


def demo_names() -> tuple[str, ...]:
    """Every demo: those that `ORDER` names first, then the others by name."""
    there = {path.stem for path in demos_folder().glob("[!_]*.py")}
    order = [name for name in getattr(_module("__init__"), "ORDER", ()) if name in there]
    return (*order, *sorted(there.difference(order)))


def find_demo(name: str) -> AnyDemo:
    """The demo of that name; `InvalidInputError` if there is none."""
    if name not in demo_names():
        raise InvalidInputError(f"there is no demo {visible(name)!r}", "'dmq demo list' names them.")
    demo = getattr(_module(name), "DEMO", None)
    if not isinstance(demo, Demo):
        raise InvalidInputError(f"demos/{name}.py makes no DEMO", "Let it assign a Demo to that name.")
    return demo


@lru_cache
def _module(name: str) -> ModuleType:
    """The file as a module of a name that is nobody else's: `demos` may be anything in an installed Python."""
    own = f"dmq_demo_{name.strip('_')}"
    spec = importlib.util.spec_from_file_location(own, demos_folder() / f"{name}.py")
    if spec is None or spec.loader is None:
        raise InvalidInputError(f"demos/{name}.py cannot be loaded", "Is it there?")
    module = importlib.util.module_from_spec(spec)
    # Where `inspect` looks for the source of what is in it.
    sys.modules[own] = module
    spec.loader.exec_module(module)
    return module
