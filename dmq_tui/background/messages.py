"""What background threads tell the console; nothing else crosses from them to the UI thread."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from dmq_core.actions.action import Action
from dmq_core.cluster.faults.model import Fault
from dmq_core.errors import DmqError
from dmq_core.observe.events import Event
from dmq_core.observe.snapshot import ClusterSnapshot
from dmq_core.progress import Progress
from dmq_core.proof.progress import LoadAccount, ProofReport
from dmq_core.session.protocol import Observer, Proof, Session, Tail
from dmq_tui.background.undo_all import UndoAll


@dataclass
class SessionReady(Message):
    """The session is there; `whole` tells whether its cluster has a node to look at."""

    session: Session
    nodes_up: bool


@dataclass
class SessionFailed(Message):
    """There is no session, and why."""

    error: DmqError


@dataclass
class ObserverStarted(Message):
    """The session is being observed from now on."""

    observer: Observer


@dataclass
class SnapshotArrived(Message):
    """The cluster as it is now; the newest replaces those that still wait."""

    snapshot: ClusterSnapshot

    def can_replace(self, message: Message) -> bool:
        """Whether `message`, which waits behind this one, makes it void."""
        return isinstance(message, SnapshotArrived)


@dataclass
class EventsArrived(Message):
    """Entries for the story, in time order."""

    events: tuple[Event, ...]


@dataclass
class TailStarted(Message):
    """The tail of this epoch runs."""

    epoch: int
    tail: Tail


@dataclass
class MessagesSeen(Message):
    """Messages wait in the mailbox of the tail."""

    epoch: int


@dataclass
class LoadStarted(Message):
    """The load runs."""

    load: Proof


@dataclass
class LoadEnded(Message):
    """The load is over; its final account, and what it leaves."""

    account: LoadAccount
    report: ProofReport


@dataclass
class ActionProgressed(Message):
    """An action goes on."""

    action: Action | UndoAll
    progress: Progress


@dataclass
class ActionFinished(Message):
    """An action ended after `seconds`: it is done, and `undo` undoes it (None: nothing does), or the error."""

    action: Action | UndoAll
    seconds: float
    undo: Action | None = None
    error: DmqError | None = None


@dataclass
class ActiveFaultsRead(Message):
    """The active faults, as the nodes tell."""

    faults: tuple[Fault, ...]


@dataclass
class WorkFailed(Message):
    """Something in the background was not possible; `title` says what was wanted."""

    title: str
    error: DmqError
