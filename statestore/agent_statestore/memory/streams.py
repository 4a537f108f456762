"""The streams of executions in memory."""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from threading import Condition

from agent_statestore.codec.streams import EncodedPart, StoredStream
from agent_statestore.rules.streams import StreamEnd, appended


@dataclass(slots=True)
class MemoryStream:
    """One stream: its events by number, and where it ends."""

    events: list[tuple[int, str]] = field(default_factory=list)
    end: StreamEnd = field(default_factory=StreamEnd)
    trimmed_to: int = 0

    def append(self, part: EncodedPart, now_us: int) -> None:
        """Append what is new of a part."""
        self.end, rows = appended(self.end, part, now_us)
        self.events += rows

    def read(self, after: int, limit: int, *, is_over: bool) -> StoredStream:
        """Return the events behind a number; see `StreamPrimitives.read_streams`."""
        first = bisect_right(self.events, after, key=itemgetter(0))
        return StoredStream(tuple(self.events[first : first + limit]), self.end.last, self.trimmed_to, is_over)

    def trim(self, keep: int) -> int:
        """Remove all but the last events; see `StreamPrimitives.trim_stream`."""
        removed = self.events[: max(len(self.events) - keep, 0)]
        if removed:
            self.events = self.events[len(removed) :]
            self.trimmed_to = removed[-1][0]
        return len(removed)


class MemoryListener:
    """Waits on the store's condition; see `StreamListener`. `last_of` returns the number of a stream's last event."""

    def __init__(self, changed: Callable[[], Condition], last_of: Callable[[str], int]) -> None:
        self._changed = changed
        self._last_of = last_of
        self._seen: dict[str, int] = {}
        self._is_closed = False

    def follow(self, execution_ids: Iterable[str]) -> None:
        """Listen to these; see `StreamListener`."""
        with self._changed():
            for execution_id in execution_ids:
                self._seen.setdefault(execution_id, self._last_of(execution_id))

    def unfollow(self, execution_id: str) -> None:
        """Listen to it no more; see `StreamListener`."""
        with self._changed():
            self._seen.pop(execution_id, None)

    def wait(self, timeout_seconds: float) -> frozenset[str]:
        """Return at the next event or after the timeout; see `StreamListener`."""
        with self._changed():
            self._changed().wait_for(lambda: self._is_closed or self._grown(), timeout_seconds)
            grown = self._grown()
            self._seen.update({execution_id: self._last_of(execution_id) for execution_id in grown})
            return grown

    def close(self) -> None:
        """End the waiting; see `StreamListener`."""
        with self._changed():
            self._is_closed = True
            self._changed().notify_all()

    def _grown(self) -> frozenset[str]:
        return frozenset(name for name, last in self._seen.items() if self._last_of(name) != last)
