"""Where the `cluster` and `demos` folders are: beside `dmq_core` in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def cluster_folder() -> Path:
    """The folder that defines the clusters we run: image recipe, configuration, plugins, definitions."""
    return _find("cluster")


def demos_folder() -> Path:
    """The folder with one Python file per guided demo."""
    return _find("demos")


def _find(name: str) -> Path:
    bundled = _PACKAGE / "bundled" / name
    return bundled if bundled.is_dir() else _PACKAGE.parent / name
