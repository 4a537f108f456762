"""The contract of streams: the primitives that every backend implements, and how readers wait.

`agent_statestore.testing` tests any backend against it.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from agent_statestore.codec.streams import EncodedPart, StoredStream
from agent_statestore.records import Lease
from agent_statestore.streams.records import Appended

_POLL_SECONDS: Final = 0.04


class StreamListener(Protocol):
    """Waits for events of any number of streams, with one connection at most. `follow` may be called in any thread."""

    def follow(self, execution_ids: Iterable[str]) -> None:
        """Listen to these streams as well. What came before is not told."""
        ...

    def unfollow(self, execution_id: str) -> None:
        """Listen to this stream no more."""
        ...

    def wait(self, timeout_seconds: float) -> frozenset[str]:
        """Return the executions whose streams may have grown since the last call, or nothing after the timeout.

        It may return before the timeout with nothing, and name a stream that has not grown. For one thread. Raise
        `StoreUnavailable`; it may be used on, and then names all that it follows, as something may have been missed.
        """
        ...

    def close(self) -> None:
        """Free what it holds, also while another thread waits. Closing twice is harmless."""
        ...


class PollingListener:
    """Has all streams looked at again and again: for stores that announce nothing."""

    def __init__(self, interval_seconds: float = _POLL_SECONDS) -> None:
        self._interval_seconds = interval_seconds
        self._followed: set[str] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def follow(self, execution_ids: Iterable[str]) -> None:
        """Look at these, too; see `StreamListener`."""
        with self._lock:
            self._followed.update(execution_ids)

    def unfollow(self, execution_id: str) -> None:
        """Look at it no more; see `StreamListener`."""
        with self._lock:
            self._followed.discard(execution_id)

    def wait(self, timeout_seconds: float) -> frozenset[str]:
        """Sleep until the next look; see `StreamListener`."""
        self._closed.wait(max(min(self._interval_seconds, timeout_seconds), 0.0))
        with self._lock:
            return frozenset(self._followed)

    def close(self) -> None:
        """End the waiting; see `StreamListener`."""
        self._closed.set()


class StreamPrimitives(ABC):
    """The events of executions, stored beside them.

    An event comes in with a checkpoint (`Checkpoint.stream`), with a signal (`codec.streams.event_of_signal`), in the
    same atomic step, or alone by `append_streams`. A stream counts neither for `max_context_bytes` nor for what a claim
    reads, and is removed with its execution. What is appended gets numbers in the order in which writes take effect
    (`rules.streams.appended`): whoever has read up to a number has missed nothing before it.

    With the write that ends the execution, events are accepted; from then on, none by `append_streams`.
    """

    @abstractmethod
    def append_streams(self, parts: Sequence[tuple[Lease, EncodedPart]]) -> Sequence[Appended]:
        """Append a part to each of several streams, in one round trip; one part for each at most.

        Not accepted, with no change, unless the lease's token is the current one and the lease lives. A part of which
        the stream has the first events is accepted, and only the others are appended. Repeating is safe. The parts are
        not atomic together.
        """

    @abstractmethod
    def read_streams(self, cursors: Mapping[str, int], limit: int) -> Mapping[str, StoredStream]:
        """Return, for each of these executions, at most `limit` events with numbers above its cursor, in order.

        One round trip. An unknown or deleted execution is left out. The cost is that of the events returned.
        """

    @abstractmethod
    def trim_stream(self, execution_id: str, keep: int) -> int:
        """Remove all events but the last `keep`, and return how many. Readers are told (`StreamPage.trimmed_to`)."""

    def listen_streams(self) -> StreamListener:
        """Return a listener, to whose streams nobody listens yet. Raise `StoreUnavailable`."""
        return PollingListener()

    def tell_readers(self, execution_ids: Iterable[str]) -> None:
        """Tell those who listen to these streams; whoever has appended calls it where `Appended.is_watched` says so.

        `append_streams` and `checkpoint` leave it to the caller where telling costs a database's commit more than the
        event itself; elsewhere they have done it, `is_watched` is never true, and this does nothing. Raise
        `StoreUnavailable`.
        """
        del execution_ids
