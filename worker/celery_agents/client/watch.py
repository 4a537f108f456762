"""Waiting for changes of an execution from async code."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from agent_statestore.contract.watch import PollingWatch, Watch

# If more watches than this are open at once, the others look at intervals: a thread each would cost too much.
MAX_THREADS: Final = 64
# How long a thread outlives a cancelled waiter, at most.
_SLICE_SECONDS: Final = 1.0


class _Threads:
    """The threads that wait, made when first needed. Waiting in asyncio's own threads would keep everybody else out."""

    def __init__(self) -> None:
        self.free = threading.BoundedSemaphore(MAX_THREADS)
        self.pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="agents-watch")


_threads = _Threads()


def _renew_threads() -> None:
    """Replace the threads in a forked child: they do not survive a fork, and a pool does not notice."""
    global _threads
    _threads = _Threads()


os.register_at_fork(after_in_child=_renew_threads)


class AsyncWatch:
    """An `agent_statestore.Watch` for one coroutine. `make` opens the blocking watch."""

    def __init__(self, make: Callable[[], Watch]) -> None:
        self._make = make
        self._polling = PollingWatch()
        self._watch: Watch = self._polling
        self._threads = _threads
        self._has_thread = False
        self._waiting: Future[bool] | None = None

    async def __aenter__(self) -> Self:
        self._has_thread = self._threads.free.acquire(blocking=False)
        if self._has_thread:
            opening = self._threads.pool.submit(self._make)
            try:
                self._watch = await asyncio.shield(asyncio.wrap_future(opening))
            except BaseException:
                # This includes a waiter that was cancelled while the thread goes on opening the watch.
                opening.add_done_callback(self._close_opened)
                raise
        return self

    async def wait(self, timeout_seconds: float) -> bool:
        """Wait for a change; see `agent_statestore.Watch.wait`."""
        if not self._has_thread:
            await asyncio.sleep(min(self._polling.next_interval_seconds(), timeout_seconds))
            return True
        remaining = timeout_seconds
        while remaining > 0:
            self._waiting = self._threads.pool.submit(self._watch.wait, min(remaining, _SLICE_SECONDS))
            if await asyncio.wrap_future(self._waiting):
                return True
            remaining -= _SLICE_SECONDS
        return False

    def progress(self) -> None:
        """Note that something did change; see `agent_statestore.Watch.progress`."""
        self._watch.progress()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._has_thread:
            return
        if self._waiting is None or self._waiting.done():
            self._close()
        else:
            # Its waiter was cancelled: the thread still uses the watch for a moment.
            self._waiting.add_done_callback(lambda _: self._close())

    def _close_opened(self, opening: Future[Watch]) -> None:
        try:
            if opening.exception() is None:
                opening.result().close()
        finally:
            self._threads.free.release()

    def _close(self) -> None:
        try:
            self._watch.close()
        finally:
            self._threads.free.release()
