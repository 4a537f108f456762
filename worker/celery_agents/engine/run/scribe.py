"""The scribe: one thread per store that writes what the async executions of this process record.

An execution that waits on the event loop could have a thread of its own to write in. Of hundreds, each then wakes for
every step, and fights the others and the loop for the interpreter. The scribe takes what is waiting, writes it in one
round trip, and wakes the loop once. It waits for nobody to join: a record that is alone is written at once.

It deals with what goes well. Whatever else happens to a record (the lease is lost, it is too large, the store does not
answer) is left to the thread that executes the task, which has the patience for it, and holds up nobody.
"""

import os
import threading
import weakref
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from agent_statestore.checkpoint import LeasedWrite
from agent_statestore.errors import StoreError
from agent_statestore.plain_text import line_logger
from agent_statestore.records import Checkpointed
from agent_statestore.store import Store

log = line_logger(__name__)

# A batch holds the locks of its executions for one round trip.
_MOST: Final = 128
# After so long without a record, the thread ends.
_IDLE_SECONDS: Final = 5.0


class Entry(Protocol):
    """A step that is to be recorded."""

    @property
    def execution_id(self) -> str:
        """Of which execution: at most one entry of it is in a batch."""
        ...

    @property
    def loop(self) -> AbstractEventLoop:
        """The loop on which `give_out` is called."""
        ...

    def start_writing(self) -> LeasedWrite | None:
        """Return what is to be written. None: this one is done with, as somebody else cares for it."""
        ...

    def end_writing(self, outcome: Checkpointed | StoreError | None) -> bool:
        """Note what came of it; None if nobody knows. Return whether it is recorded, and `give_out` is to be called."""
        ...

    def give_out(self) -> None:
        """Give the result to whoever awaits it; called on the loop."""
        ...


class Scribe:
    """Writes to one store."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Forget what a parent process had waiting: threads do not survive a fork."""
        self._lock = threading.Lock()
        self._entries: SimpleQueue[Entry] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def take(self, store: Store, entry: Entry) -> None:
        """Write this entry soon. Waits for nothing. Raise `RuntimeError` if there is no thread to be had."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._work, args=(store,), name="agents-scribe", daemon=True)
                thread.start()
                self._thread = thread
            self._entries.put(entry)

    def _work(self, store: Store) -> None:
        later: deque[Entry] = deque()  # of executions that had another entry in the batch
        while True:
            batch: dict[str, Entry] = {}
            waiting, later = later, deque()
            while len(batch) < _MOST:
                if waiting:
                    entry = waiting.popleft()
                else:
                    try:
                        entry = self._entries.get(timeout=0 if batch or later else _IDLE_SECONDS)
                    except Empty:
                        break
                if batch.setdefault(entry.execution_id, entry) is not entry:
                    later.append(entry)
            later.extendleft(reversed(waiting))
            if batch:
                _write(store, tuple(batch.values()))
                continue
            with self._lock:
                if self._entries.empty():
                    self._thread = None
                    return


def _write(store: Store, batch: Sequence[Entry]) -> None:
    started = [(entry, write) for entry in batch if (write := entry.start_writing()) is not None]
    if not started:
        return
    outcomes: Sequence[Checkpointed | StoreError | None] = [None] * len(started)
    try:
        outcomes = store.checkpoint_each([write for _, write in started])
    except Exception as error:  # noqa: BLE001 - repeated for each alone, where it is raised again if it stays
        log.debug("%d records could not be written together: %s", len(started), error)
    recorded = [entry for (entry, _), outcome in zip(started, outcomes, strict=True) if entry.end_writing(outcome)]
    if recorded:
        recorded[0].loop.call_soon_threadsafe(_give_out, recorded)


def _give_out(recorded: Sequence[Entry]) -> None:
    for entry in recorded:
        entry.give_out()


_scribes: Final[weakref.WeakKeyDictionary[Store, Scribe]] = weakref.WeakKeyDictionary()


def scribe_of(store: Store) -> Scribe:
    """Return this process's scribe for a store. Called on the event loop alone."""
    scribe = _scribes.get(store)
    if scribe is None:
        scribe = _scribes[store] = Scribe()
    return scribe


def _start_anew() -> None:
    for scribe in list(_scribes.values()):
        scribe.start_anew()


os.register_at_fork(after_in_child=_start_anew)
