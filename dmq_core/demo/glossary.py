"""What RabbitMQ's words mean, each in one sentence or two; demos explain them where they appear."""

from __future__ import annotations

from typing import Final

TERMS: Final = {
    "acknowledgement": "A consumer's word that it is done with a message; only then does the queue forget it.",
    "alarm": "A node that runs out of memory or disk blocks every publisher of the cluster until it has room again.",
    "back-off": "Waiting longer after each failure before the next attempt.",
    "back-pressure": "Slowing the sender down because the receiver cannot keep up.",
    "binding": "A rule that says which messages an exchange copies to a queue.",
    "classic queue": "A queue that lives on one node; when that node is down, so is the queue.",
    "consumer": "A client that is sent the messages of a queue.",
    "dead letter": "A message that a queue gave up on: rejected, too old, or returned too often; it goes elsewhere.",
    "deduplication": "Knowing a message again by its id, so that it is handled once, however often it comes.",
    "delivery": "A message sent to a consumer; it stays in the queue, unacknowledged, until the consumer answers.",
    "delivery limit": "How often a quorum queue hands a message out again before it dead-letters it.",
    "drain": "A node in maintenance gives its leaders away, closes its clients and takes no new ones.",
    "durable": "An exchange or queue that is still there after the broker was restarted.",
    "election": "The members of a quorum queue agree on a new leader when they hear no more of the old one.",
    "exchange": "Where publishers send; it keeps nothing, and copies each message to the queues that its bindings say.",
    "feature flag": "A change that stays off until every node knows it and somebody enables it, which is for good.",
    "headers exchange": "An exchange that routes by the headers of a message instead of its routing key.",
    "leader": "The one member of a quorum queue that takes publishes and hands messages out; the others follow it.",
    "majority": "More than half of the members; a quorum queue works as long as so many can talk to each other.",
    "mandatory": "A publisher's wish to get a message back if no queue wants it.",
    "member": "A node's copy of a quorum queue.",
    "nack": "The broker's word that it did not take a message: a negative acknowledgement.",
    "offset": "The place of a message in a stream, counted from 0.",
    "partition": "Nodes that run and cannot reach each other.",
    "persistent": "A message that the broker writes to disk, so that it outlives a restart in a durable queue.",
    "prefetch": "How many unacknowledged messages a consumer may hold at once.",
    "publisher confirm": "The broker's word that it has taken over a message; before it, nobody knows.",
    "queue": "Where messages wait, in order, until consumers are done with them.",
    "quorum queue": "A queue with a copy on several nodes; a publish is confirmed once a majority has it on disk.",
    "redelivery": "A delivery of a message that was delivered before; it carries a flag that says so.",
    "rolling restart": "Nodes are restarted one after the other, so that the cluster goes on serving.",
    "routing key": "A word that a publisher puts on a message and that an exchange routes by.",
    "single active consumer": "A queue that serves one of its consumers alone; the next takes over when that one goes.",
    "stream": "A log on several nodes that keeps what was read, so that anybody can read it again.",
    "unknown outcome": "The connection broke before a confirm came: the broker may have the message, or not.",
}


def meaning(term: str) -> str:
    """What `term` means; `KeyError` if nobody wrote it down."""
    return TERMS[term]
