"""Calls in flight that somebody may cut off by saying something: those of models.

A call whose effects are outside, as a tool's, is never among them. A message cuts what is in flight when the worker
hears of it, once; what begins later has a chance to read it before.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from celery_agents.define.saying import CallInterrupted


class CuttableCall:
    """One call in flight. `was_cut` says that it is to end; its texts are what it has said so far."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.was_cut = False
        self._texts: list[str] = []
        self._end: Callable[[], object] | None = None
        self._lock = threading.Lock()

    def ends_by(self, end: Callable[[], object]) -> None:
        """From now on, `end` ends the call. It is called in any thread, and waits for nothing."""
        with self._lock:
            self._end = end
            was_cut = self.was_cut
        if was_cut:
            end()

    def cut(self) -> None:
        """End the call."""
        with self._lock:
            self.was_cut, end = True, self._end
        if end is not None:
            end()

    def says(self, delta: str) -> None:
        """The call has said this piece of text."""
        self._texts.append(delta)

    def interrupted(self, error: BaseException) -> CallInterrupted:
        """Return what the call ends with, in the place of the error that came of ending it."""
        if isinstance(error, CallInterrupted):  # the function has caught that it was cut, and knows its text
            return CallInterrupted(self.key, error.text or "".join(self._texts))
        return CallInterrupted(self.key, "".join(self._texts))


class CuttableCalls:
    """Those of one claim. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight: list[CuttableCall] = []
        # The ids of messages that have cut what there was, or that the agent has read.
        self._heeded: set[str] = set()

    @property
    def are_in_flight(self) -> bool:
        """Whether there is anything to cut."""
        return bool(self._in_flight)

    @contextmanager
    def call(self, key: str) -> Iterator[CuttableCall]:
        """A call is made in this block."""
        call = CuttableCall(key)
        with self._lock:
            self._in_flight.append(call)
        try:
            yield call
        finally:
            with self._lock:
                self._in_flight.remove(call)

    def says(self, key: str, delta: str) -> None:
        """The step of this key has said a piece of text."""
        if not self._in_flight:
            return
        with self._lock:
            for call in self._in_flight:
                if call.key == key:
                    call.says(delta)

    def cut(self, message_ids: Iterable[str]) -> None:
        """Cut what is in flight, if any of these messages is new."""
        with self._lock:
            new = set(message_ids) - self._heeded
            if not new or not self._in_flight:
                return  # what begins before the next look may be cut then
            self._heeded |= new
            in_flight = list(self._in_flight)
        for call in in_flight:
            call.cut()

    def heed(self, message_ids: Iterable[str]) -> None:
        """The agent has read these messages."""
        with self._lock:
            self._heeded.update(message_ids)
