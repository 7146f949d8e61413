"""Which image nodes run: what is there, what a registry has, what is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from dmq_core.cluster.docker import image as module
from dmq_core.cluster.docker.engine import Engine
from dmq_core.cluster.docker.image import RECIPES, ImageRecipe, cause_of, ensure_image, official_tag, own_tag, series_of
from dmq_core.errors import BackendUnavailableError, ClusterError, InvalidInputError
from dmq_core.progress import Progress

OWN = f"dmq-rabbitmq:{own_tag(RECIPES['4.3'])}"


class StubEngine:
    """An engine with some images, and a registry that has some."""

    def __init__(
        self, here: dict[str, dict[str, str]], registry: tuple[str, ...] = (), pull_fails: bool = False
    ) -> None:
        self.here = here
        self.registry = registry
        self.pull_fails = pull_fails

    def image_environment(self, reference: str) -> Mapping[str, str] | None:
        return self.here.get(reference)

    def registry_has(self, reference: str, timeout_s: float) -> bool:
        assert timeout_s <= 5
        return reference in self.registry

    def pull(self, repository: str, tag: str) -> Iterator[Mapping[str, Any]]:
        yield {"status": "Downloading", "id": "a", "progressDetail": {"current": 5, "total": 10}}
        if self.pull_fails:
            raise ClusterError("could not pull it: connection reset")
        self.here[f"{repository}:{tag}"] = {"RABBITMQ_VERSION": "4.3.9"}
        yield {"status": "Pull complete", "id": "a"}


def ensure(stub: StubEngine, rabbitmq: str | None, heard: list[Progress], patch: pytest.MonkeyPatch) -> module.Image:
    def build(engine: Engine, recipe: ImageRecipe, progress: object) -> None:
        stub.here[f"dmq-rabbitmq:{own_tag(recipe)}"] = {}

    patch.setattr(module, "build_image", build)
    return ensure_image(cast("Engine", stub), rabbitmq, heard.append)


def test_an_image_that_is_here_is_used_without_asking_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Progress] = []
    stub = StubEngine({OWN: {}}, registry=("rabbitmq:4-management",))
    assert ensure(stub, None, heard, monkeypatch) == module.Image(OWN, "4.3")
    assert heard == []


def test_the_official_image_is_pulled_where_a_registry_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Progress] = []
    stub = StubEngine({}, registry=("rabbitmq:4-management",))
    assert ensure(stub, "4.3", heard, monkeypatch) == module.Image("rabbitmq:4-management", "4.3.9")
    assert heard[0].text == "pulling rabbitmq:4-management"


def test_a_version_asked_for_is_the_tag_that_is_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = StubEngine({}, registry=("rabbitmq:4.2-management",))
    assert ensure(stub, "4.2", [], monkeypatch).reference == "rabbitmq:4.2-management"


def test_the_image_is_built_where_no_registry_answers_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Progress] = []
    assert ensure(StubEngine({}), None, heard, monkeypatch).reference == OWN
    assert "no image registry answers" in heard[0].text


def test_the_image_is_built_when_the_pull_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Progress] = []
    stub = StubEngine({}, registry=("rabbitmq:4-management",), pull_fails=True)
    assert ensure(stub, None, heard, monkeypatch).reference == OWN
    assert "connection reset" in heard[-1].text


def test_a_version_that_nobody_has_says_which_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ensure(StubEngine({}), "3.7", [], monkeypatch)
    assert "4.3, 4.0, 3.10" in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "series", "tag"),
    [
        (None, "4.3", "4-management"),
        ("4.3", "4.3", "4-management"),
        ("4.0", "4.0", "4.0-management"),
        ("4.1.5", "4.1", "4.1.5-management"),
    ],
)
def test_versions_and_tags(asked: str | None, series: str, tag: str) -> None:
    assert series_of(asked) == series
    assert official_tag(asked) == tag


def test_our_tag_changes_with_the_recipe(tmp_path: Path) -> None:
    for name in ("Dockerfile", "docker-entrypoint.sh"):
        (tmp_path / name).write_text("one")
    before = own_tag(RECIPES["4.3"], tmp_path)
    assert before.startswith("4.3-")
    assert before == own_tag(RECIPES["4.3"], tmp_path)
    assert before != own_tag(RECIPES["4.0"], tmp_path)
    (tmp_path / "docker-entrypoint.sh").write_text("two")
    assert before != own_tag(RECIPES["4.3"], tmp_path)


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (
            [
                "Err:1 http://m/debian forky InRelease",
                "E: Failed to fetch http://m/x  Could not connect",
                "E: Some index files failed to download.",
            ],
            "E: Failed to fetch http://m/x  Could not connect",
        ),
        (
            ["I: Retrieving InRelease", "E: Failed getting release file http://m/dists/x/Release"],
            "E: Failed getting release file http://m/dists/x/Release",
        ),
        (
            ["E: Sub-process /usr/bin/dpkg returned an error code (1)"],
            "E: Sub-process /usr/bin/dpkg returned an error code (1)",
        ),
        (["\x1b[91mE: Unable to locate package x", "\x1b[0m"], "E: Unable to locate package x"),
        (["all went", "well"], ""),
        ([], ""),
    ],
)
def test_the_cause_is_the_last_line_that_tells_one(lines: list[str], cause: str) -> None:
    assert cause_of(lines) == cause


def test_a_missing_debootstrap_is_told_with_the_command_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda *_args, **_kwargs: None)
    with pytest.raises(BackendUnavailableError) as caught:
        ensure_image(cast("Engine", StubEngine({})), None)
    assert "sudo apt-get install debootstrap" in caught.value.hint


def test_an_ordinary_user_gets_the_one_command_that_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda *_args, **_kwargs: "/usr/sbin/debootstrap")
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    with pytest.raises(BackendUnavailableError) as caught:
        ensure_image(cast("Engine", StubEngine({})), None)
    assert "make-root.sh trixie http" in caught.value.hint
    assert "| docker import - dmq-base:trixie" in caught.value.hint
