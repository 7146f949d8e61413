"""A load: a proof run that breaks nothing itself, and goes on until it is stopped; what others break is in its account.

At 500 messages a second its journal grows by some 300 MB an hour, so that it ends after three and a half hours.
"""

from __future__ import annotations

from typing import Final

from dmq_core.errors import InvalidInputError
from dmq_core.proof.result import Workload
from dmq_core.proof.run.run import ProofOptions
from dmq_core.proof.scenario import LOAD, MOST_RATE, MOST_SECONDS, Scenario

MOST_BYTES: Final = 1 << 30
SETTLES_S: Final = 10.0
# So many messages are always unacknowledged, so that the loss of their consumer is seen in redeliveries.
_AT_WORK: Final = 10.0
_MOST_WORK_S: Final = 0.1


def load_of(rate: float) -> Scenario:
    """A load of `rate` messages a second, for a day at most; `InvalidInputError` if that makes no sense."""
    if not 0 < rate <= MOST_RATE:
        raise InvalidInputError(f"a load of {rate:g} messages/s makes no sense", f"Ask for up to {MOST_RATE:g}.")
    return Scenario(
        LOAD, "Load", (), MOST_SECONDS, Workload(rate=rate, handler_s=min(_MOST_WORK_S, round(_AT_WORK / rate, 4)))
    )


def load_options(*, read_only: bool = False) -> ProofOptions:
    """A load runs on any cluster, and ends after a gigabyte of journal; it waits ten seconds for what is due."""
    return ProofOptions(read_only, force=True, max_bytes=MOST_BYTES, settle_timeout_s=SETTLES_S)
