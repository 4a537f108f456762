"""One long-lived event loop per process: async agents, tools and steps run on it.

A loop per call would break every HTTP client that keeps connections ("Event loop is closed"). It lives in a thread of
its own, started when first needed, and again after a fork.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from agent_statestore.plain_text import line_logger
from celery_agents.engine.run import loop_watch
from celery_agents.engine.thread_ends import EndingThreads

log = line_logger(__name__)

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def event_loop() -> asyncio.AbstractEventLoop:
    """This process's loop, running."""
    global _loop, _thread
    with _lock:
        if _loop is None:
            loop = asyncio.new_event_loop()
            loop.set_default_executor(EndingThreads(thread_name_prefix="agents-to-thread"))
            thread = threading.Thread(target=_run, args=(loop,), name="agents-event-loop", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads are to be had: perhaps later
                loop.close()
                raise
            _loop, _thread = loop, thread
        return _loop


def _forget() -> None:
    """Threads do not survive a fork, and another process's loop cannot be used."""
    global _lock, _loop, _thread
    _lock, _loop, _thread = threading.Lock(), None, None


os.register_at_fork(after_in_child=_forget)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop_watch.start(loop)
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            # A task that was left to itself raised it. What `start` runs never lets one through.
            log.warning("a task on the event loop raised %s; the loop goes on", type(error).__name__)


class Interrupted(Exception):
    """The coroutine was cancelled."""

    def __str__(self) -> str:
        return "the coroutine was cancelled"


class Running(Future[T]):
    """A coroutine on the loop, as a future of its result."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._task: asyncio.Task[None] | None = None

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> None:
        """Starts it; called on the loop."""
        self._task = self._loop.create_task(self._guarded(coroutine))
        self._task.add_done_callback(lambda _: self._end(coroutine))

    def interrupt(self) -> None:
        """Cancels the coroutine. The future ends when the coroutine does, which may catch that, and take its time."""
        self._loop.call_soon_threadsafe(self._cancel_task)

    def _cancel_task(self) -> None:
        assert self._task is not None, "begun on the same loop, before"
        self._task.cancel()

    def _end(self, coroutine: Coroutine[Any, Any, T]) -> None:
        """A task that is cancelled before it has begun runs nothing of its coroutine, not even what catches that."""
        if not self.done():
            coroutine.close()
            self.set_exception(Interrupted())

    async def _guarded(self, coroutine: Coroutine[Any, Any, T]) -> None:
        try:
            self.set_result(await coroutine)
        except asyncio.CancelledError:
            self.set_exception(Interrupted())
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that waits
            self.set_exception(error)


def start(coroutine: Coroutine[Any, Any, T]) -> Running[T]:
    """Runs the coroutine on the loop, in a copy of the caller's context.

    Any exception becomes the future's, also those that asyncio would end its loop for; a cancelled coroutine gives
    `Interrupted`. Raises `RuntimeError` on the loop's own thread, which would wait for itself.
    """
    loop = event_loop()
    if threading.current_thread() is _thread:
        coroutine.close()
        raise RuntimeError("a blocking call on the event loop: await the method of the async run instead")
    running: Running[T] = Running(loop)
    loop.call_soon_threadsafe(running.begin, coroutine)
    return running
