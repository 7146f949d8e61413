"""Which cluster is meant, and who runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import pytest

from dmq_core.cluster.discovery import Runner, find_cluster, open_cluster
from dmq_core.cluster.protocol import Backend, Cluster, NodeInfo, NodeState
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import BackendUnavailableError, ClusterNotFoundError, DmqError, InvalidInputError

DOCKER, LOCAL = Backend.DOCKER, Backend.LOCAL


@dataclass
class Made:
    """Stands for a cluster: only what selection looks at."""

    name: str
    backend: Backend
    asked_nodes: int | None
    asked_rabbitmq: str | None
    credentials: Credentials | None
    there: int = 0
    rabbitmq: str = "4.3.6"

    def nodes(self) -> tuple[NodeInfo, ...]:
        endpoint = NodeEndpoint("127.0.0.1", 5672, 15672)
        return tuple(NodeInfo(f"rmq{i}", f"r@{i}", NodeState.STOPPED, endpoint) for i in range(1, self.there + 1))


@dataclass
class Machine:
    """What a machine has: for each backend the clusters that exist and why it cannot be used (None: it can)."""

    existing: dict[Backend, tuple[str, ...]] = field(default_factory=dict)
    reasons: dict[Backend, str | None] = field(default_factory=dict)

    def runners(self) -> dict[Backend, Runner]:
        return {backend: self._runner(backend) for backend in (DOCKER, LOCAL)}

    def _runner(self, backend: Backend) -> Runner:
        def names() -> tuple[str, ...]:
            reason = self.reasons.get(backend)
            if reason is not None and backend is DOCKER:
                raise BackendUnavailableError(reason)
            return self.existing.get(backend, ())

        def make(name: str, nodes: int | None, rabbitmq: str | None, credentials: Credentials | None) -> Cluster:
            there = 3 if name in self.existing.get(backend, ()) else 0
            return Made(name, backend, nodes, rabbitmq, credentials, there)  # type: ignore[return-value]  # enough of one

        return Runner(make, names, lambda: self.reasons.get(backend))


def outcome(machine: Machine, backend: str) -> Backend | type[DmqError]:
    try:
        return open_cluster("dmq", backend, runners=machine.runners()).backend
    except DmqError as error:
        return type(error) if error.hint else DmqError


TABLE: dict[tuple[bool, bool, str], Backend | type[DmqError]] = {
    # exists on docker, exists locally, asked for -> chosen, where both backends can be used
    (False, False, "auto"): DOCKER,
    (False, False, "docker"): DOCKER,
    (False, False, "local"): LOCAL,
    (True, False, "auto"): DOCKER,
    (True, False, "docker"): DOCKER,
    (True, False, "local"): InvalidInputError,
    (False, True, "auto"): LOCAL,
    (False, True, "docker"): InvalidInputError,
    (False, True, "local"): LOCAL,
    (True, True, "auto"): InvalidInputError,
    (True, True, "docker"): DOCKER,
    (True, True, "local"): LOCAL,
}


@pytest.mark.parametrize(
    ("on_docker", "locally", "asked"), product([False, True], [False, True], ["auto", "docker", "local"])
)
def test_an_existing_cluster_wins_and_two_of_a_name_must_be_told_apart(
    on_docker: bool, locally: bool, asked: str
) -> None:
    existing: dict[Backend, tuple[str, ...]] = {
        DOCKER: ("dmq",) if on_docker else ("other",),
        LOCAL: ("dmq",) if locally else (),
    }
    assert outcome(Machine(existing), asked) is TABLE[on_docker, locally, asked]


@pytest.mark.parametrize(
    ("docker", "local", "asked", "expected"),
    [
        (None, None, "auto", DOCKER),
        ("no engine", None, "auto", LOCAL),
        (None, "no rabbitmq", "auto", DOCKER),
        ("no engine", "no rabbitmq", "auto", BackendUnavailableError),
        ("no engine", None, "docker", BackendUnavailableError),
        (None, "no rabbitmq", "local", BackendUnavailableError),
        ("no engine", None, "local", LOCAL),
    ],
)
def test_a_new_cluster_goes_where_it_can_run(
    docker: str | None, local: str | None, asked: str, expected: Backend | type[DmqError]
) -> None:
    assert outcome(Machine(reasons={DOCKER: docker, LOCAL: local}), asked) is expected


def test_a_stopped_local_cluster_is_found_though_nothing_can_run_it_any_more() -> None:
    machine = Machine({LOCAL: ("dmq",)}, {DOCKER: "no engine", LOCAL: "no rabbitmq"})
    assert find_cluster(runners=machine.runners()).backend is LOCAL
    assert outcome(machine, "auto") is LOCAL


def test_without_any_backend_one_line_says_what_was_looked_for_and_how_to_get_either() -> None:
    machine = Machine(reasons={DOCKER: "Docker is not installed", LOCAL: "rabbitmq-server is not installed"})
    with pytest.raises(BackendUnavailableError) as caught:
        open_cluster(runners=machine.runners())
    assert "Docker is not installed; rabbitmq-server is not installed" in caught.value.what
    assert "dmq start --install" in caught.value.hint
    assert "\n" not in caught.value.what + caught.value.hint


def test_another_number_of_nodes_than_there_are_is_bad_input_that_tells_both() -> None:
    machine = Machine({LOCAL: ("dmq",)})
    assert open_cluster(nodes=3, runners=machine.runners()).backend is LOCAL
    with pytest.raises(InvalidInputError, match=r"dmq exists with 3 nodes of RabbitMQ 4\.3\.6, not 5"):
        open_cluster(nodes=5, runners=machine.runners())


def test_what_was_asked_for_reaches_the_cluster() -> None:
    user = Credentials("u", "p")
    made: object = open_cluster("x", nodes=5, rabbitmq="4.0", credentials=user, runners=Machine().runners())
    assert made == Made("x", DOCKER, 5, "4.0", user)


def test_a_cluster_that_must_exist_and_does_not_is_told_with_the_command_that_makes_it() -> None:
    with pytest.raises(ClusterNotFoundError) as caught:
        find_cluster("shop", runners=Machine().runners())
    assert "dmq start --cluster shop" in caught.value.hint


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a" * 41, "-a", "ä"])
def test_a_name_that_no_directory_may_have_is_bad_input_before_anything_is_asked(name: str) -> None:
    with pytest.raises(InvalidInputError):
        open_cluster(name, runners={})
    with pytest.raises(InvalidInputError):
        find_cluster(name, runners={})


def test_an_unknown_backend_is_bad_input() -> None:
    with pytest.raises(InvalidInputError, match="podman"):
        open_cluster(backend="podman", runners=Machine().runners())


def test_nodes_and_version_are_no_business_of_an_attached_cluster() -> None:
    with pytest.raises(InvalidInputError):
        open_cluster(urls=["amqp://h"], nodes=3)
