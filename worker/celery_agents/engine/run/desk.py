"""The desk of an async agent: the thread in which the engine works for a coroutine on the event loop.

The thread that executes the task has nothing to do while the coroutine runs. So it does what blocks (checkpoints,
plain functions) for its coroutine, and the event loop never waits for a store. Where a coroutine takes several steps at
once, the others get threads of a pool.
"""

import asyncio
import concurrent.futures
import inspect
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context, copy_context
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from celery_agents.engine.course import Course
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.outcome import ExecutionStopped
from celery_agents.engine.run import event_loop
from celery_agents.engine.steps.calling import STOP_SECONDS
from celery_agents.engine.thread_ends import EndingThreads
from celery_agents.misuse import NotAwaited

T = TypeVar("T")


class LoopStep(Protocol):
    """A step in flight on the event loop."""

    task: "asyncio.Task[None]"


class _Sign(Enum):
    STOP = 0  # the coroutine has ended
    LOOK = 1  # the attempt has stopped


# What the thread that executes the task takes next. An exception is one that came from outside.
_Job: TypeAlias = tuple[Future[Any], Callable[[], Any]] | BaseException | _Sign

# How long the agent's function may go on after the attempt has stopped, to clean up.
_UNWIND_SECONDS: Final = 5.0


class Desk:
    """The thread that executes the task, and those that help when more is to be done at once."""

    def __init__(self, course: Course, helpers: int) -> None:
        self._course = course
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._helpers = helpers
        self._pool: EndingThreads | None = None
        self._in_pool: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._is_free = True
        self._is_closed = False
        # The agent's function has ended, and what is in flight goes on.
        self._is_ending = False
        # The steps that are in flight on the event loop; changed there.
        self.loop_steps: set[LoopStep] = set()
        # What the agent's function has called of its run, and not begun to await. Kept here, as Python would merely
        # warn of it once it is forgotten.
        self.unawaited: dict[int, tuple[str, Coroutine[Any, Any, Any]]] = {}

    def submit(self, job: Callable[[], T], context: Context | None = None) -> "Future[T]":
        """Has the job done, by whoever is free. Nothing is done for what has outlived the agent's function."""
        context, future = context or copy_context(), Future[T]()
        with self._lock:
            if self._is_closed:
                future.cancel()
                return future
            if self._is_free:
                self._is_free = False
                self._jobs.put((future, lambda: context.run(self._guarded, job)))
                return future
            if self._pool is None:
                self._pool = EndingThreads(self._helpers, thread_name_prefix="step")
            try:
                future = self._pool.submit(context.run, self._guarded, job)
            except RuntimeError as error:
                # No more threads are to be had. What the pool may have queued nevertheless must not begin.
                self._course.abandon()
                self._jobs.put(error)
                future.cancel()
                return future
            self._in_pool.add(future)
            future.add_done_callback(self._in_pool.discard)
            return future

    def serve(self, running: event_loop.Running[T]) -> T:
        """Does jobs in this thread until the coroutine has ended; returns its result.

        An exception that comes from outside (a time limit) interrupts the coroutine and passes through.
        """
        running.add_done_callback(lambda _: self._jobs.put(_Sign.STOP))
        try:
            while not isinstance(job := self._next(running), _Sign) or self._must_go_on():
                if isinstance(job, BaseException):
                    raise job
                if not isinstance(job, _Sign):
                    self._do(*job)
        except BaseException:
            # The attempt is being ended from outside: its coroutine must not go on beside the next one.
            self._course.abandon()
            self._close()
            running.interrupt()
            in_flight: list[Future[Any]] = [running, event_loop.start(self._end_loop_steps()), *self._in_pool]
            concurrent.futures.wait(in_flight, STOP_SECONDS)
            raise
        for ended_by in self._close():
            raise ended_by
        return running.result()

    @property
    def takes_loop_steps(self) -> bool:
        """Whether a step may begin on the event loop; asked there."""
        return not (self._is_ending or self._is_closed)

    def loop_step_ends(self, step: LoopStep) -> None:
        """A step that was begun on the event loop is done with; called there."""
        self.loop_steps.discard(step)
        with self._lock:
            if self._is_ending and not self.loop_steps:
                self._jobs.put(_Sign.STOP)

    def _must_go_on(self) -> bool:
        """Whether the thread has to stay when the agent's function has ended: for what may come of steps in flight."""
        with self._lock:
            self._is_ending = True
            return bool(self.loop_steps)

    async def _end_loop_steps(self) -> None:
        tasks = [step.task for step in self.loop_steps]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def check_all_awaited(self) -> None:
        """Raise `NotAwaited` if the agent would complete without what it has called, and never awaited."""
        forgotten = [
            (name, one)
            for name, one in self.unawaited.values()
            if inspect.getcoroutinestate(one) == inspect.CORO_CREATED
        ]
        for _, one in forgotten:
            one.close()
        if forgotten:
            raise NotAwaited(forgotten[0][0])

    def _next(self, running: event_loop.Running[Any]) -> _Job:
        """The next job. Ends a coroutine that goes on for long after the attempt has stopped.

        It may wait for what a task of its own was to do that is unwound (`asyncio.Queue.join`), and would for ever.
        """
        while True:
            try:
                job = self._jobs.get(timeout=_UNWIND_SECONDS if self._course.stopped is not None else None)
            except queue.Empty:
                if self._course.has_come_to_rest:
                    running.interrupt()
            else:
                if job is not _Sign.LOOK:
                    return job

    def _close(self) -> list[BaseException]:
        """Cancels what is not begun; returns what came from outside, and nobody has seen yet."""
        with self._lock:
            self._is_closed = True
        unseen: list[BaseException] = []
        while not self._jobs.empty():
            job = self._jobs.get()
            if isinstance(job, BaseException):
                unseen.append(job)
            elif isinstance(job, tuple):
                job[0].cancel()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        return unseen

    def _do(self, future: Future[Any], job: Callable[[], Any]) -> None:
        try:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - handed over to the coroutine
                future.set_exception(error)
            else:
                future.set_result(result)
        finally:
            with self._lock:
                self._is_free = True

    def _guarded(self, job: Callable[[], T]) -> T:
        """What ends the process or the attempt is not for the coroutine, which might catch it, nor for its loop."""
        try:
            with self._course.abandoned_by_interrupts:
                return job()
        except ExecutionStopped:
            self._jobs.put(_Sign.LOOK)
            raise
        except self._course.interrupts as error:
            if not self._course.is_interrupt(error):
                raise revive(describe(error)) from error  # its own, of a validator; the loop carries no such exception
            self._jobs.put(error)
            raise event_loop.Interrupted from error
        except StopIteration as error:
            # As of a coroutine that raises it: no future of asyncio's carries one.
            raise RuntimeError("a step raised StopIteration") from error
