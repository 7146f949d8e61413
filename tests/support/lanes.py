"""Which tests follow one another on one worker when several share a run (`pytest -n 3 --dist loadgroup`).

Tests on nodes mostly wait, so they begin first and the many without nodes fill what they leave free. Those that share a
cluster are one lane, since a lane is run by one worker and each worker has clusters of its own.
"""

from __future__ import annotations

import pytest
from backend_count import NO_NODES, place_of

MAKERS = {"make_cluster", "make_docker_cluster"}


def lane_of(item: pytest.Item) -> str | None:
    """The lane of a test, None if it can run anywhere at any time."""
    place = place_of(item)
    if item.get_closest_marker("wheel"):
        return "wheel"
    if place == NO_NODES:
        # They share the syntax trees of the whole source, which take seconds to make.
        return "architecture" if item.path.parent.name == "architecture" else None
    makes_its_own = MAKERS & set(getattr(item, "fixturenames", ()))
    return f"{place}: {item.path.stem}" if makes_its_own else place


@pytest.hookimpl(tryfirst=True)  # before xdist reads the lanes
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives tests their lanes and puts lanes first, since what takes longest must not begin last."""
    lanes = {item: None if item.get_closest_marker("xdist_group") else lane_of(item) for item in items}
    for item, lane in lanes.items():
        if lane is not None:
            item.add_marker(pytest.mark.xdist_group(lane))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
