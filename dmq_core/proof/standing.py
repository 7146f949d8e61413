"""How a proof run does while it lasts, and what it leaves, as front ends show it."""

from __future__ import annotations

from dataclasses import dataclass

from dmq_core.proof.account import LoadAccount
from dmq_core.proof.result import Mark, ProofResult


@dataclass(frozen=True, slots=True)
class ProofStanding:
    """A run after `elapsed_s` of the `planned_s` seconds of its load; both histories of `account` begin with the load.

    `doing` is what it is at (`draining the queue`), `ending` whether it was asked to end early.
    """

    account: LoadAccount
    elapsed_s: float
    planned_s: float
    marks: tuple[Mark, ...] = ()
    doing: str = ""
    ending: bool = False


@dataclass(frozen=True, slots=True)
class ProofReport:
    """A run that is over: `files` are its reports, `troubles` say what could not be undone or removed."""

    result: ProofResult
    files: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
