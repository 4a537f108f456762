"""Following the stream of one execution, from plain code and from async code."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from agent_statestore.errors import ExecutionNotFound, StoreUnavailable
from agent_statestore.store import Store
from agent_statestore.streams.records import MOST_READ, StreamEvent
from celery_agents.client.stream_hub import StreamTail, hub_of, trimmed

T = TypeVar("T")

# Reads of those who are behind, for coroutines. Asyncio's own threads are for others.
_READERS: Final = 8
_FIRST_RETRY_SECONDS: Final = 0.05
_LONGEST_RETRY_SECONDS: Final = 1.0


class _Reading:
    """Where a reader of a stream is. Nothing here waits, but for `read_behind`."""

    def __init__(self, store: Store, execution_id: str, after: int) -> None:
        self.store = store
        self.execution_id = execution_id
        self.cursor = after
        # Whether nothing comes any more.
        self.is_over = False
        self._hub = hub_of(store)
        self._tail: StreamTail | None = None
        # Whether the tail cannot help: the store has to be asked, first of all whether there is such an execution.
        self._is_behind = True

    def join(self, notify: Callable[[], object]) -> None:
        self._tail = self._hub.join(self.execution_id, self.cursor, self, notify)

    def leave(self) -> None:
        self._hub.leave(self.execution_id, self)

    def at_once(self) -> tuple[StreamEvent, ...] | None:
        """Return what the tail has; None if the store has to be asked. Raise `ExecutionNotFound`."""
        tail = self._tail
        if tail is None or self._is_behind:
            return None
        with self._hub.lock:
            events = tail.after(self.cursor)
            is_gone, is_over = tail.is_gone, tail.is_over
        if events is None:
            self._is_behind = True
            return None
        if not events and is_gone:
            raise ExecutionNotFound(self.execution_id)
        return self._passed(tuple(events), is_over=is_over)

    def read_behind(self) -> tuple[StreamEvent, ...]:
        """Ask the store for what is behind the cursor. Raise `ExecutionNotFound` or `StoreUnavailable`."""
        self._hub.listen(self.execution_id)
        page = self.store.read_events(self.execution_id, self.cursor, MOST_READ)
        if page is None:
            raise ExecutionNotFound(self.execution_id)
        self._is_behind = page.has_more
        events = page.events
        if page.trimmed_to > self.cursor:
            events = (trimmed(page.trimmed_to), *events)
        return self._passed(events, is_over=page.is_over and not page.has_more)

    def _passed(self, events: tuple[StreamEvent, ...], *, is_over: bool) -> tuple[StreamEvent, ...]:
        if events:
            self.cursor = events[-1].number or self.cursor
        self.is_over = is_over
        return events


class _Follower:
    """What followers in plain code and in async code have in common."""

    def __init__(self, store: Store, execution_id: str, after: int = 0) -> None:
        self._reading = _Reading(store, execution_id, after)

    @property
    def cursor(self) -> int:
        """The number of the last event that was read."""
        return self._reading.cursor

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self._reading.is_over


class StreamFollower(_Follower):
    """Follows the stream of one execution from a number on. For one thread; a context manager.

    `cursor` is the number up to which it has read: another follower goes on there. `is_over` says, after a `read`, that
    the execution is over and nothing more comes.
    """

    def __init__(self, store: Store, execution_id: str, after: int = 0) -> None:
        super().__init__(store, execution_id, after)
        self._news = threading.Event()

    def read(self, timeout_seconds: float | None = None) -> tuple[StreamEvent, ...]:
        """Return the next events as soon as there are any; none after the timeout, or when nothing more comes.

        While the store is away, it waits. Raise `ExecutionNotFound`.
        """
        give_up_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        retry_seconds = _FIRST_RETRY_SECONDS
        while True:
            self._news.clear()
            events = self._reading.at_once()
            if events is None:
                try:
                    events = self._reading.read_behind()
                except StoreUnavailable:
                    if give_up_at is not None and time.monotonic() >= give_up_at:
                        return ()
                    time.sleep(retry_seconds)
                    retry_seconds = min(retry_seconds * 2, _LONGEST_RETRY_SECONDS)
                    continue
            if events or self.is_over:
                return events
            if not self._news.wait(None if give_up_at is None else max(give_up_at - time.monotonic(), 0.0)):
                return ()

    def close(self) -> None:
        """Follow it no more."""
        self._reading.leave()

    def __enter__(self) -> Self:
        self._reading.join(self._news.set)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncStreamFollower(_Follower):
    """`StreamFollower` for one coroutine: no thread waits for it."""

    def __init__(self, store: Store, execution_id: str, after: int = 0) -> None:
        super().__init__(store, execution_id, after)
        self._news = asyncio.Event()

    async def read(self, timeout_seconds: float | None = None) -> tuple[StreamEvent, ...]:
        """Return the next events; see `StreamFollower.read`."""
        give_up_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        retry_seconds = _FIRST_RETRY_SECONDS
        while True:
            self._news.clear()
            events = self._reading.at_once()
            if events is None:
                try:
                    events = await _in_thread(self._reading.read_behind)
                except StoreUnavailable:
                    if give_up_at is not None and time.monotonic() >= give_up_at:
                        return ()
                    await asyncio.sleep(retry_seconds)
                    retry_seconds = min(retry_seconds * 2, _LONGEST_RETRY_SECONDS)
                    continue
            if events or self.is_over:
                return events
            try:
                async with asyncio.timeout(None if give_up_at is None else max(give_up_at - time.monotonic(), 0.0)):
                    await self._news.wait()
            except TimeoutError:
                return ()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def notify() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._news.set)

        self._reading.join(notify)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reading.leave()


_threads: ThreadPoolExecutor | None = None


async def _in_thread(function: Callable[[], T]) -> T:
    global _threads
    if _threads is None:
        _threads = ThreadPoolExecutor(_READERS, thread_name_prefix="agents-stream")
    work: Any = _threads.submit(function)
    result: T = await asyncio.wrap_future(work)
    return result


def _renew_threads() -> None:
    global _threads
    _threads = None


os.register_at_fork(after_in_child=_renew_threads)
