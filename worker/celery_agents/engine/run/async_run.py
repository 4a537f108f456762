"""Async agents: a coroutine on the process's event loop, and a thread in which the engine works for it.

The thread that executes the task has nothing to do while the coroutine runs. So it does what blocks (checkpoints,
plain functions) for its coroutine, and the event loop never waits for a store. Where a coroutine takes several steps at
once, the others get threads of a pool.
"""

import asyncio
import concurrent.futures
import functools
import inspect
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import copy_context
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final, TypeAlias, TypeVar, cast

from agent_statestore.records import JSONValue
from celery_agents.define.crash_policy import OnCrash
from celery_agents.define.retry import Retry
from celery_agents.define.tool import Tool
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.order import ReplayOrder
from celery_agents.engine.outcome import ExecutionStopped
from celery_agents.engine.pauses.child import Child, come_to_ends, gather
from celery_agents.engine.pauses.pause import pause_together
from celery_agents.engine.pauses.question import MISSING
from celery_agents.engine.pauses.sleep import Sleep
from celery_agents.engine.run import event_loop
from celery_agents.engine.run.run import BaseRun, Calls, Durable
from celery_agents.engine.steps.calling import STOP_SECONDS
from celery_agents.engine.steps.calls import Call, Place, StepOptions, name_of_tool, transaction
from celery_agents.engine.steps.parallel import DEFAULT_LIMIT, check_limit
from celery_agents.engine.steps.scope import StepWaits
from celery_agents.engine.steps.step import ReachedStep
from celery_agents.errors import NotAwaited

T = TypeVar("T")
M = TypeVar("M", bound=Callable[..., Coroutine[Any, Any, Any]])


class _Sign(Enum):
    STOP = 0  # the coroutine has ended
    LOOK = 1  # the attempt has stopped


# What the thread that executes the task takes next. An exception is one that came from outside.
_Job: TypeAlias = tuple[Future[Any], Callable[[], Any]] | BaseException | _Sign

# How long the agent's function may go on after the attempt has stopped, to clean up.
_UNWIND_SECONDS: Final = 5.0


class Desk:
    """The thread that executes the task, and those that help when more is to be done at once."""

    def __init__(self, attempt: Attempt, helpers: int) -> None:
        self._attempt = attempt
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._helpers = helpers
        self._pool: ThreadPoolExecutor | None = None
        self._in_pool: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._is_free = True
        self._is_closed = False
        # What the agent's function has called of its run, and not begun to await. Kept here, as Python would merely
        # warn of it once it is forgotten.
        self.unawaited: dict[int, tuple[str, Coroutine[Any, Any, Any]]] = {}

    def submit(self, job: Callable[[], T]) -> "Future[T]":
        """Has the job done, by whoever is free. Nothing is done for what has outlived the agent's function."""
        context, future = copy_context(), Future[T]()
        with self._lock:
            if self._is_closed:
                future.cancel()
                return future
            if self._is_free:
                self._is_free = False
                self._jobs.put((future, lambda: context.run(self._guarded, job)))
                return future
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._helpers, thread_name_prefix="step")
            try:
                future = self._pool.submit(context.run, self._guarded, job)
            except RuntimeError as error:
                # No more threads are to be had. What the pool may have queued nevertheless must not begin.
                self._attempt.abandon()
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
            while not isinstance(job := self._next(running), _Sign):
                if isinstance(job, BaseException):
                    raise job
                self._do(*job)
        except BaseException:
            # The attempt is being ended from outside: its coroutine must not go on beside the next one.
            self._attempt.abandon()
            self._close()
            running.interrupt()
            concurrent.futures.wait((running, *self._in_pool), STOP_SECONDS)
            raise
        for ended_by in self._close():
            raise ended_by
        return running.result()

    def _next(self, running: event_loop.Running[Any]) -> _Job:
        """The next job. Ends a coroutine that goes on for long after the attempt has stopped.

        It may wait for what a task of its own was to do that is unwound (`asyncio.Queue.join`), and would for ever.
        """
        while True:
            try:
                job = self._jobs.get(timeout=_UNWIND_SECONDS if self._attempt.is_stopping else None)
            except queue.Empty:
                if self._attempt.has_come_to_rest:
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
            with self._attempt.abandoned_by_interrupts():
                return job()
        except ExecutionStopped:
            self._jobs.put(_Sign.LOOK)
            raise
        except self._attempt.interrupts as error:
            self._jobs.put(error)
            raise event_loop.Interrupted from error
        except StopIteration as error:
            # As of a coroutine that raises it: no future of asyncio's carries one.
            raise RuntimeError("a step raised StopIteration") from error


def _to_be_awaited(method: M) -> M:
    """Has the desk know of each call until it is awaited; see `drive`."""

    @functools.wraps(method)
    def called(run: "AsyncRun", /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        unawaited = run._desk.unawaited

        async def begun() -> Any:
            del unawaited[id(coroutine)]
            return await method(run, *args, **kwargs)

        begun.__qualname__ = method.__qualname__  # for Python's own warning
        coroutine = begun()
        unawaited[id(coroutine)] = method.__name__, coroutine
        return coroutine

    return cast(M, called)


class AsyncRun(BaseRun):
    """`Run` for an `async def` agent: the same methods, to be awaited. See there for the meaning and errors of each.

    Steps may be taken at once with `asyncio.gather` or a task group; their places in the journal are those in which the
    code comes to them. The memory can be changed in the agent's function, and not inside of steps.

    A step that has begun goes on to its end and is recorded, also if whoever awaits it is cancelled, by
    `asyncio.timeout`, say: on the next attempt it has a result. To end it, give it a timeout with `options`.
    """

    def __init__(
        self,
        attempt: Attempt,
        desk: Desk,
        order: ReplayOrder,
        options: StepOptions = StepOptions(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(attempt, options)
        self._desk = desk
        self._order = order

    @_to_be_awaited
    async def step(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """See `Run.step`. `function` may be async, and is then awaited on the event loop."""
        place = Place.of(self._attempt, Call(name=name, function=function, args=args, kwargs=kwargs))
        return await self._finish(await self._allowed(place))

    @_to_be_awaited
    async def tool(self, tool: Tool[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """See `Run.tool`."""
        return await self.step(name_of_tool(tool), tool, *args, **kwargs)

    @_to_be_awaited
    async def transaction(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """See `Run.transaction`. The function is a plain one."""
        call = Call(name=name, function=function, args=args, kwargs=kwargs)
        return await self._finish(transaction(call, self._options).reach(self._attempt))

    @_to_be_awaited
    async def parallel(self, calls: Calls, *, limit: int = DEFAULT_LIMIT, return_exceptions: bool = False) -> Any:
        """See `Run.parallel`."""
        check_limit(limit)
        places = [Place.of(self._attempt, call) for call in self._all_calls(calls)]
        reached = [await _caught(self._allowed(place)) for place in places]
        # Those that wait for their turn must not keep the others from being taken.
        await self._order.turn(*(one.key for one in reached if isinstance(one, ReachedStep)))
        free = asyncio.Semaphore(limit)

        async def finish(one: ReachedStep | Exception) -> Any:
            if isinstance(one, Exception):
                return one
            async with free:
                try:
                    return await _caught(self._finish(one))
                except StepWaits as waits:
                    return waits

        with self._attempt.nesting.putting_pauses_off() as waits:
            results = await asyncio.gather(*(finish(one) for one in reached))
        if waits:
            await self._do(lambda: pause_together(self._attempt, waits))
        return self._as_given(calls, list(results), return_exceptions=return_exceptions)

    def options(
        self,
        *,
        retry: Retry | None = None,
        returns: Any = MISSING,
        timeout: timedelta | None = None,
        on_crash: OnCrash | None = None,
    ) -> "AsyncRun":
        """See `Run.options`."""
        return AsyncRun(self._attempt, self._desk, self._order, self._changed(retry, returns, timeout, on_crash))

    @_to_be_awaited
    async def ask(self, prompt: JSONValue, **options: Any) -> Any:
        """See `Run.ask`."""
        return await self._take(self._question(prompt, **options))

    @_to_be_awaited
    async def sleep(self, delay: timedelta | float, *, name: str = "sleep") -> None:
        """See `Run.sleep`."""
        await self._take(Sleep.of(name, delay))

    @_to_be_awaited
    async def sleep_until(self, moment: datetime, *, name: str = "sleep") -> None:
        """See `Run.sleep_until`."""
        await self._take(Sleep(name=name, until=moment))

    @_to_be_awaited
    async def wait_for(self, event: str, **options: Any) -> Any:
        """See `Run.wait_for`."""
        return await self._take(self._event(event, **options))

    @_to_be_awaited
    async def spawn(self, agent: Any, input: Any = None, **options: Any) -> Child:  # noqa: A002
        """See `Run.spawn`."""
        child: Child = await self._take(self._spawn(agent, input, **options))
        return child

    @_to_be_awaited
    async def gather(self, *spawned: Child, return_exceptions: bool = False) -> list[Any]:
        """See `Run.gather`."""
        attempt = self._attempt
        keys = come_to_ends(attempt, spawned)
        async with self._in_order(*keys):
            return await self._do(lambda: gather(attempt, spawned, keys, return_exceptions=return_exceptions))

    async def _allowed(self, place: Place) -> ReachedStep:
        if place.approval is None:
            return place.allowed(self._options)
        async with self._in_order(place.approval_key):
            return await self._do(lambda: place.allowed(self._options))

    async def _finish(self, reached: ReachedStep) -> Any:
        if reached.is_recorded:
            await self._order.turn(reached.key)
            return reached.finish()
        async with self._in_order(reached.key):
            return await self._begin(reached)

    async def _begin(self, reached: ReachedStep) -> Any:
        attempt = self._attempt
        attempt.traffic.expect()
        job = self._desk.submit(lambda: reached.finish(is_expected=True))
        job.add_done_callback(lambda job: attempt.traffic.unexpect() if job.cancelled() else None)
        return await asyncio.wrap_future(job)

    async def _take(self, wanted: Durable) -> Any:
        key = self._attempt.come_to(wanted.name)
        async with self._in_order(key):
            return await self._do(lambda: wanted.take(self._attempt, key))

    @asynccontextmanager
    async def _in_order(self, *keys: str) -> AsyncIterator[None]:
        """What is recorded in this block is given out when it is its turn."""
        try:
            yield
        except asyncio.CancelledError:
            for key in keys:
                self._order.forget(key)
            raise
        except Exception:
            await self._order.turn(*keys)
            raise
        await self._order.turn(*keys)

    async def _do(self, job: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._desk.submit(job))


async def _caught(coroutine: Coroutine[Any, Any, T]) -> T | Exception:
    try:
        return await coroutine
    except Exception as error:  # noqa: BLE001 - handed to the caller, in its place
        return error


def drive(attempt: Attempt, function: Callable[[AsyncRun, Any], Coroutine[Any, Any, Any]], value: Any) -> Any:
    """Runs an async agent to its end, in the thread that executes the task; returns what it returns."""
    attempt.nesting.is_concurrent = attempt.memory.is_in_any_order = True
    desk = Desk(attempt, helpers=DEFAULT_LIMIT)
    order = ReplayOrder(attempt.journal)

    async def work() -> Any:
        loop = asyncio.get_running_loop()
        attempt.on_recorded = lambda step: loop.call_soon_threadsafe(order.add, step)
        output = await function(AsyncRun(attempt, desk, order), value)
        _check_all_awaited(desk)
        return output

    return desk.serve(event_loop.start(work()))


def _check_all_awaited(desk: Desk) -> None:
    """Raises `NotAwaited` if the agent would complete without what it has called, and never awaited."""
    forgotten = [
        (name, one) for name, one in desk.unawaited.values() if inspect.getcoroutinestate(one) == inspect.CORO_CREATED
    ]
    for _, one in forgotten:
        one.close()
    if forgotten:
        raise NotAwaited(forgotten[0][0])
