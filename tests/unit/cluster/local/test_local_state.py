"""What a local cluster keeps on disk."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.cluster.local.state import (
    LocalNode,
    LocalState,
    choose_state,
    clusters_folder,
    local_cluster_names,
    parse_state,
    read_state,
    render_state,
    reserved_ports,
    with_free_ports,
    write_state,
)
from dmq_core.cluster.ports import PortChooser
from dmq_core.endpoints import Credentials
from dmq_core.errors import ClusterError, OperationTimeoutError
from dmq_core.state_directory import locked, remove_folder, state_folder, write_private

ports = st.integers(1, 65535)
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
nodes = st.builds(LocalNode, words, ports, ports, ports, ports)
states = st.builds(
    LocalState, words, ports, st.lists(nodes, min_size=1, max_size=5).map(tuple), st.builds(Credentials, words, words)
)

STATE = LocalState("3.10.8", 21000, (LocalNode("rmq1", 5672, 15672, 21001, 21002),), Credentials("u", "secret"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DMQ_STATE_DIR", str(tmp_path / "state"))
    made = clusters_folder() / "one"
    made.mkdir(parents=True)
    return made


@given(states)
def test_a_state_survives_being_written_and_read(state: LocalState) -> None:
    assert parse_state(render_state(state)) == state


@given(states, st.data())
def test_a_state_file_that_was_cut_off_is_never_half_believed(state: LocalState, data: st.DataObject) -> None:
    text = render_state(state).rstrip()
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    with pytest.raises((ValueError, TypeError, KeyError)):
        parse_state(cut)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_a_state_file_with_any_other_json_is_refused(document: object) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        parse_state(json.dumps(document))


def test_a_ruined_state_file_says_how_to_get_rid_of_the_cluster(folder: Path) -> None:
    (folder / "state.json").write_bytes(b"\xff\x00{")
    with pytest.raises(ClusterError) as caught:
        read_state(folder)
    assert "dmq destroy --cluster one" in caught.value.hint


def test_only_the_owner_can_read_a_state_file_and_its_repr_has_no_password(folder: Path) -> None:
    write_state(folder, STATE)
    assert stat.S_IMODE((folder / "state.json").stat().st_mode) == 0o600
    assert read_state(folder) == STATE
    assert "secret" not in repr(STATE)


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(folder, STATE)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ClusterError, match="No space left"):
        write_private(folder / "state.json", "new")
    assert read_state(folder) == STATE
    assert [p.name for p in folder.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DMQ_STATE_DIR": "/a", "XDG_STATE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_STATE_HOME": "/b", "HOME": "/c"}, "/b/dmq"),
        ({"HOME": "/c"}, "/c/.local/state/dmq"),
    ],
)
def test_the_state_folder_follows_the_environment(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DMQ_STATE_DIR", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert state_folder() == Path(expected)


def test_no_port_is_given_out_that_something_listens_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        assert PortChooser().take(taken) != taken


def test_a_port_on_which_something_listens_on_all_addresses_is_taken() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:  # noqa: S104 - that is the point
        taken = listener.getsockname()[1]
        assert PortChooser().take(taken) != taken


def test_no_port_is_given_out_twice() -> None:
    chooser = PortChooser(frozenset({21005}))
    given_out = [chooser.take() for _ in range(200)] + [chooser.take(21005)]
    assert len(set(given_out)) == len(given_out)
    assert 21005 not in given_out


def test_two_clusters_never_share_a_port_even_while_they_are_stopped(folder: Path) -> None:
    one = choose_state("dmq", ("rmq1", "rmq2", "rmq3"), "3.10.8", Credentials(), folder)
    write_state(folder, one)
    other = folder.with_name("two")
    two = choose_state("dmq", ("rmq1", "rmq2", "rmq3"), "3.10.8", Credentials(), other)
    assert reserved_ports(other) == one.ports
    assert not one.ports & two.ports
    assert len(one.ports) == 1 + 3 * 4


def test_a_stopped_node_whose_port_was_taken_gets_another_and_the_rest_stays(folder: Path) -> None:
    state = choose_state("dmq", ("rmq1", "rmq2"), "3.10.8", Credentials(), folder)
    write_state(folder, state)
    with socket.create_server(("127.0.0.1", state.nodes[1].amqp_port)):
        moved = with_free_ports(state, ("rmq1", "rmq2"), folder, keep_epmd=True)
        untouched = with_free_ports(state, ("rmq1",), folder, keep_epmd=True)
    assert moved.nodes[0] == state.nodes[0]
    assert moved.nodes[1].amqp_port != state.nodes[1].amqp_port
    assert moved.nodes[1].ports[1:] == state.nodes[1].ports[1:]
    assert untouched == state


def test_a_lock_keeps_others_out_and_tells_who_is_busy(folder: Path) -> None:
    with locked(folder, 1.0) as here:
        assert here
        with pytest.raises(OperationTimeoutError, match="busy with one"), locked(folder, 0.2):
            pass
    with locked(folder, 1.0) as again:
        assert again


def test_a_lock_ends_with_the_program_that_held_it(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    holds = context.Event()
    holder = context.Process(target=_hold, args=(str(folder), holds))
    holder.start()
    assert holds.wait(20)
    with pytest.raises(OperationTimeoutError), locked(folder, 0.1):
        pass
    holder.kill()
    holder.join(10)
    with locked(folder, 5.0) as here:
        assert here


def _hold(folder: str, holds: threading.Event) -> None:
    with locked(Path(folder), 5.0):
        holds.set()
        threading.Event().wait(60)


def test_whoever_waits_for_a_folder_that_is_removed_does_not_hold_a_ghost(folder: Path) -> None:
    found: list[bool] = []

    def wait() -> None:
        with locked(folder, 5.0) as here:
            found.append(here)

    waiter = threading.Thread(target=wait)
    with locked(folder, 1.0):
        waiter.start()
        remove_folder(folder)
    waiter.join(6)
    assert found == [False]


def test_the_last_cluster_takes_the_empty_folders_above_it_along(folder: Path) -> None:
    write_state(folder, STATE)
    (folder / "rmq1").mkdir()
    assert local_cluster_names() == ("one",)
    remove_folder(folder)
    assert local_cluster_names() == ()
    assert not state_folder().exists()
