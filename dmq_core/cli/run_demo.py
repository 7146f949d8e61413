"""What `python -m demos.NAME` does: the same as `dmq demo run NAME`, with the same options."""

from __future__ import annotations

import sys
from pathlib import Path


def run_demo(file: str) -> int:
    """Runs the demo in `file`; gives the exit status."""
    from dmq_core.cli import main

    return main(["demo", "run", Path(file).stem, *sys.argv[1:]])
