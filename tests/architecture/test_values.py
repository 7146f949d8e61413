"""Snapshots, models and events are frozen values, and secrets do not show."""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Iterator

import pytest
from source_trees import sources

from dmq_core.observe.snapshot import ClusterSnapshot

VALUE_MODULES = (
    "dmq_core.cluster.protocol",
    "dmq_core.cluster.node_config",
    "dmq_core.cluster.faults.model",
    "dmq_core.endpoints",
    "dmq_core.progress",
    "dmq_core.versions",
    "dmq_core.settings.settings",
    "dmq_core.management.models",
    "dmq_core.messaging.messages",
    "dmq_core.observe.events",
    "dmq_core.observe.health",
    "dmq_core.observe.snapshot",
    "dmq_core.actions.impact",
    "dmq_core.actions.action",
    "dmq_core.actions.catalog",
    "dmq_core.actions.wording",
    "dmq_core.cluster.faults.model",
    "dmq_tui.background.undo_all",
    "dmq_core.proof.progress",
    "dmq_core.proof.journal.records",
    "dmq_core.proof.result",
    "dmq_core.observe.observation",
    "dmq_core.messaging.tap.source",
    "dmq_core.session.protocol",
)
SECRET_WORDS = ("password", "secret", "cookie", "token")
MUTABLE = (list, dict, set, bytearray)


def dataclasses_of(module_name: str) -> Iterator[type]:
    module = importlib.import_module(module_name)
    for value in vars(module).values():
        if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == module_name:
            yield value


@pytest.mark.parametrize("module_name", VALUE_MODULES)
def test_every_value_is_frozen_and_slotted(module_name: str) -> None:
    for value in dataclasses_of(module_name):
        assert value.__dataclass_params__.frozen, f"{value.__qualname__} can be changed"  # type: ignore[attr-defined]
        assert "__slots__" in vars(value), f"{value.__qualname__} takes any attribute"


@pytest.mark.parametrize("module_name", VALUE_MODULES)
def test_no_value_holds_something_that_changes(module_name: str) -> None:
    for value in dataclasses_of(module_name):
        for name, hint in typing.get_type_hints(value).items():
            assert not set(_origins(hint)) & set(MUTABLE), f"{value.__qualname__}.{name} can be changed inside"


def test_a_cluster_snapshot_compares_by_identity() -> None:
    assert ClusterSnapshot.__eq__ is object.__eq__
    assert ClusterSnapshot.__hash__ is object.__hash__


def test_no_dataclass_of_the_core_shows_a_secret_in_its_repr() -> None:
    for source in sources("dmq_core"):
        for value in dataclasses_of(source.module):
            if "__repr__" not in vars(value):
                continue
            for field in dataclasses.fields(value):
                secret = field.name in SECRET_WORDS and field.type in ("str", "str | None", "bytes")
                assert not (secret and field.repr), f"{value.__qualname__}.{field.name} shows in its repr"


def _origins(hint: object) -> Iterator[object]:
    yield typing.get_origin(hint) or hint
    for argument in typing.get_args(hint):
        yield from _origins(argument)
