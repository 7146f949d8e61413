"""What is under the cursor of a pane: what to open, where to publish to, what to tail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmq_core.messaging.tap.source import TailSource
from dmq_tui.panes.pane import Pane
from dmq_tui.panes.tables import ExchangesPane, NodesPane, QueuesPane
from dmq_tui.panes.tail import TailPane

if TYPE_CHECKING:
    from dmq_tui.screens.details.pages import Subject


def subject_of(pane: Pane) -> Subject | None:
    """What is under the pane's cursor, by its key."""
    from dmq_tui.screens.details.pages import Subject, SubjectKind

    if isinstance(pane, NodesPane) and (node := pane.table.cursor_item) is not None:
        return Subject(SubjectKind.NODE, node.name)
    if isinstance(pane, ExchangesPane) and (exchange := pane.table.cursor_item) is not None:
        return Subject(SubjectKind.EXCHANGE, exchange.figures.name, exchange.figures.vhost)
    if isinstance(pane, QueuesPane) and (queue := pane.table.cursor_item) is not None:
        return Subject(SubjectKind.QUEUE, queue.view.figures.name, queue.view.figures.vhost)
    return None


def target_of(pane: Pane) -> tuple[str, str, str]:
    """Exchange, routing key and virtual host that a message from this pane would go to at first."""
    if isinstance(pane, ExchangesPane) and (exchange := pane.table.cursor_item) is not None:
        return exchange.figures.name, "", exchange.figures.vhost
    if isinstance(pane, QueuesPane) and (queue := pane.table.cursor_item) is not None:
        return "", queue.view.figures.name, queue.view.figures.vhost
    if isinstance(pane, TailPane) and pane.source is not None:
        return pane.source.exchange or "", pane.source.queue or "", pane.source.virtual_host
    return "", "", "/"


def source_of(pane: Pane) -> TailSource | None:
    """What a tail of the row under the pane's cursor would look at; the default exchange only by the firehose."""
    if isinstance(pane, ExchangesPane):
        exchange = pane.table.cursor_item
        if exchange is None:
            return None
        name = exchange.figures.name or None
        return TailSource(exchange=name, virtual_host=exchange.figures.vhost)
    if isinstance(pane, QueuesPane):
        queue = pane.table.cursor_item
        return (
            None if queue is None else TailSource(queue=queue.view.figures.name, virtual_host=queue.view.figures.vhost)
        )
    return None
