"""The pytest plugin in runs of users who have no cluster, and what it costs those who need none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

USES_THE_CLUSTER = """
def test_one(dmq_cluster):
    raise AssertionError("there is no cluster here")

def test_two(dmq_cluster):
    raise AssertionError("there is no cluster here")

def test_three():
    pass
"""


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester, tmp_path: Path) -> None:
    """Neither a Docker engine nor RabbitMQ, as far as a run can see."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    pytester.makeconftest("import shutil; shutil.which = lambda *_, **__: None")


# Whatever else is installed is none of a user's run, and loading Textual and Hypothesis takes most of its time.
OTHER_PLUGINS = ("asyncio", "cacheprovider", "hypothesispytest", "syrupy", "textual-snapshot", "xdist")
WITHOUT_OTHERS = [word for plugin in OTHER_PLUGINS for word in ("-p", f"no:{plugin}")]


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess(*WITHOUT_OTHERS, *arguments, timeout=60)


def test_without_a_backend_tests_are_skipped_and_the_reason_is_printed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USES_THE_CLUSTER)
    result = run(pytester)
    result.assert_outcomes(skipped=2, passed=1)
    result.stdout.fnmatch_lines(["dmq_cluster: tests were skipped: *Docker*rabbitmq-server*"])


def test_a_backend_that_was_asked_for_by_name_and_is_not_there_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USES_THE_CLUSTER)
    result = run(pytester, "--dmq-backend", "docker")
    result.assert_outcomes(errors=2, passed=1)
    result.stdout.fnmatch_lines(["*BackendUnavailableError*"])


@pytest.mark.parametrize(
    ("option", "word"), [(("--dmq-nodes", "many"), "no whole number"), (("--dmq-backend", "moon"), "is no backend")]
)
def test_options_that_make_no_sense_say_so(pytester: pytest.Pytester, option: tuple[str, str], word: str) -> None:
    pytester.makepyfile(USES_THE_CLUSTER)
    result = run(pytester, *option)
    result.assert_outcomes(errors=2, passed=1)
    result.stdout.fnmatch_lines([f"*{word}*"])


def test_the_ini_file_gives_what_the_command_line_does_not(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USES_THE_CLUSTER)
    pytester.makeini("[pytest]\ndmq_backend = moon\ndmq_nodes = 1\n")
    run(pytester).stdout.fnmatch_lines(["*'moon' is no backend*"])
    run(pytester, "--dmq-backend", "auto").assert_outcomes(skipped=2, passed=1)


def test_the_options_and_the_fixture_explain_themselves(pytester: pytest.Pytester) -> None:
    options = run(pytester, "--help").stdout
    for name in ("backend", "nodes", "rabbitmq"):
        options.fnmatch_lines([f"*--dmq-{name}=*"])
        options.fnmatch_lines([f"*dmq_{name} (string)*"])
    run(pytester, "--fixtures").stdout.fnmatch_lines(["dmq_cluster*session scope*", "*real RabbitMQ cluster*"])


def test_a_run_that_needs_no_cluster_loads_next_to_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_what_is_loaded():
            ours = {name for name in sys.modules if name.partition(".")[0] == "dmq_core"}
            support = "dmq_core.testing.pytest_support"
            assert ours == {"dmq_core", "dmq_core.testing", support, f"{support}.plugin"}
            assert not {"pika", "docker", "requests"} & set(sys.modules)
    """)
    run(pytester).assert_outcomes(passed=1)


def test_every_name_of_the_testing_package_can_be_had() -> None:
    import dmq_core.testing as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    assert sys.modules["dmq_core.testing"] is package
    with pytest.raises(AttributeError, match="nonsense"):
        package.nonsense  # noqa: B018
