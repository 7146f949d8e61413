"""The `dmq` command; the only place in the core that prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs `dmq` with `arguments` (by default those of the process) and exits with the contract's status."""
    from dmq_core.cli.app import dmq
    from dmq_core.cli.running import run

    sys.exit(run(dmq, "dmq", sys.argv[1:] if arguments is None else arguments))
