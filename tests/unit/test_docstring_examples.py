"""Every public name of the library is explained, with an example that does what it says, on a broker in memory."""

from __future__ import annotations

import contextlib
import doctest
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import pytest

from dmq_core import connection_manager, messaging, testing
from dmq_core.cluster.protocol import Backend
from dmq_core.connection_manager import BrokerConnectionManager
from dmq_core.testing import ClusterUnderTest, FakeCluster, MemoryBroker, SimBroker
from dmq_core.testing.memory.flow import flowing
from dmq_core.testing.pytest_support import plugin as pytest_plugin

# A constant has no docstring of its own.
SHOWN_IN_THE_EXAMPLE_OF = {"HOSTILE_NAMES": "hostile"}
PARSER = doctest.DocTestParser()


@dataclass(frozen=True, slots=True)
class Documented:
    """A docstring, and where it stands."""

    where: str
    text: str

    @property
    def examples(self) -> list[doctest.Example]:
        return PARSER.get_examples(self.text, self.where)


def offered() -> dict[str, object]:
    """Every public name of the library with what it stands for."""
    modules: tuple[ModuleType, ...] = (messaging, connection_manager, testing)
    names = {name: getattr(module, name) for module in modules for name in module.__all__}
    return {**names, "dmq_cluster": inspect.unwrap(pytest_plugin.dmq_cluster)}


def is_ours(kind: type) -> bool:
    return kind.__module__.startswith("dmq_core")


def methods(kind: type) -> Iterator[Documented]:
    """What a user may call or read on `kind`, whichever class of ours it is written in."""
    for of in kind.__mro__:
        for name, value in vars(of).items() if is_ours(of) else ():
            function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            if not name.startswith("_") and (
                inspect.isfunction(function) or isinstance(function, property | cached_property)
            ):
                yield Documented(f"{of.__qualname__}.{name}", function.__doc__ or "")


def docstrings(name: str, thing: object) -> Iterator[Documented]:
    """Those of `thing` itself and, for a class, of its own methods and those that it inherits."""
    own = vars(thing).get("__doc__") if isinstance(thing, type) else inspect.getdoc(thing)
    yield Documented(name, own or "")
    if isinstance(thing, type):
        yield from methods(thing)


def own_docstrings(name: str, thing: object) -> Iterator[Documented]:
    mine = {name, *(f"{name}.{member}" for member in vars(thing))} if isinstance(thing, type) else {name}
    return (documented for documented in docstrings(name, thing) if documented.where in mine)


OFFERED = offered()
EXPLAINED = {name: thing for name, thing in OFFERED.items() if name not in SHOWN_IN_THE_EXAMPLE_OF}
EVERYTHING = {d.where: d for name, thing in EXPLAINED.items() for d in docstrings(name, thing)}
WITH_EXAMPLES = [documented for documented in EVERYTHING.values() if documented.examples]


@pytest.mark.parametrize("documented", EVERYTHING.values(), ids=EVERYTHING.keys())
def test_every_public_name_and_method_has_a_docstring(documented: Documented) -> None:
    assert documented.text.strip(), f"{documented.where} has no docstring"


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_public_name_has_an_example(name: str) -> None:
    assert any(d.examples for d in own_docstrings(name, EXPLAINED[name])), f"{name} has no example"


@pytest.mark.parametrize("name", SHOWN_IN_THE_EXAMPLE_OF)
def test_what_has_no_docstring_is_shown_where_it_is_used(name: str) -> None:
    user = SHOWN_IN_THE_EXAMPLE_OF[name]
    assert any(name in example.source for d in own_docstrings(user, OFFERED[user]) for example in d.examples)


@pytest.mark.parametrize("documented", WITH_EXAMPLES, ids=[d.where for d in WITH_EXAMPLES])
def test_the_example_does_what_it_says(documented: Documented) -> None:
    with world() as names:
        assert run(documented, names) == ""


def test_a_wrong_example_is_found() -> None:
    wrong = Documented("wrong", '>>> print(DirectProducer(manager).publish_and_wait("nobody", "x").outcome)\nconfirmed')
    with world() as names:
        assert "Got:\n    returned" in run(wrong, names)


def run(documented: Documented, names: Mapping[str, object]) -> str:
    """What is wrong with the example, in the words of `doctest`; empty if nothing is."""
    told: list[str] = []
    test = PARSER.get_doctest(documented.text, dict(names), documented.where, None, 0)
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=told.append)
    return "".join(told)


@contextlib.contextmanager
def world() -> Iterator[dict[str, object]]:
    """What the examples take as given: a manager with three brokers, a cluster, and every public name."""
    cluster = FakeCluster(SimBroker("dmq", 3, backend=Backend.LOCAL, started=True, realtime=False))
    with (
        MemoryBroker(nodes=3) as broker,
        flowing(broker.advance),
        BrokerConnectionManager(network=broker.network) as manager,
    ):
        for number, at in enumerate(broker.endpoints, start=1):
            manager.register_broker(number, at.host, at.amqp_port)
        yield {**OFFERED, "manager": manager, "dmq_cluster": ClusterUnderTest(cluster)}
