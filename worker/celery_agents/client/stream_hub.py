"""The hub of a process: it listens to streams once, for all who follow any of them.

One thread has the listener, and reads what is new of each stream once, however many follow it; they share its *tail*.
Whoever is further behind than a tail reaches reads for itself, and joins the tail then.
"""

import contextlib
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Final

from agent_statestore.clock import from_us
from agent_statestore.codec.streams import StoredStream, decode_stream
from agent_statestore.contract.streams import StreamListener
from agent_statestore.errors import StoreUnavailable
from agent_statestore.plain_text import line_logger
from agent_statestore.store import Store
from agent_statestore.streams.records import StreamEvent, StreamKind
from celery_agents.engine.patience import Outage

log = line_logger(__name__)

READ_AT_ONCE: Final = 500
# Streams are looked at without being told, as rarely as this.
_LOOK_ANYWAY_SECONDS: Final = 5.0
_WAIT_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 5.0
_LONGEST_RETRY_SECONDS: Final = 1.0
# How many events a tail holds for those who come back. A reader who is further behind asks the store.
_TAIL: Final = 1_000


class StreamTail:
    """What is new of one stream: all events with numbers above `start`, up to `last`. For holders of the hub's lock."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.last = start
        self.events: list[StreamEvent] = []
        self.numbers: list[int] = []
        self.is_over = False
        self.is_gone = False
        self.notified: dict[object, Callable[[], object]] = {}

    def after(self, number: int) -> list[StreamEvent] | None:
        """Return the events above a number; None if this does not reach back so far."""
        if number < self.start:
            return None
        return self.events[bisect_right(self.numbers, number) :]

    def add(self, stored: StoredStream) -> bool:
        """Add what was read behind `last`; return whether the stream has more."""
        page = decode_stream(stored)
        new = [trimmed(page.trimmed_to)] if page.trimmed_to > self.last else []
        new += page.events
        self.is_over = page.is_over and not page.has_more
        if new:
            self.events += new
            self.numbers += [event.number or 0 for event in new]
            self.last = self.numbers[-1]
            if len(self.events) > 2 * _TAIL:
                self.start = self.numbers[-_TAIL - 1]
                self.events, self.numbers = self.events[-_TAIL:], self.numbers[-_TAIL:]
        return page.has_more


def trimmed(up_to: int) -> StreamEvent:
    """Return the event that tells a reader of what was removed before it came."""
    return StreamEvent(kind=StreamKind.TRIMMED, data={"up_to": up_to}, at=from_us(up_to), number=up_to)


class StreamHub:
    """Follows streams of one store for any number of readers."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lock = threading.Lock()
        self._tails: dict[str, StreamTail] = {}
        # Tails that were never read, and streams that the listener is to leave.
        self._new: set[str] = set()
        self._left: set[str] = set()
        self._listener: StreamListener | None = None
        self._has_thread = False
        self._outage = Outage(log, "following streams")

    def join(self, execution_id: str, after: int, reader: object, notify: Callable[[], object]) -> StreamTail:
        """Return the tail of a stream for this reader, who is notified, in any thread, of all that happens to it.

        `leave` follows. A tail that does not exist yet begins behind `after`; `listen` is called before it is read.
        """
        with self.lock:
            tail = self._tails.get(execution_id)
            if tail is None:
                tail = self._tails[execution_id] = StreamTail(after)
                self._new.add(execution_id)
            tail.notified[reader] = notify
            if not self._has_thread:
                self._has_thread = True
                threading.Thread(target=self._work, name="stream-hub", daemon=True).start()
        return tail

    def listen(self, execution_id: str) -> None:
        """Have this stream listened to, if nobody else has yet. It may ask the store."""
        with self.lock:
            listener = self._listener if execution_id in self._new else None
        if listener is not None:
            # If it fails, the thread notices at its next wait, and begins anew.
            with contextlib.suppress(StoreUnavailable):
                listener.follow([execution_id])

    def leave(self, execution_id: str, reader: object) -> None:
        """This reader follows the stream no more."""
        with self.lock:
            tail = self._tails.get(execution_id)
            if tail is None:
                return
            tail.notified.pop(reader, None)
            if not tail.notified:
                del self._tails[execution_id]
                self._new.discard(execution_id)
                self._left.add(execution_id)

    def _work(self) -> None:
        retry_seconds, idle_since = 0.05, time.monotonic()
        look_at = 0.0
        while True:
            with self.lock:
                if self._tails:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > _IDLE_SECONDS:
                    self._has_thread = False
                    self._close()
                    _forget(self)
                    return
            try:
                listener = self._listening()
                self._unfollow(listener)
                grown = listener.wait(0.02 if self._new else _WAIT_SECONDS)
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + _LOOK_ANYWAY_SECONDS
                    grown |= self._tails.keys()
                self._read(grown)
                self._outage.succeeded()
                retry_seconds = 0.05
            except StoreUnavailable as error:
                self._outage.failed(error)
                look_at = 0.0
                time.sleep(retry_seconds)
                retry_seconds = min(retry_seconds * 2, _LONGEST_RETRY_SECONDS)
            except Exception:
                # This thread serves all readers of the process: it must outlive any fault of a driver.
                log.exception("streams could not be followed, trying again")
                time.sleep(_LONGEST_RETRY_SECONDS)
                with self.lock:
                    self._close()

    def _listening(self) -> StreamListener:
        if self._listener is None:
            listener = self.store.listen_streams()
            with self.lock:
                self._listener = listener
                followed = list(self._tails)
                self._new.update(followed)
            listener.follow(followed)
        return self._listener

    def _unfollow(self, listener: StreamListener) -> None:
        with self.lock:
            left, self._left = self._left - self._tails.keys(), set()
        for execution_id in left:
            listener.unfollow(execution_id)

    def _close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(StoreUnavailable):
                listener.close()

    def _read(self, grown: frozenset[str]) -> None:
        with self.lock:
            cursors = {name: self._tails[name].last for name in grown | self._new if name in self._tails}
            self._new.clear()
        while cursors:
            try:
                found = self.store.read_streams(cursors, READ_AT_ONCE)
            except StoreUnavailable:
                with self.lock:
                    self._new.update(cursors)
                raise
            cursors = self._give(cursors, found)

    def _give(self, cursors: Mapping[str, int], found: Mapping[str, StoredStream]) -> dict[str, int]:
        """Add what was found, notify the readers, and return what has more."""
        more: dict[str, int] = {}
        notified: list[Callable[[], object]] = []
        with self.lock:
            for name, cursor in cursors.items():
                tail = self._tails.get(name)
                if tail is None or tail.last != cursor:
                    continue
                was_over, stored = tail.is_over, found.get(name)
                if stored is None:
                    tail.is_gone = True
                elif tail.add(stored):
                    more[name] = tail.last
                if tail.last != cursor or tail.is_gone or tail.is_over != was_over:
                    notified += tail.notified.values()
        for notify in notified:
            notify()
        return more


# By the store's id, as long as anybody follows.
_hubs: dict[int, StreamHub] = {}
_making = threading.Lock()


def hub_of(store: Store) -> StreamHub:
    """Return the hub of a store in this process."""
    with _making:
        hub = _hubs.get(id(store))
        if hub is None:
            hub = _hubs[id(store)] = StreamHub(store)
        return hub


def _forget(hub: StreamHub) -> None:
    with _making:
        _hubs.pop(id(hub.store), None)


def _renew() -> None:
    """Forget the hubs in a forked child, where their threads are gone."""
    global _making
    _making = threading.Lock()
    _hubs.clear()


os.register_at_fork(after_in_child=_renew)
