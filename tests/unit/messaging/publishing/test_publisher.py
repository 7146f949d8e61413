"""Every publish ends in exactly one outcome, whatever the broker says and whenever it goes."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fake_connection import HERE, FakeChannel, FakeConnection
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dmq_core.endpoints import Credentials
from dmq_core.errors import InvalidInputError, MessagingError, OperationTimeoutError
from dmq_core.messaging.amqp.frames import Content
from dmq_core.messaging.amqp.wire import ID_HEADER
from dmq_core.messaging.connection.connection import Connection
from dmq_core.messaging.connection.states import ConnectionState
from dmq_core.messaging.messages import MessageProperties, Outcome, OutgoingMessage
from dmq_core.messaging.publishing.publisher import ProducerLimits, Publisher, PublishFuture
from dmq_core.messaging.transport.close_reason import CloseReason, RecoveryAction


def made(**limits: Any) -> tuple[FakeConnection, Publisher, list[PublishFuture]]:
    connection, settled = FakeConnection(), []
    producer = Publisher(connection, ProducerLimits(**limits), settled.append)  # type: ignore[arg-type]  # a double
    return connection, producer, settled


def message(key: str = "q", body: bytes = b"body", exchange: str = "") -> OutgoingMessage:
    return OutgoingMessage(exchange, key, body)


def send_back(channel: FakeChannel, index: int) -> None:
    """Has the broker return the message that was published as number `index` on `channel`."""
    frames = channel.frames[index]
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
            messages=30,
            window=8,
            capacity_timeout_s=0.0,
            republish=republish,
            while_recovering=mode,
            confirm_limit_s=5.0,
        )
        self.republish = republish
        self.handles: list[PublishFuture] = []
        self.channel: FakeChannel | None = None
        self.old: list[FakeChannel] = []
        self.confirmed_on: dict[PublishFuture, FakeChannel] = {}
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
        open_ones = [handle for handle in channel.published if not handle.done()]
        channel.sink.acked(tag, False)
        self.lose(channel_only=True)
        channel.sink.read_ended()
        if 0 < tag <= len(channel.published) and channel.published[tag - 1] in open_ones:
            assert channel.published[tag - 1].result().outcome in (Outcome.CONFIRMED, Outcome.RETURNED)
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
        had = handle.result() if handle.done() else None
        result = self.producer.result_or_give_up(handle, 0.0)
        assert result == had or had is None

    @precondition(lambda self: self.channel is not None)
    @rule()
    def a_confirm_never_comes(self) -> None:
        later = time.monotonic() + 6.0
        self.channel.sink.acked(12, False)
        for quarter in range(24):
            self.producer.overdue(later + quarter / 4)
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
        assert {id(h) for h in self.settled} == {id(h) for h in self.handles if h.done()}
        assert 0 <= self.producer.outstanding <= 30

    @invariant()
    def nothing_is_sent_twice_unless_asked_for_and_what_was_not_sent_never_left(self) -> None:
        if self.connection is None:
            return
        channels = [*self.old, *([self.channel] if self.channel else [])]
        sent = Counter(handle for channel in channels for handle in channel.published)
        assert self.republish or all(times == 1 for times in sent.values())
        for handle in self.settled:
            result = handle.result()
            assert (result.sends == 0) == (result.outcome is Outcome.NOT_SENT)
            assert handle not in sent or result.outcome is not Outcome.NOT_SENT

    def teardown(self) -> None:
        if self.connection is None:
            return
        if not self.closed:
            self.connection.end()
        assert all(h.done() for h in self.handles)
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
    assert on_the_wire.result(0).outcome is Outcome.UNKNOWN
    assert waiting.result(0).outcome is Outcome.NOT_SENT


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
    assert later.result(0).outcome is Outcome.CONFIRMED


def test_a_returned_message_is_told_from_its_neighbours_though_they_share_an_id() -> None:
    connection, producer, _ = made()
    channel = connection.open()
    twins = [
        producer.publish(OutgoingMessage("", key, b"", MessageProperties(message_id="same"))) for key in ("a", "b", "c")
    ]
    connection.turn()
    send_back(channel, 1)
    channel.confirm(3, multiple=True)
    assert [t.result(0).outcome for t in twins] == [Outcome.CONFIRMED, Outcome.RETURNED, Outcome.CONFIRMED]
    assert "NO_ROUTE" in twins[1].result(0).reason
    first, second = (handle.sent_properties for handle in channel.published[1:])
    assert first.message_id == second.message_id == "same"
    assert first.headers[ID_HEADER] != second.headers[ID_HEADER]


def test_a_message_for_an_exchange_that_is_missing_fails_alone() -> None:
    connection, producer, _ = made()
    channel = connection.open()
    before, bad, after = (producer.publish(message(exchange=x)) for x in ("good", "gone", "good"))
    connection.turn()
    channel.confirm(1)
    connection.lose(CloseReason(RecoveryAction.RECOVER, "NOT_FOUND - no exchange 'gone' in vhost '/'", 404))
    channel = connection.open()
    channel.confirm(1)
    assert before.result(0).outcome is Outcome.CONFIRMED
    assert bad.result(0).outcome is Outcome.NACKED
    assert after.result(0).outcome is Outcome.CONFIRMED, "the broker never looked at it, so it was sent again"
    assert len(channel.published) == 1


def test_a_message_that_does_not_fit_the_frames_of_the_next_node_takes_no_tag_from_the_others() -> None:
    connection, producer, _ = made()
    bad = producer.send("", "q", b"", MessageProperties(headers={"long": "x" * 5000}))
    good = producer.publish(message())
    channel = connection.open(frame_limit=4088)
    channel.confirm(1)
    assert bad.result(0).outcome is Outcome.NOT_SENT
    assert "4088 bytes" not in bad.result(0).reason
    assert "the properties and headers take" in bad.result(0).reason
    assert good.result(0).outcome is Outcome.CONFIRMED


def test_bad_input_is_raised_and_leaves_nothing_behind() -> None:
    _, producer, settled = made()
    with pytest.raises(InvalidInputError, match="routing key is 300 bytes"):
        producer.publish(message("k" * 300))
    with pytest.raises(InvalidInputError, match="headers"):
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
    assert handle.result(0).outcome is Outcome.CONFIRMED


@pytest.mark.parametrize(("limit", "bodies"), [({"messages": 3}, [b""] * 4), ({"body_bytes": 10}, [b"12345"] * 3)])
def test_without_room_in_time_a_message_is_not_sent(limit: dict[str, int], bodies: list[bytes]) -> None:
    _, producer, settled = made(capacity_timeout_s=0.01, **limit)
    handles = [producer.publish(message(body=body)) for body in bodies]
    assert [h.done() for h in handles] == [False] * (len(bodies) - 1) + [True]
    assert handles[-1].result(0).outcome is Outcome.NOT_SENT
    assert settled == handles[-1:]


def test_one_message_larger_than_the_bound_goes_alone_rather_than_never() -> None:
    connection, producer, _ = made(body_bytes=10, capacity_timeout_s=0.01)
    connection.open()
    handle = producer.publish(message(body=b"x" * 100))
    connection.turn()
    assert not handle.done()
    assert producer.publish(message(body=b"y")).result(0).outcome is Outcome.NOT_SENT


def test_a_publish_that_waits_for_room_goes_on_when_a_confirm_makes_some() -> None:
    connection, producer, _ = made(messages=1, capacity_timeout_s=20.0)
    channel = connection.open()
    producer.publish(message())
    connection.turn()
    second: list[PublishFuture] = []
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
    assert [h.result(0).outcome for h in settled] == [Outcome.NOT_SENT, Outcome.UNKNOWN]
    assert producer.outstanding == 0


def test_a_handle_without_outcome_times_out_and_stays_open() -> None:
    connection, producer, _ = made()
    handle = producer.publish(message())
    with pytest.raises(OperationTimeoutError):
        handle.result(0.01)
    channel = connection.open()
    channel.confirm(1)
    assert handle.result(0).outcome is Outcome.CONFIRMED


def test_after_the_end_nothing_is_taken_on() -> None:
    connection, producer, _ = made()
    connection.end()
    with pytest.raises(MessagingError, match="closed"):
        producer.publish(message())
    producer.close(0.01)
    producer.close(0.01)


def test_a_callback_cannot_wait_for_its_own_thread() -> None:
    connection, producer, _ = made(messages=1)
    handle = producer.publish(message())
    connection.on_io_thread = True
    assert producer.publish(message()).result(0).outcome is Outcome.NOT_SENT, "it must not wait for room either"
    with pytest.raises(MessagingError, match="cannot wait"):
        handle.result(1)
    with pytest.raises(MessagingError, match="cannot wait"):
        producer.flush(1)


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def timed(**limits: Any) -> tuple[FakeConnection, Publisher, Clock]:
    """A producer whose broker's time a test decides."""
    connection, clock = FakeConnection(), Clock()
    connection.now = clock  # type: ignore[method-assign]
    return connection, Publisher(connection, ProducerLimits(**limits)), clock  # type: ignore[arg-type]  # a double


def ask_until(producer: Publisher, clock: Clock, seconds: float) -> tuple[str, float]:
    """Asks every quarter second whether the node is overdue, until it is; why, and after how many seconds."""
    for step in range(1, int(seconds * 4) + 1):
        clock.at += 0.25
        if why := producer.overdue(clock.at):
            return why, step / 4
    return "", seconds


def test_a_node_that_confirms_nothing_is_overdue_but_not_while_it_blocks() -> None:
    connection, producer, clock = timed()
    connection.open()
    producer.publish(message())
    connection.turn()
    assert not producer.is_idle()
    why, after = ask_until(producer, clock, 10)
    assert "no confirm for 2." in why
    assert after == 2.25
    connection.user.flow_changed(True)
    assert ask_until(producer, clock, 60)[0] == ""


def test_each_flight_in_a_row_waits_twice_as_long_until_something_is_confirmed() -> None:
    connection, producer, clock = timed()
    waits = []
    for flight in range(5):
        channel = connection.open()
        producer.publish(message())
        connection.turn()
        waits.append(ask_until(producer, clock, 20)[1])
        if flight == 3:
            channel.confirm(1)
        connection.lose()
    assert waits == [2.25, 4.25, 8.25, 10.25, 2.25]


def test_a_process_that_was_stopped_itself_does_not_blame_the_node() -> None:
    connection, producer, clock = timed()
    channel = connection.open()
    handle = producer.publish(message())
    connection.turn()
    clock.at += 3600
    assert producer.overdue(clock.at) == ""
    assert channel.is_open
    channel.confirm(1)
    assert handle.result(0).outcome is Outcome.CONFIRMED


def test_a_node_that_still_takes_bytes_is_not_frozen() -> None:
    connection, producer, clock = timed()
    channel = connection.open()
    producer.send("", "q", b"x" * 1_000_000)
    connection.turn()
    for unsent in range(40, 0, -1):
        channel.unsent = unsent
        assert ask_until(producer, clock, 0.25)[0] == ""
    assert "no confirm" in ask_until(producer, clock, 5)[0]


def test_a_confirm_that_never_comes_costs_the_channel_and_leaves_its_messages_unknown() -> None:
    connection, producer, clock = timed(confirm_limit_s=5.0)
    channel = connection.open()
    handles = [producer.publish(message()) for _ in range(40)]
    connection.turn()
    for quarter in range(24):
        assert ask_until(producer, clock, 0.25)[0] == ""
        if channel.is_open:
            channel.confirm(2 + quarter)
    assert not channel.is_open
    assert handles[0].result(0).outcome is Outcome.UNKNOWN
    assert "no confirm within 5 s" in handles[0].result(0).reason
    assert {h.result(0).outcome for h in handles[1:20]} == {Outcome.CONFIRMED}
    assert {h.result(0).outcome for h in handles[30:]} == {Outcome.UNKNOWN}
    channel.confirm(40, multiple=True)
    assert handles[0].result(0).outcome is Outcome.UNKNOWN, "a confirm that comes after all changes nothing"
    later = producer.publish(message())
    connection.turn()
    assert later not in channel.published
    connection.lose()
    connection.open().confirm(1)
    assert later.result(0).outcome is Outcome.CONFIRMED


def refuse(channel: FakeChannel, tag: int) -> None:
    channel.sink.nacked(tag, False)
    channel.sink.read_ended()


def test_a_channel_that_goes_on_refusing_is_changed_for_a_fresh_one_and_nothing_becomes_unknown() -> None:
    connection, producer, clock = timed()
    channel = connection.open()
    handles = [producer.publish(message()) for _ in range(4)]
    connection.turn()
    refuse(channel, 1)
    clock.at += 0.9
    refuse(channel, 2)
    clock.at += 0.1
    refuse(channel, 3)
    assert channel.is_open, "a message is still on its wire"
    later = producer.publish(message())
    connection.turn()
    assert later not in channel.published, "nothing more is sent on it"
    channel.confirm(4)
    assert not channel.is_open
    connection.lose()
    connection.open().confirm(1)
    assert [h.result(0).outcome for h in (*handles, later)] == [Outcome.NACKED] * 3 + [Outcome.CONFIRMED] * 2


def test_a_full_queue_costs_a_channel_only_now_and_then() -> None:
    connection, producer, clock = timed()
    channel, fresh = connection.open(), 0
    for _ in range(100):
        producer.publish(message())
        connection.turn()
        refuse(channel, len(channel.published))
        clock.at += 0.5
        if not channel.is_open:
            connection.lose()
            channel, fresh = connection.open(), fresh + 1
    assert fresh == 8, "each in a row waits twice as long, up to ten seconds"


def test_a_channel_that_does_not_close_is_left_with_its_node() -> None:
    connection, producer, clock = timed(confirm_s=60.0, confirm_limit_s=1.0)
    connection.open()
    producer.publish(message())
    connection.turn()
    assert ask_until(producer, clock, 100) == ("it does not close a channel", 61.5)


def test_sent_again_a_message_keeps_its_id_and_its_place_before_newer_ones() -> None:
    connection, producer, settled = made(republish=True)
    first_channel = connection.open()
    first, second = producer.publish(message("a")), producer.publish(message("b"))
    connection.turn()
    first_channel.confirm(1)
    connection.lose()
    assert not second.done()
    newer = producer.publish(message("c"))
    channel = connection.open(number=5)
    assert [h.routing_key for h in channel.published] == ["b", "c"]
    assert channel.published[0].sent_properties == first_channel.published[1].sent_properties
    channel.confirm(2, multiple=True)
    assert [h.result(0).outcome for h in (first, second, newer)] == [Outcome.CONFIRMED] * 3
    assert [h.result(0).sends for h in (first, second, newer)] == [1, 2, 1]
    assert settled == [first, second, newer]


def test_at_close_what_may_have_arrived_earlier_is_unknown_and_the_rest_not_sent() -> None:
    connection, producer, _ = made(republish=True)
    connection.open()
    sent = producer.publish(message())
    connection.turn()
    connection.lose()
    unsent = producer.publish(message())
    producer.close(0.01)
    assert (sent.result(0).outcome, sent.result(0).sends) == (Outcome.UNKNOWN, 1)
    assert (unsent.result(0).outcome, unsent.result(0).sends) == (Outcome.NOT_SENT, 0)


def test_who_asks_to_fail_at_once_waits_for_no_node() -> None:
    connection, producer, settled = made(while_recovering="fail")
    connection.status = replace(connection.status, problem="")
    early = producer.publish(message())
    assert not early.done(), "the first attempt may still succeed"
    channel = connection.open()
    assert channel.published == [early]
    connection.user.flow_changed(True)
    waiting = producer.publish(message())
    connection.status = replace(connection.status, state=ConnectionState.RECOVERING, problem="it was killed")
    connection.lose()
    assert early.result(0).outcome is Outcome.UNKNOWN
    assert waiting.result(0).outcome is Outcome.NOT_SENT
    at_once = producer.publish(message())
    assert at_once.result(0).outcome is Outcome.NOT_SENT
    assert "it was killed" in at_once.result(0).reason
    connection.status = replace(connection.status, state=ConnectionState.OPEN, problem="")
    channel = connection.open()
    good = producer.publish(message())
    connection.turn()
    channel.confirm(1)
    assert good.result(0).outcome is Outcome.CONFIRMED
    assert settled == [early, waiting, at_once, good]


def test_a_node_that_blocks_is_forgotten_with_its_channel() -> None:
    connection, producer, _ = made()
    connection.open()
    connection.user.flow_changed(True)
    connection.lose()
    producer.publish(message())
    connection.status = replace(connection.status, state=ConnectionState.OPEN)
    assert len(connection.open().published) == 1
    connection.lose()
    connection.status = replace(connection.status, state=ConnectionState.BLOCKED)
    producer.publish(message())
    assert connection.open().published == []


def test_a_returned_message_is_returned_even_if_its_confirm_is_lost() -> None:
    connection, producer, _ = made(republish=True)
    channel = connection.open()
    handle = producer.publish(message())
    connection.turn()
    send_back(channel, 0)
    connection.lose()
    assert handle.result(0).outcome is Outcome.RETURNED


def test_a_large_body_is_held_once_before_and_after_it_is_on_the_wire() -> None:
    connection, producer, _ = made()
    handle = producer.send("", "q", b"x" * 200_000)
    assert handle.frames == b""
    seen: list[int] = []
    channel = FakeChannel()
    channel.publish = lambda handles: seen.extend(len(h.frames) for h in handles)  # type: ignore[method-assign]
    connection.user.channel_opened(channel, HERE)
    assert seen[0] > 200_000
    assert handle.frames == b""


def test_a_thousand_messages_wake_the_io_thread_once() -> None:
    connection, producer, _ = made()
    connection.open()
    for _ in range(1000):
        producer.publish(message())
    assert len(connection.pending) == 1


def test_after_a_fork_a_producer_and_its_connection_refuse_what_they_are_asked() -> None:
    connection = Connection([HERE], Credentials(), "made before")
    _, producer, _ = made()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Nothing of the parent's test run may go on in here.
        try:
            said = [_refusal(call) for call in (lambda: producer.publish(message()), connection.start)]
            said += [_refusal(lambda: connection.call(lambda: None)), _refusal(lambda: connection.attach(producer))]
            connection.close()
            producer.close()
            os.write(writer, "\n".join(said).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        said = answers.read().splitlines()
    made_elsewhere = "the connection 'made before' was made in another process"
    assert said == ["the producer was made in another process", *[made_elsewhere] * 3]
    assert not producer.publish(message()).done(), "the parent goes on"


def _refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except MessagingError as error:
        return error.what
    return "no error"


@pytest.mark.parametrize(
    "limits",
    [
        {"messages": 0},
        {"window": 0},
        {"body_bytes": -1},
        {"capacity_timeout_s": -1.0},
        {"confirm_s": float("nan")},
        {"while_recovering": "hope"},
    ],
    ids=str,
)
def test_limits_under_which_nothing_could_be_published_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(limits))):
        ProducerLimits(**limits)
