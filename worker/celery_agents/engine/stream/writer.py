"""The writer of streams: one daemon thread per process writes what all its executions have said, in one call.

It looks some twenty times a second while anybody says anything, and rests otherwise. So a process writes a bounded
number of times, however many tokens its models say. What a step records does not wait for it.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from agent_statestore.errors import InvalidRecord, NotSerialisable, StoreError, StoreUnavailable, ValueTooLarge
from agent_statestore.plain_text import line_logger
from agent_statestore.records import Lease
from agent_statestore.store import Store
from agent_statestore.streams.records import StreamAppend
from celery_agents.engine.patience import Outage
from celery_agents.engine.stream.outlet import Outlet

log = line_logger(__name__)

WINDOW_SECONDS: Final = 0.05
DEFAULT_STREAM_EVENTS: Final = 10_000
# How long it goes on looking after the last event.
_RESTLESS_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 2.0
# How many executions are written in one call, as one statement must not become too long.
_AT_ONCE: Final = 200


class StreamWriter:
    """Writes what the attempts of a process say beside their checkpoints.

    One that is not `in_background` does not: all comes with checkpoints, as a test that counts writes wants it.
    """

    def __init__(self, store: Store, *, most_events: int = DEFAULT_STREAM_EVENTS, in_background: bool = True) -> None:
        self._store = store
        self._most_events = most_events
        self._in_background = in_background
        self._lock = threading.Lock()
        self._outlets: set[Outlet] = set()
        self._watched: set[str] = set()
        self._woken = threading.Event()
        self._is_resting = False
        self._pid: int | None = None
        self._outage = Outage(log, "the writing of streams")

    def open(self, lease: Lease, now: Callable[[], datetime]) -> Outlet:
        """Return the outlet of a new attempt. `close` follows."""
        outlet = Outlet(lease, now, self.wake, self.tell_readers)
        with self._lock:
            if self._in_background and self._pid != os.getpid():
                # Threads do not survive a fork: the first attempt in a child starts its own.
                self._outlets, self._watched = set(), set()
                self._woken, self._is_resting = threading.Event(), False
                threading.Thread(target=self._loop, args=(self._woken,), name="stream-writer", daemon=True).start()
                self._pid = os.getpid()
            self._outlets.add(outlet)
        return outlet

    def close(self, outlet: Outlet) -> None:
        """The attempt has ended: nothing more is said, and what no checkpoint has carried is written by `flush`."""
        with self._lock:
            self._outlets.discard(outlet)
        outlet.close()

    def flush(self, outlet: Outlet) -> None:
        """Write what the outlet holds now, in this thread; given up if the store is away."""
        part = outlet.take()
        if part is None:
            return
        try:
            (appended,) = self._store.append_events([StreamAppend(lease=outlet.lease, part=part)])
        except StoreError as error:
            log.info("execution %s: the end of its stream was not written: %s", outlet.lease.execution_id, error)
            return
        outlet.written(part, is_accepted=appended.accepted)
        if appended.is_watched:
            self.tell_readers(outlet.lease.execution_id)

    def tell_readers(self, execution_id: str) -> None:
        """Readers of this stream are to be told, soon: a checkpoint has brought something."""
        with self._lock:
            self._watched.add(execution_id)
        self.wake()

    def wake(self) -> None:
        """There is something to look at."""
        if self._is_resting:
            self._woken.set()

    def _loop(self, woken: threading.Event) -> None:
        last_event, between = time.monotonic(), threading.Event()
        while True:
            wait_seconds = WINDOW_SECONDS
            try:
                if self._write():
                    last_event = time.monotonic()
                self._outage.succeeded()
            except StoreUnavailable as error:
                self._outage.failed(error)
                wait_seconds = _LONGEST_WAIT_SECONDS
            except Exception:
                # This thread serves all executions of the process: it must outlive any fault of a driver.
                log.exception("streams could not be written, trying again")
                wait_seconds = _LONGEST_WAIT_SECONDS
            if time.monotonic() - last_event > _RESTLESS_SECONDS:
                if not self._rest(woken):
                    return
                last_event = time.monotonic()
            between.wait(wait_seconds)

    def _rest(self, woken: threading.Event) -> bool:
        """Sleep until somebody wakes it; False to end, as nothing is executed any more."""
        woken.clear()
        self._is_resting = True
        try:
            # Looked at after it is said that this rests: whoever says something later wakes it.
            while self._is_quiet and not woken.wait(_IDLE_SECONDS):
                with self._lock:
                    if not self._outlets and not self._watched:
                        self._pid = None  # whoever opens the next outlet starts another one
                        return False
            return True
        finally:
            self._is_resting = False

    @property
    def _is_quiet(self) -> bool:
        with self._lock:
            return not self._watched and all(outlet.is_quiet for outlet in self._outlets)

    def _write(self) -> bool:
        """Write what there is; return whether there was anything, or will be soon."""
        with self._lock:
            every = list(self._outlets)
        outlets = [outlet for outlet in every if not outlet.is_quiet]
        appends = []
        for outlet in outlets:
            part = outlet.take()
            if part is not None:
                appends.append((outlet, StreamAppend(lease=outlet.lease, part=part)))
        for first in range(0, len(appends), _AT_ONCE):
            self._append(appends[first : first + _AT_ONCE])
        with self._lock:
            watched, self._watched = self._watched, set()
        if watched:
            self._store.tell_readers(watched)
        for outlet in every:  # also of those whose events all come with checkpoints
            if outlet.may_be_trimmed(self._most_events // 4):
                self._store.trim_stream(outlet.lease.execution_id, self._most_events)
        return bool(outlets or watched)

    def _append(self, appends: Sequence[tuple[Outlet, StreamAppend]]) -> None:
        try:
            answers = self._store.append_events([append for _, append in appends])
        except (InvalidRecord, NotSerialisable, ValueTooLarge) as error:
            if len(appends) > 1:
                for one in appends:  # one of them is at fault, and hides no other
                    self._append([one])
                return
            ((outlet, append),) = appends
            log.error("execution %s: events cannot be stored: %s", outlet.lease.execution_id, error)
            outlet.drop(append.part)
            return
        for (outlet, append), answer in zip(appends, answers, strict=True):
            outlet.written(append.part, is_accepted=answer.accepted)
            if answer.is_watched:
                with self._lock:
                    self._watched.add(outlet.lease.execution_id)
