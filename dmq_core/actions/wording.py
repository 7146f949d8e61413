"""How an impact is told to people, in the command line and in the console alike; pure."""

from __future__ import annotations

from dataclasses import dataclass

from dmq_core.actions.impact import Impact
from dmq_core.cluster.protocol import NodeState
from dmq_core.majority import Margin, spare
from dmq_core.observe.snapshot import NodeView


@dataclass(frozen=True, slots=True)
class ImpactSentence:
    """One sentence; `margin` is there where it tells of the majority."""

    text: str
    margin: Margin | None = None


def sentences_of(impact: Impact) -> tuple[ImpactSentence, ...]:
    """`impact` in sentences, in the order in which people want to know; names in them are raw."""
    clients = (
        "" if impact.clients is None else f"It concerns all {_count(impact.clients, 'connection')} of the cluster."
    )
    expected = f"Expected: {impact.expected[:1].lower()}{impact.expected[1:]}" if impact.expected else ""
    target = "" if impact.target is None else _target_sentence(impact.target)
    told = (
        ImpactSentence(impact.summary),
        ImpactSentence(target),
        ImpactSentence("" if impact.members is None else f"It has {_count(impact.members, 'queue member')}."),
        ImpactSentence(clients),
        ImpactSentence(_majority_sentence(impact), impact.margin),
        ImpactSentence(expected),
        ImpactSentence(impact.ending),
    )
    return tuple(sentence for sentence in told if sentence.text)


def text_of(impact: Impact) -> str:
    """`impact` as one line."""
    return " ".join(sentence.text for sentence in sentences_of(impact))


def quorum_words(present: int, total: int) -> str:
    """`quorum OK, can lose 1 node`, for so many nodes that count of `total`."""
    left = spare(present, total)
    if left < 0:
        return "no majority"
    return f"quorum OK, can lose {_count(left, 'node')}" if left else "quorum OK, cannot lose another"


def _majority_sentence(impact: Impact) -> str:
    if impact.counted is None:
        return ""
    lost = ", quorum queues stop taking messages until nodes return" if impact.margin is Margin.NO_MAJORITY else ""
    words = quorum_words(impact.remaining, impact.total)
    return f"{impact.remaining} of {impact.total} nodes {impact.counted}: {words}{lost}."


def _target_sentence(node: NodeView) -> str:
    if node.state is not NodeState.RUNNING:
        return f"{node.name} is {node.state} now."
    leads = "an unknown number of queues" if node.leads is None else _count(node.leads, "queue")
    clients = "" if node.connections is None else f" and serves {_count(node.connections, 'connection')}"
    return f"{node.name} leads {leads}{clients}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
