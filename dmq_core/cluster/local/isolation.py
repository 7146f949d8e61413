"""Cutting a node of a local cluster off from its peers while clients still reach it, without root and without a helper.

All that outlasts a broken link lives in the node's process and ends with it, and so does what is noted of it on disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from dmq_core.cluster.faults.erlang_links import cut_expression, mend_expression
from dmq_core.cluster.local import node as local_node
from dmq_core.cluster.local.installation import Installation
from dmq_core.cluster.local.node import NodePlace
from dmq_core.cluster.local.processes import OwnProcess
from dmq_core.cluster.local.state import LocalState
from dmq_core.cluster.readiness import side_by_side
from dmq_core.errors import ClusterError, OperationTimeoutError
from dmq_core.state_directory import write_private

_PEER_LIMIT_S = 15.0


def cut(place: NodePlace, process: OwnProcess, state: LocalState, installation: Installation, limit_s: float) -> None:
    """Turns every link between the running node and its peers into a black hole; `ClusterError` if it cannot.

    It is noted first, so that a cut whose maker was killed half way is seen and can be mended.
    """
    write_private(_note(place), _identity(process))
    try:
        local_node.control(place, state, installation, "eval", cut_expression(_peers(place, state)), limit_s=limit_s)
    except BaseException:
        with contextlib.suppress(ClusterError, OperationTimeoutError):
            mend(place, (), state, installation, limit_s)
        raise


def mend(
    place: NodePlace, others: Iterable[NodePlace], state: LocalState, installation: Installation, limit_s: float
) -> None:
    """Opens the links of the node again, at its end and at those of `others`, which run; `ClusterError` if it cannot.

    A link that nobody has given up yet goes on with everything that was sent meanwhile.
    """

    def reopen(at: NodePlace) -> None:
        if at is place:
            expression = mend_expression(_peers(place, state))
            local_node.control(at, state, installation, "eval", expression, limit_s=limit_s)
            return
        # A peer that does not do it gives its deaf link up by itself within seconds and makes a new one.
        with contextlib.suppress(ClusterError, OperationTimeoutError):
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
    """Removes what is noted of its links; nothing happens without a note."""
    for note in (_note(place), place.links_note):
        note.unlink(missing_ok=True)


def _peers(place: NodePlace, state: LocalState) -> tuple[str, ...]:
    return tuple(local_node.erlang_name(n) for n in state.node_names if n != place.node.name)


def _note(place: NodePlace) -> Path:
    return place.folder / "isolated"


def _identity(process: OwnProcess) -> str:
    return f"{process.pid} {process.started}\n"
