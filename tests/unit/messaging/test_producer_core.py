"""Every publish ends in exactly one outcome, whatever the broker says and whenever it goes."""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from doubles import FakeChannel, FakeConnection
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dmq_core.errors import BadInput, MessagingFailed, TimedOut
from dmq_core.messaging.frames import Content
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage
from dmq_core.messaging.producer import Handle, Producer, ProducerLimits
from dmq_core.messaging.reasons import CloseReason, Cure
from dmq_core.messaging.states import ConnectionState
from dmq_core.messaging.wire import ID_HEADER


def made(**limits: Any) -> tuple[FakeConnection, Producer, list[Handle]]:
    connection, settled = FakeConnection(), []
    producer = Producer(connection, ProducerLimits(**limits), settled.append)  # type: ignore[arg-type]  # a double
    return connection, producer, settled


def message(key: str = "q", body: bytes = b"body", exchange: str = "") -> OutgoingMessage:
    return OutgoingMessage(exchange, key, body)


def send_back(channel: FakeChannel, index: int) -> None:
    """Has the broker return the message that was published as number `index` on `channel`."""
    frames = channel.published[index].frames
    header = 8 + struct.unpack_from(">BHI", frames)[2]
    size = struct.unpack_from(">BHI", frames, header)[2]
    raw = frames[header + 7 + 12 : header + 7 + size]
    channel.sink.returned(Content("", "q", raw, b"body", code=312, text="NO_ROUTE"))


class AnyLife(RuleBasedStateMachine):
    """Publishes, answers, returns, blocks, losses, lost confirms and a final close in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.connection: FakeConnection | None = None

    @initialize(republish=st.booleans(), mode=st.sampled_from(["park", "fail"]))
    def make(self, republish: bool, mode: str) -> None:
        self.connection, self.producer, self.settled = made(
            messages=30, window=8, room_s=0.0, republish=republish, while_recovering=mode, confirm_limit_s=5.0
        )
        self.republish = republish
        self.handles: list[Handle] = []
        self.channel: FakeChannel | None = None
        self.old: list[FakeChannel] = []
        self.confirmed_on: dict[Handle, FakeChannel] = {}
        self.closed = False

    @precondition(lambda self: not self.closed)
    @rule(size=st.integers(0, 3), own_id=st.booleans())
    def publish(self, size: int, own_id: bool) -> None:
        properties = MessageProperties(message_id="same" if own_id else None)
        self.handles.append(self.producer.send("", "q", b"x" * size, properties))

    @rule()
    def io_turn(self) -> None:
        self.connection.turn()

    @precondition(lambda self: not self.closed and self.channel is None)
    @rule(number=st.integers(2, 3))
    def connect(self, number: int) -> None:
        self.connection.status = replace(self.connection.status, state=ConnectionState.OPEN, problem="")
        self.channel = self.connection.open(number)

    @precondition(lambda self: self.channel is not None)
    @rule(channel_only=st.booleans())
    def lose(self, channel_only: bool) -> None:
        self.old.append(self.channel)
        self.channel = None
        if not channel_only:
            self.connection.status = replace(self.connection.status, state=ConnectionState.RECOVERING, problem="gone")
        self.connection.lose()

    @precondition(lambda self: self.channel is not None)
    @rule(answers=st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.booleans()), max_size=4))
    def answer(self, answers: list[tuple[int, bool, bool]]) -> None:
        """One read of the socket may bring several answers."""
        for tag, multiple, good in answers:
            (self.channel.sink.acked if good else self.channel.sink.nacked)(tag, multiple)
        self.channel.sink.read_ended()

    @precondition(lambda self: self.channel is not None)
    @rule(tag=st.integers(1, 12))
    def lose_right_after_an_answer(self, tag: int) -> None:
        """The answer and the close come in one read, whose end is told only after the close."""
        channel, before = self.channel, len(self.settled)
        open_ones = [handle for handle in channel.published if handle.settlement is None]
        channel.sink.acked(tag, False)
        self.lose(channel_only=True)
        channel.sink.read_ended()
        if 0 < tag <= len(channel.published) and channel.published[tag - 1] in open_ones:
            assert channel.published[tag - 1].settlement.outcome in (Outcome.CONFIRMED, Outcome.RETURNED)
            assert len(self.settled) > before

    @precondition(lambda self: self.old)
    @rule(tag=st.integers(0, 12))
    def answer_from_the_past(self, tag: int) -> None:
        before = len(self.settled)
        self.old[-1].confirm(tag, multiple=True)
        assert len(self.settled) == before

    @precondition(lambda self: self.channel is not None and self.channel.published)
    @rule(index=st.integers(0, 20))
    def send_one_back(self, index: int) -> None:
        send_back(self.channel, index % len(self.channel.published))

    @precondition(lambda self: self.old and self.old[-1].published)
    @rule(index=st.integers(0, 20))
    def send_one_back_from_the_past(self, index: int) -> None:
        send_back(self.old[-1], index % len(self.old[-1].published))

    @precondition(lambda self: self.channel is not None)
    @rule(blocked=st.booleans())
    def block(self, blocked: bool) -> None:
        self.connection.user.flow_changed(blocked)

    @precondition(lambda self: self.handles)
    @rule(index=st.integers(0, 40))
    def give_up_waiting(self, index: int) -> None:
        handle = self.handles[index % len(self.handles)]
        had = handle.settlement
        settlement = self.producer.settle(handle, 0.0)
        assert settlement == had or had is None

    @precondition(lambda self: self.channel is not None)
    @rule()
    def a_confirm_never_comes(self) -> None:
        later = time.monotonic() + 6.0
        self.channel.sink.acked(12, False)
        self.producer._patience_s = 60.0
        assert self.producer.overdue(later) == ""
        if ("close",) in self.channel.sent:
            self.lose(channel_only=True)

    @precondition(lambda self: not self.closed)
    @rule()
    def close(self) -> None:
        self.closed = True
        self.channel = None
        self.connection.end()

    @invariant()
    def each_handle_settled_at_most_once_and_was_told(self) -> None:
        if self.connection is None:
            return
        assert len(self.settled) == len({id(h) for h in self.settled})
        assert {id(h) for h in self.settled} == {id(h) for h in self.handles if h.settlement is not None}
        assert 0 <= self.producer.outstanding <= 30

    @invariant()
    def nothing_is_sent_twice_unless_asked_for_and_what_was_not_sent_never_left(self) -> None:
        if self.connection is None:
            return
        channels = [*self.old, *([self.channel] if self.channel else [])]
        sent = Counter(handle for channel in channels for handle in channel.published)
        assert self.republish or all(times == 1 for times in sent.values())
        for handle in self.settled:
            settlement = handle.settlement
            assert (settlement.sends == 0) == (settlement.outcome is Outcome.NOT_SENT)
            assert handle not in sent or settlement.outcome is not Outcome.NOT_SENT

    def teardown(self) -> None:
        if self.connection is None:
            return
        if not self.closed:
            self.connection.end()
        assert all(h.settlement is not None for h in self.handles)
        assert self.producer.outstanding == 0
        assert self.producer._bytes == 0
        assert self.producer._sent_before == {}


TestAnyLife = AnyLife.TestCase


def test_what_waits_without_a_node_is_not_sent_and_what_was_on_the_wire_is_unknown() -> None:
    connection, producer, _ = made()
    channel = connection.open()
    on_the_wire = producer.publish(message())
    connection.turn()
    assert len(channel.published) == 1
    connection.lose()
    waiting = producer.publish(message())
    connection.turn()
    connection.end()
    assert on_the_wire.wait(0).outcome is Outcome.UNKNOWN
    assert waiting.wait(0).outcome is Outcome.NOT_SENT


def test_what_waits_is_sent_once_a_node_is_back_and_what_was_unknown_is_not_sent_again() -> None:
    connection, producer, _ = made()
    connection.open()
    producer.publish(message("first"))
    connection.turn()
    connection.lose()
    later = producer.publish(message("second"))
    channel = connection.open()
    assert [h.routing_key for h in channel.published] == ["second"]
    channel.confirm(1)
    assert later.wait(0).outcome is Outcome.CONFIRMED


def test_a_returned_message_is_told_from_its_neighbours_though_they_share_an_id() -> None:
    connection, producer, _ = made()
    channel = connection.open()
    twins = [
        producer.publish(OutgoingMessage("", key, b"", MessageProperties(message_id="same"))) for key in ("a", "b", "c")
    ]
    connection.turn()
    send_back(channel, 1)
    channel.confirm(3, multiple=True)
    assert [t.wait(0).outcome for t in twins] == [Outcome.CONFIRMED, Outcome.RETURNED, Outcome.CONFIRMED]
    assert "NO_ROUTE" in twins[1].wait(0).reason
    first, second = (handle.sent_properties for handle in channel.published[1:])
    assert first.message_id == second.message_id == "same"
    assert first.headers[ID_HEADER] != second.headers[ID_HEADER]


def test_a_message_for_an_exchange_that_is_missing_fails_alone() -> None:
    connection, producer, _ = made()
    channel = connection.open()
    before, bad, after = (producer.publish(message(exchange=x)) for x in ("good", "gone", "good"))
    connection.turn()
    channel.confirm(1)
    connection.lose(CloseReason(Cure.RECOVER, "NOT_FOUND - no exchange 'gone' in vhost '/'", 404))
    channel = connection.open()
    channel.confirm(1)
    assert before.wait(0).outcome is Outcome.CONFIRMED
    assert bad.wait(0).outcome is Outcome.NACKED
    assert after.wait(0).outcome is Outcome.CONFIRMED, "the broker never looked at it, so it was sent again"
    assert len(channel.published) == 1


def test_a_message_that_does_not_fit_the_frames_of_the_next_node_takes_no_tag_from_the_others() -> None:
    connection, producer, _ = made()
    bad = producer.send("", "q", b"", MessageProperties(headers={"long": "x" * 5000}))
    good = producer.publish(message())
    channel = connection.open(frame_limit=4088)
    channel.confirm(1)
    assert bad.wait(0).outcome is Outcome.NOT_SENT
    assert "4088 bytes" not in bad.wait(0).reason
    assert "the properties and headers take" in bad.wait(0).reason
    assert good.wait(0).outcome is Outcome.CONFIRMED


def test_bad_input_is_raised_and_leaves_nothing_behind() -> None:
    _, producer, settled = made()
    with pytest.raises(BadInput, match="routing key is 300 bytes"):
        producer.publish(message("k" * 300))
    with pytest.raises(BadInput, match="headers"):
        producer.publish(OutgoingMessage("", "q", b"", MessageProperties(headers={"x": object()})))
    assert producer.outstanding == 0
    assert settled == []


def test_while_the_broker_blocks_messages_wait_where_they_have_not_left() -> None:
    connection, producer, _ = made()
    channel = connection.open()
    connection.user.flow_changed(True)
    handle = producer.publish(message())
    connection.turn()
    assert channel.published == []
    connection.user.flow_changed(False)
    assert len(channel.published) == 1
    channel.confirm(1)
    assert handle.wait(0).outcome is Outcome.CONFIRMED


@pytest.mark.parametrize(("limit", "bodies"), [({"messages": 3}, [b""] * 4), ({"body_bytes": 10}, [b"12345"] * 3)])
def test_without_room_in_time_a_message_is_not_sent(limit: dict[str, int], bodies: list[bytes]) -> None:
    _, producer, settled = made(room_s=0.01, **limit)
    handles = [producer.publish(message(body=body)) for body in bodies]
    assert [h.settlement is not None for h in handles] == [False] * (len(bodies) - 1) + [True]
    assert handles[-1].wait(0).outcome is Outcome.NOT_SENT
    assert settled == handles[-1:]


def test_one_message_larger_than_the_bound_goes_alone_rather_than_never() -> None:
    connection, producer, _ = made(body_bytes=10, room_s=0.01)
    connection.open()
    handle = producer.publish(message(body=b"x" * 100))
    connection.turn()
    assert handle.settlement is None
    assert producer.publish(message(body=b"y")).wait(0).outcome is Outcome.NOT_SENT


def test_a_publish_that_waits_for_room_goes_on_when_a_confirm_makes_some() -> None:
    connection, producer, _ = made(messages=1, room_s=20.0)
    channel = connection.open()
    producer.publish(message())
    connection.turn()
    second: list[Handle] = []
    thread = threading.Thread(target=lambda: second.append(producer.publish(message())))
    thread.start()
    channel.confirm(1)
    thread.join(10)
    assert len(second) == 1


def test_the_window_bounds_what_is_on_the_wire() -> None:
    connection, producer, _ = made(window=2)
    channel = connection.open()
    for _ in range(5):
        producer.publish(message())
    connection.turn()
    assert len(channel.published) == 2
    channel.confirm(2, multiple=True)
    connection.turn()
    assert len(channel.published) == 4


def test_waiting_without_an_answer_gives_not_sent_or_unknown_and_a_late_confirm_changes_nothing() -> None:
    connection, producer, settled = made()
    assert producer.publish_and_wait(message(), 0.02).outcome is Outcome.NOT_SENT
    channel = connection.open()
    # The turn of the I/O thread comes while the caller waits.
    threading.Timer(0.05, connection.turn).start()
    assert producer.publish_and_wait(message(), 0.5).outcome is Outcome.UNKNOWN
    channel.confirm(1)
    assert [h.wait(0).outcome for h in settled] == [Outcome.NOT_SENT, Outcome.UNKNOWN]
    assert producer.outstanding == 0


def test_a_handle_without_outcome_times_out_and_stays_open() -> None:
    connection, producer, _ = made()
    handle = producer.publish(message())
    with pytest.raises(TimedOut):
        handle.wait(0.01)
    channel = connection.open()
    channel.confirm(1)
    assert handle.wait(0).outcome is Outcome.CONFIRMED


def test_after_the_end_nothing_is_taken_on() -> None:
    connection, producer, _ = made()
    connection.end()
    with pytest.raises(MessagingFailed, match="closed"):
        producer.publish(message())
    producer.close(0.01)
    producer.close(0.01)


def test_a_callback_cannot_wait_for_its_own_thread() -> None:
    connection, producer, _ = made(messages=1)
    handle = producer.publish(message())
    connection.on_io_thread = True
    assert producer.publish(message()).wait(0).outcome is Outcome.NOT_SENT, "it must not wait for room either"
    with pytest.raises(MessagingFailed, match="cannot wait"):
        handle.wait(1)
    with pytest.raises(MessagingFailed, match="cannot wait"):
        producer.flush(1)


def test_a_node_that_confirms_nothing_is_overdue_but_not_while_it_blocks() -> None:
    connection, producer, _ = made(confirm_s=5.0)
    connection.open()
    producer.publish(message())
    connection.turn()
    assert not producer.at_rest()
    now = time.monotonic()
    assert producer.overdue(now + 4.0) == ""
    assert "no confirm for" in producer.overdue(now + 6.0)
    connection.user.flow_changed(True)
    assert producer.overdue(now + 60.0) == ""
