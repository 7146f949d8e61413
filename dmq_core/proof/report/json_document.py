"""A proof run as JSON for scripts, and back, so that a report can be made anew from it; pure.

The fields that `dmq proof run` fixes come first and keep their names; the others may grow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from dmq_core.errors import InvalidInputError
from dmq_core.proof.result import (
    Account,
    Balance,
    Curves,
    Duplicates,
    ProofResult,
    Timeline,
    TimelineMark,
    Verdict,
    Workload,
)

_IDS: Final = ("lost", "unexpected", "leak", "phantom")
_TEXTS: Final = ("backend", "rabbitmq", "fault", "target", "node", "journal")
_NUMBERS: Final = ("max_confirm_gap_s", "max_delivery_gap_s", "began_at", "ended_at")


def contract_json(result: ProofResult) -> dict[str, Any]:
    """The report as what `json.dumps` takes."""
    account = result.account
    return {
        "verdict": result.verdict.value,
        "backend": result.backend,
        "rabbitmq": result.rabbitmq,
        "fault": result.fault,
        "target": result.target,
        "attempted": account.attempted,
        "confirmed": account.confirmed,
        "delivered": account.delivered,
        "redelivered": account.redelivered,
        "duplicates": asdict(account.duplicates),
        **{name: list(getattr(account, name)) for name in _IDS},
        "unknown": account.unknown,
        "order_violations": account.order_violations,
        "timeline": asdict(result.timeline),
        "max_confirm_gap_s": result.max_confirm_gap_s,
        "max_delivery_gap_s": result.max_delivery_gap_s,
        "reasons": list(result.reasons),
        "node": result.node,
        "nacked": account.nacked,
        "returned": account.returned,
        "not_sent": account.not_sent,
        "recovered": account.recovered,
        "workload": asdict(result.workload),
        "marks": [asdict(mark) for mark in result.marks],
        "curves": {
            "slice_s": result.curves.slice_s,
            "confirms": list(result.curves.confirms),
            "deliveries": list(result.curves.deliveries),
        },
        "began_at": result.began_at,
        "ended_at": result.ended_at,
        "seed": result.seed,
        "journal": result.journal,
        "counters": [asdict(balance) for balance in result.balances],
    }


def from_json(told: object) -> ProofResult:
    """The result that `contract_json` made this of; fields that are not known are passed over.

    `InvalidInputError` if it is no report.
    """
    try:
        return _result(_mapping(told))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            "this is no report of a proof run", "Give a file that `dmq proof run --report FILE.json` wrote."
        ) from error


def _result(told: Mapping[str, Any]) -> ProofResult:
    curves = _mapping(told["curves"])
    plain: dict[str, Any] = {name: _text(told[name]) for name in _TEXTS}
    plain.update({name: _number(told[name]) for name in _NUMBERS})
    return ProofResult(
        verdict=Verdict(told["verdict"]),
        reasons=_texts(told["reasons"]),
        workload=_workload(_mapping(told["workload"])),
        account=_account(told),
        timeline=Timeline(**{f.name: _seconds(told["timeline"].get(f.name)) for f in fields(Timeline)}),
        marks=tuple(TimelineMark(_number(m["at_s"]), _text(m["kind"]), _text(m["text"])) for m in told["marks"]),
        curves=Curves(
            _number(curves["slice_s"]),
            tuple(_number(rate) for rate in curves["confirms"]),
            tuple(_number(rate) for rate in curves["deliveries"]),
        ),
        seed=_count(told["seed"]),
        balances=tuple(_balance(_mapping(one)) for one in told.get("counters", ())),
        **plain,
    )


def _account(told: Mapping[str, Any]) -> Account:
    counts = [f.name for f in fields(Account) if f.name not in (*_IDS, "duplicates")]
    values: dict[str, Any] = {name: _count(told[name]) for name in counts}
    values.update({name: _texts(told[name]) for name in _IDS})
    duplicates = _mapping(told["duplicates"])
    return Account(**values, duplicates=Duplicates(**{f.name: _count(duplicates[f.name]) for f in fields(Duplicates)}))


def _balance(told: Mapping[str, Any]) -> Balance:
    return Balance(_text(told["what"]), *(_count(told[name]) for name in ("accounted", "counted", "allowed")))


def _workload(told: Mapping[str, Any]) -> Workload:
    usual = asdict(Workload())
    check: dict[type[Any], Callable[[object], Any]] = {float: _number, int: _count, str: _text}
    values: dict[str, Any] = {name: check[type(value)](told.get(name, value)) for name, value in usual.items()}
    return Workload(**values)


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError("not an object")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    return float(value)


def _seconds(value: object) -> float | None:
    return None if value is None else _number(value)


def _count(value: object) -> int:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return tuple(_text(part) for part in value)
