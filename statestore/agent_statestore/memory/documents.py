"""The documents of a store in memory."""

import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence

from agent_statestore.clock import Clock
from agent_statestore.documents.codec import EncodedOperation, StoredDocument
from agent_statestore.documents.contract import DocumentStore, Selection
from agent_statestore.documents.places import Namespace, Range, within
from agent_statestore.documents.records import Written
from agent_statestore.documents.rules import DocumentStanding, decide


class MemoryDocuments(DocumentStore):
    """Documents in this process. `lock` returns the lock under which they change."""

    def __init__(self, clock: Clock, lock: Callable[[], threading.Condition]) -> None:
        self._clock = clock
        self._lock = lock
        self._stored: dict[str, StoredDocument] = {}
        # The places, sorted.
        self._places: list[str] = []

    def apply(self, operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
        with self._lock():
            now_us = self._clock.now_us()
            found = {operation.place: self._look(operation.place, now_us) for operation in operations}
            standing = {
                place: DocumentStanding(stored.version, stored.write_id, stored.created_us)
                for place, stored in found.items()
                if stored is not None
            }
            changes = decide(operations, write_id, standing, now_us)
            for place in changes.removals:
                self._forget(place)
            for stored in changes.puts:
                if stored.place not in self._stored:
                    self._places.insert(bisect_left(self._places, stored.place), stored.place)
                self._stored[stored.place] = stored
            return Written(versions=tuple(changes.versions), was_applied=changes.was_applied)

    def read(self, places: Sequence[str]) -> Sequence[StoredDocument | None]:
        with self._lock():
            now_us = self._clock.now_us()
            return [self._look(place, now_us) for place in places]

    def read_range(self, selection: Selection) -> Sequence[StoredDocument]:
        with self._lock():
            now_us = self._clock.now_us()
            places = self._within(selection.places)
            found: list[StoredDocument] = []
            for place in reversed(places) if selection.newest_first else places:
                stored = self._look(place, now_us)
                if stored is None or not all(line in stored.metadata for line in selection.lines):
                    continue
                found.append(stored if selection.values else stored._replace(text=None, content=None))
                if len(found) == selection.limit:
                    break
            return found

    def remove_range(self, namespace: Namespace) -> int:
        with self._lock():
            now_us = self._clock.now_us()
            places = self._within(within(namespace, below=True))
            count = sum(self._look(place, now_us) is not None for place in places)
            for place in places:
                self._forget(place)
            return count

    def tidy(self, limit: int = 1000) -> int:
        with self._lock():
            now_us = self._clock.now_us()
            expired = [place for place in self._places if self._look(place, now_us) is None][:limit]
            for place in expired:
                self._forget(place)
            return len(expired)

    def clear(self) -> None:
        """Remove all documents."""
        with self._lock():
            self._stored.clear()
            self._places.clear()

    def _look(self, place: str, now_us: int) -> StoredDocument | None:
        stored = self._stored.get(place)
        return None if stored is None or (stored.expires_us or now_us + 1) <= now_us else stored

    def _within(self, places: Range) -> list[str]:
        first = bisect_left(self._places, places.first)
        last = len(self._places) if places.last is None else bisect_left(self._places, places.last)
        return self._places[first:last]

    def _forget(self, place: str) -> None:
        del self._stored[place]
        del self._places[bisect_left(self._places, place)]
