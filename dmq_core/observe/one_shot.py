"""One look at a cluster without feeds: for commands that ask once and end."""

from __future__ import annotations

import time
from dataclasses import replace

from dmq_core.cluster.protocol import Cluster
from dmq_core.cluster.view import ClusterView
from dmq_core.errors import DmqError
from dmq_core.observe.management_poll import FiguresReader
from dmq_core.observe.snapshot import ClusterSnapshot, SourceStatus
from dmq_core.observe.snapshot_builder import assemble
from dmq_core.observe.state import MANAGEMENT, ClusterState, with_figures, with_nodes, with_source

CALL_LIMIT_S = 4.0


def snapshot_once(cluster: Cluster) -> ClusterSnapshot:
    """What is known of `cluster` now, in about a second and at most 15; raises only what `cluster.nodes` raises.

    Where the management API does not answer, the states of nodes still come from the backend, and the source
    `management` says why there are no figures.
    """
    asked_at = time.time()
    view = ClusterView.of(cluster)
    state = with_nodes(ClusterState(cluster.name, cluster.backend), view.nodes, asked_at)
    if not view.fit:
        return assemble(with_source(state, SourceStatus(MANAGEMENT, problem="no node is in service")), time.time())
    client = view.management(CALL_LIMIT_S)
    try:
        figures = FiguresReader(client).read()
    except DmqError as error:
        state = with_source(state, SourceStatus(MANAGEMENT, problem=error.what))
    else:
        asked = figures.asked
        state = with_figures(replace(state, asks=asked.name if asked else None), figures, {}, {})
        state = with_source(state, SourceStatus(MANAGEMENT, asked.url if asked else None, figures.taken_at))
    finally:
        client.close()
    return assemble(state, time.time())
