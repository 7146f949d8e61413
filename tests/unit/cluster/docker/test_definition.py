"""How a cluster looks in Docker: labels that are read back, files that keep secrets, ports that stay."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.cluster.docker.definition import (
    ADVANCED_FILE,
    COOKIE_FILE,
    ClusterDefinition,
    credentials_in,
    definition_from,
    numeric_owner,
    ports_of_others,
    started_ago_s,
)
from dmq_core.cluster.docker.values import archive_of, container_of, only_file_in
from dmq_core.cluster.node_config import node_names
from dmq_core.endpoints import Credentials, NodeEndpoint
from dmq_core.errors import ClusterError

MADE = ClusterDefinition(
    "dmq", "4.3", "rabbitmq:4-management", node_names(3), ((5672, 15672), (5673, 15673), (5674, 15674))
)
ports = st.integers(min_value=1, max_value=65535)
credentials = st.builds(Credentials, st.text(min_size=1), st.text(min_size=1))


@given(st.lists(st.tuples(ports, ports), min_size=1, max_size=9), st.sampled_from(["4.3", "4.0.5", "3.10"]))
def test_what_was_made_is_read_back_from_labels(pairs: list[tuple[int, int]], version: str) -> None:
    made = ClusterDefinition("x", version, "some/image:tag", node_names(len(pairs)), tuple(pairs))
    assert definition_from(made.labels()) == made
    assert definition_from(made.labels(made.nodes[-1])) == made


@pytest.mark.parametrize("label", ["dmq.nodes", "dmq.ports", "dmq.rabbitmq", "dmq.image"])
def test_labels_that_make_no_sense_say_how_to_get_rid_of_them(label: str) -> None:
    labels = MADE.labels()
    del labels[label]
    with pytest.raises(ClusterError) as caught:
        definition_from(labels)
    assert "dmq destroy --cluster dmq" in caught.value.hint


def test_more_nodes_than_ports_make_no_sense() -> None:
    with pytest.raises(ClusterError):
        definition_from({**MADE.labels(), "dmq.nodes": "4"})


def test_a_node_is_reached_at_its_published_ports() -> None:
    assert MADE.endpoint("rmq2") == NodeEndpoint("127.0.0.1", 5673, 15673)
    assert MADE.plan("rmq2").ports == {5672: 5673, 15672: 15673}


def test_the_host_name_of_a_container_is_not_the_name_of_its_node() -> None:
    plan = MADE.plan("rmq1")
    assert plan.name == "dmq-dmq-rmq1"
    assert plan.environment["RABBITMQ_NODENAME"] == "rabbit@rmq1"


@given(credentials)
def test_the_user_is_read_back_from_a_nodes_files(user: Credentials) -> None:
    files = {f.path: f for f in MADE.files("rmq1", user, "cookie", (999, 999))}
    assert credentials_in(files[ADVANCED_FILE].content) == user


def test_a_file_that_names_no_user_gives_none() -> None:
    assert credentials_in("[{rabbit, []}].") is None
    assert credentials_in("{default_user, <<1,2>>}, {default_pass, <<300>>}") is None


def test_only_the_node_may_read_its_secrets() -> None:
    files = MADE.files("rmq1", Credentials("alice", "sesame-seeds"), "biscuit", (101, 102))
    secret = {f.path: f.mode for f in files if "biscuit" in f.content or "sesame" in f.content}
    in_bytes = ",".join(str(b) for b in b"sesame-seeds")
    secret |= {f.path: f.mode for f in files if in_bytes in f.content}
    assert secret == {ADVANCED_FILE: 0o600, COOKIE_FILE: 0o400}
    assert {(f.user_id, f.group_id) for f in files} == {(101, 102)}
    assert "biscuit" not in repr(files)


def test_neither_labels_nor_environment_hold_a_secret() -> None:
    plan = MADE.plan("rmq1")
    assert "guest" not in repr(plan)
    assert not any("COOKIE" in name or "PASS" in name for name in plan.environment)


def test_the_owner_is_the_images_own_user() -> None:
    passwd = "root:x:0:0:root:/root:/bin/bash\nrabbitmq:x:999:998::/var/lib/rabbitmq:/usr/sbin/nologin\n"
    assert numeric_owner(passwd) == (999, 998)
    with pytest.raises(ClusterError, match="no user rabbitmq"):
        numeric_owner("root:x:0:0::/:/bin/sh\n")


def test_other_clusters_reserve_their_ports_also_while_they_are_stopped() -> None:
    other = replace(MADE, cluster="other", ports=((1, 2), (3, 4)))
    assert ports_of_others([MADE.labels(), other.labels("rmq1"), {"dmq.cluster": "third"}], "dmq") == {1, 2, 3, 4}


@given(st.text())
def test_a_file_travels_unchanged(content: str) -> None:
    file = replace(MADE.files("rmq1", Credentials(), "c", (1, 1))[0], content=content.replace("\r", ""))
    assert only_file_in(archive_of([file])) == file.content


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("2026-11-24T04:00:00.123456789Z", 59.876544),
        ("2026-11-24T04:00:00Z", 60.0),
        ("2026-11-24T05:00:00+01:00", 60.0),
        ("0001-01-01T00:00:00", math.inf),
        ("", math.inf),
    ],
)
def test_dockers_time_stamps_have_an_age(stamp: str, seconds: float) -> None:
    assert started_ago_s(stamp, datetime(2026, 11, 24, 4, 1, tzinfo=UTC)) == pytest.approx(seconds)


def test_an_inspection_becomes_a_container() -> None:
    found = container_of(
        {
            "Id": "abc",
            "Name": "/dmq-dmq-rmq1",
            "State": {"Status": "exited", "ExitCode": 137, "StartedAt": "2026-01-01T00:00:00Z"},
            "Config": {"Labels": {"dmq.node": "rmq1"}, "Image": "i"},
            "NetworkSettings": {"Networks": {"a": {"NetworkID": "n1"}, "b": {"NetworkID": ""}, "c": None}},
        }
    )
    assert (found.name, found.status, found.exit_code, found.networks) == ("dmq-dmq-rmq1", "exited", 137, {"n1"})
