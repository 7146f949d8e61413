"""Cutting a node of a local cluster off from its peers while clients still reach it, without root and without a helper.

Both ends of each Erlang link of the node stop reading, so that either side waits in vain for the other's ticks, as it
would with a dead switch between them. A false cookie for its peers, in the node alone, refuses new links both ways.
All that outlasts a broken link lives in the node's process and ends with it, and so does what is noted of it on disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from dmq_core.cluster import local_node
from dmq_core.cluster.installation import Installation
from dmq_core.cluster.local_node import NodePlace
from dmq_core.cluster.local_state import LocalState, write_private
from dmq_core.cluster.processes import OwnProcess
from dmq_core.cluster.readiness import side_by_side
from dmq_core.errors import ClusterFailed, TimedOut

_PEER_ANSWERS_MS = 1000
_PEER_LIMIT_S = 15.0


def cut(place: NodePlace, process: OwnProcess, state: LocalState, installation: Installation, limit_s: float) -> None:
    """Turns every link between the running node and its peers into a black hole; `ClusterFailed` if it cannot.

    It is noted first, so that a cut whose maker was killed half way is seen and can be mended.
    """
    write_private(_note(place), _identity(process))
    try:
        local_node.control(place, state, installation, "eval", cut_expression(_peers(place, state)), limit_s=limit_s)
    except BaseException:
        with contextlib.suppress(ClusterFailed, TimedOut):
            mend(place, (), state, installation, limit_s)
        raise


def mend(
    place: NodePlace, others: Iterable[NodePlace], state: LocalState, installation: Installation, limit_s: float
) -> None:
    """Opens the links of the node again, at its end and at those of `others`, which run; `ClusterFailed` if it cannot.

    A link that nobody has given up yet goes on with everything that was sent meanwhile.
    """

    def reopen(at: NodePlace) -> None:
        if at is place:
            expression = mend_expression(_peers(place, state))
            local_node.control(at, state, installation, "eval", expression, limit_s=limit_s)
            return
        # A peer that does not do it gives its deaf link up by itself within seconds and makes a new one.
        with contextlib.suppress(ClusterFailed, TimedOut):
            expression = mend_expression((place.erlang_name,))
            local_node.control(at, state, installation, "eval", expression, limit_s=min(limit_s, _PEER_LIMIT_S))

    side_by_side(reopen, (place, *others))
    forget(place)


def is_cut(place: NodePlace, process: OwnProcess) -> bool:
    """Whether this process of the node was cut off from its peers and not mended."""
    try:
        return _note(place).read_text(errors="replace") == _identity(process)
    except OSError:
        return False


def forget(place: NodePlace) -> None:
    """Removes the note; nothing happens without one."""
    _note(place).unlink(missing_ok=True)


def cut_expression(peers: Iterable[str]) -> str:
    """What a node evaluates to be cut off from `peers` (Erlang names)."""
    return (
        f"Peers = {_atoms(peers)}, "
        "Links = [Link || {Peer, _} = Link <- erlang:system_info(dist_ctrl), lists:member(Peer, Peers)], "
        # What takes time comes first, so that all links break at the same moment. A frozen peer does not answer.
        f"Ask = fun(Peer, M, F, A) -> rpc:call(Peer, M, F, A, {_PEER_ANSWERS_MS}) end, "
        "Ends = [{Peer, Ask(Peer, erlang, system_info, [dist_ctrl])} || {Peer, _} <- Links], "
        # Random, so that neither a stranger nor another node that was cut off can know it.
        "False = list_to_atom(binary_to_list(base64:encode(crypto:strong_rand_bytes(24)))), "
        "[erlang:set_cookie(Peer, False) || Peer <- Peers], "
        "[Ask(Peer, inet, setopts, [End, [{active, false}]]) "
        "|| {Peer, Found} <- Ends, is_list(Found), {Node, End} <- Found, Node =:= node()], "
        "[ok = inet:setopts(Link, [{active, false}]) || {_, Link} <- Links], ok."
    )


def mend_expression(peers: Iterable[str]) -> str:
    """What a node evaluates to open its links to `peers` again; it does no harm to links that are open."""
    return (
        f"Peers = {_atoms(peers)}, "
        "[erlang:set_cookie(Peer, erlang:get_cookie()) || Peer <- Peers], "
        "[inet:setopts(Link, [{active, true}]) "
        "|| {Peer, Link} <- erlang:system_info(dist_ctrl), lists:member(Peer, Peers)], ok."
    )


def _peers(place: NodePlace, state: LocalState) -> tuple[str, ...]:
    return tuple(local_node.erlang_name(n) for n in state.node_names if n != place.node.name)


def _atoms(names: Iterable[str]) -> str:
    """Names of nodes as an Erlang list; they hold neither quotes nor backslashes."""
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"


def _note(place: NodePlace) -> Path:
    return place.folder / "isolated"


def _identity(process: OwnProcess) -> str:
    return f"{process.pid} {process.started}\n"
