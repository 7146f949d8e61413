"""How a test makes a fake misbehave: the next call of a method fails, or calls of it wait until they are let go."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from dmq_core.errors import DmqError, OperationTimeoutError

_LONGEST_HOLD_S = 30.0


class ScriptedFailures:
    """What a fake will do wrong; methods are named as in the protocol, `boot rmq2` names one node's boot.

    >>> from dmq_core.errors import ClusterError
    >>> from dmq_core.testing import FakeSession
    >>> session = FakeSession(started=False)
    >>> session.script.fail_next("boot rmq2", ClusterError("rmq2 does not boot"))
    >>> session.start_cluster()
    Traceback (most recent call last):
    dmq_core.errors.ClusterError: rmq2 does not boot
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: dict[str, deque[DmqError]] = {}
        self._gates: dict[str, threading.Event] = {}
        self.calls: list[str] = []

    def fail_next(self, method: str, error: DmqError) -> None:
        """The next call of `method` raises `error`; several queue up."""
        with self._lock:
            self._failures.setdefault(method, deque()).append(error)

    @contextmanager
    def hold(self, method: str) -> Iterator[threading.Event]:
        """Calls of `method` wait while the block runs, or until the event that it gives is set; at most 30 s."""
        gate = threading.Event()
        with self._lock:
            self._gates[method] = gate
        try:
            yield gate
        finally:
            gate.set()
            with self._lock:
                self._gates.pop(method, None)

    def enter(self, method: str) -> None:
        """Called by a fake as `method` begins: notes the call, waits while it is held, raises what was queued."""
        with self._lock:
            self.calls.append(method)
            gate = self._gates.get(method)
        if gate is not None and not gate.wait(_LONGEST_HOLD_S):
            raise OperationTimeoutError(
                f"{method} was held for more than {_LONGEST_HOLD_S:.0f} s", "Let it go earlier in the test."
            )
        with self._lock:
            failures = self._failures.get(method)
            error = failures.popleft() if failures else None
        if error is not None:
            raise error
