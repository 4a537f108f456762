"""`AsyncRun`: an async agent's door to everything durable. Its coroutine runs on the process's event loop."""

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar, cast, overload

from agent_statestore.records import JSONValue
from celery_agents.define.arguments import ToolContext
from celery_agents.define.called_as import CalledAs
from celery_agents.define.crash_policy import OnCrash
from celery_agents.define.long_term_memory import Recollection
from celery_agents.define.retry import Retry
from celery_agents.define.saying import Saying
from celery_agents.define.tool import Tool
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.order import ReplayOrder
from celery_agents.engine.outcome import ExecutionStopped, ExecutionUnwound
from celery_agents.engine.pauses.child import Child, Spawn, come_to_ends, gather
from celery_agents.engine.pauses.pause import pause_together
from celery_agents.engine.pauses.question import MISSING
from celery_agents.engine.pauses.sleep import Sleep
from celery_agents.engine.pauses.together import ANY, AnyWait, come_to_any, come_to_waits, wait_all, wait_any
from celery_agents.engine.run import event_loop, loop_step
from celery_agents.engine.run.base_run import BaseRun, Calls, Durable
from celery_agents.engine.run.desk import Desk
from celery_agents.engine.run.open_waits import OpenWaits
from celery_agents.engine.run.saying import SAID, said
from celery_agents.engine.run.session import SESSION, OpenSession, RunSession
from celery_agents.engine.steps import groups
from celery_agents.engine.steps.call import (
    Call,
    CallOptions,
    Place,
    come_to,
    is_plain,
    name_of_tool,
    transaction,
)
from celery_agents.engine.steps.parallel import DEFAULT_LIMIT, check_limit
from celery_agents.engine.steps.scope import StepWaits, running
from celery_agents.engine.steps.taking import ReachedStep

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=Callable[..., Coroutine[Any, Any, Any]])


def _to_be_awaited(method: M) -> M:
    """Has the desk know of each call until it is awaited; see `drive`."""

    @functools.wraps(method)
    def called(run: "AsyncRun", /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        unawaited = run._desk.unawaited

        async def begun() -> Any:
            del unawaited[id(coroutine)]
            try:
                return await method(run, *args, **kwargs)
            except ExecutionStopped as stopped:
                raise ExecutionUnwound(stopped.outcome) from None

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
        open_waits: OpenWaits,
        options: CallOptions = CallOptions(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(attempt, options)
        self._desk = desk
        self._order = order
        self._open_waits = open_waits

    @overload
    def step(
        self, name: str, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def step(
        self, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    @_to_be_awaited
    async def step(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """See `Run.step`. `function` may be async, and is then awaited on the event loop."""
        if self._options.group:
            return await self._group(Call(name=name, function=function, args=args, kwargs=kwargs))
        if is_plain(function):
            return await self._finish(come_to(self._attempt, name, function, args, kwargs, self._options))
        place = Place.of(self._attempt, Call(name=name, function=function, args=args, kwargs=kwargs))
        return await self._finish(await self._allowed(place))

    @overload
    def tool(
        self, tool: Tool[Concatenate[ToolContext, P], Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def tool(
        self, tool: Tool[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def tool(
        self, tool: Tool[Concatenate[ToolContext, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def tool(self, tool: Tool[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...
    @_to_be_awaited
    async def tool(self, tool: Tool[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """See `Run.tool`."""
        return await self.step(name_of_tool(tool), tool, *args, **kwargs)

    @_to_be_awaited
    async def transaction(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """See `Run.transaction`. The function is a plain one."""
        call = Call(name=name, function=function, args=args, kwargs=kwargs)
        return await self._finish(transaction(self._attempt, call, self._options))

    @_to_be_awaited
    async def parallel(self, calls: Calls, *, limit: int = DEFAULT_LIMIT, return_exceptions: bool = False) -> Any:
        """See `Run.parallel`."""
        check_limit(limit)
        places = [Place.of(self._attempt, call) for call in self._all_calls(calls)]
        reached = await asyncio.gather(*(_caught(self._allowed(place)) for place in places))
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
            await self._wait(lambda: pause_together(self._attempt, waits))
        return self._as_given(calls, list(results), return_exceptions=return_exceptions)

    def options(
        self,
        *,
        retry: Retry | None = None,
        returns: Any = MISSING,
        timeout: timedelta | None = None,
        on_crash: OnCrash | None = None,
        called_as: CalledAs | None = None,
        group: bool | None = None,
        interruptible: bool | None = None,
    ) -> "AsyncRun":
        """See `Run.options`. The function of a group is async."""
        changed = self._changed(retry, returns, timeout, on_crash, called_as, group, interruptible)
        return AsyncRun(self._attempt, self._desk, self._order, self._open_waits, changed)

    def fail(self, error: Exception) -> NoReturn:
        """See `BaseRun.fail`."""
        try:
            super().fail(error)
        except ExecutionStopped as stopped:
            raise ExecutionUnwound(stopped.outcome) from None

    @_to_be_awaited
    async def ask(self, prompt: JSONValue, **options: Any) -> Any:
        """See `Run.ask`."""
        return await self._take(self._question(prompt, **options))

    @_to_be_awaited
    async def approve(self, tool: str, arguments: Mapping[str, Any], **options: Any) -> dict[str, JSONValue]:
        """See `Run.approve`."""
        approved: dict[str, JSONValue] = await self._take(self._approval(tool, arguments, **options))
        return approved

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
    async def wait_job(self, name: str, submit: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """See `Run.wait_job`. `submit` and `poll` may be async."""
        waiting = {key: options.pop(key) for key in ("poll", "every", "timeout", "event") if key in options}
        submitting = self if self._options.returns is MISSING else self.options(returns=Any)
        submitted = await submitting.step(name, submit, *args, **options)
        return await self._take(self._job(name, submitted, **waiting))

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
        return await self._wait(lambda: gather(attempt, spawned, keys, return_exceptions=return_exceptions), *keys)

    @_to_be_awaited
    async def wait_all(self, *waits: AnyWait, return_exceptions: bool = False) -> list[Any]:
        """See `Run.wait_all`."""
        attempt = self._attempt
        keys = come_to_waits(attempt, waits)
        return await self._wait(lambda: wait_all(attempt, waits, keys, return_exceptions=return_exceptions), *keys)

    @_to_be_awaited
    async def wait_any(self, *waits: AnyWait, name: str = ANY) -> tuple[AnyWait, Any]:
        """See `Run.wait_any`."""
        attempt = self._attempt
        key, keys = come_to_any(attempt, name, waits)
        return await self._wait(lambda: wait_any(attempt, waits, key, keys), key, *keys)

    async def _allowed(self, place: Place) -> ReachedStep:
        if place.approval is None:
            return place.allowed(self._options)
        return await self._wait(lambda: place.allowed(self._options), place.approval_key)

    async def _finish(self, reached: ReachedStep) -> Any:
        if reached.is_recorded:
            await self._order.turn(reached.key)
            self._see((reached.key,))
            return reached.finish()
        return await self._in_order(self._begin(reached), reached.key)

    async def _begin(self, reached: ReachedStep) -> Any:
        step = loop_step.begin(reached, self._desk)
        if step is None:
            course = self._attempt.course
            course.expect()
            job = self._desk.submit(lambda: reached.finish(is_expected=True))
            job.add_done_callback(lambda job: course.unexpect() if job.cancelled() else None)
            step = asyncio.wrap_future(job)
        group = self._attempt.nesting.group
        if group is not None:
            group.hold(step)
            return await asyncio.shield(step)
        return await step

    async def _group(self, call: Call) -> Any:
        reached = await self._allowed(Place.of(self._attempt, call))
        if reached.is_recorded:
            return await self._finish(reached)
        called = groups.Called.of(reached)
        with self._attempt.nesting.inside_group(reached.key) as group:
            await called.make_async()
            if group.in_flight:
                await asyncio.wait(group.in_flight)
        return await self._in_order(self._do(called.record), reached.key)

    @_to_be_awaited
    async def recall(self, question: str, *, k: int = 5, entity: str | None = None) -> Recollection:
        asking = self._recalling(question, k, entity)
        try:
            request = next(asking)
            while True:
                request = asking.send(await request(self))
        except StopIteration as found:
            return cast(Recollection, found.value)

    @_to_be_awaited
    async def said(self, *, turn_is_over: bool = True) -> tuple[Saying, ...]:
        """See `Run.said`."""
        attempt, modes = self._attempt, self._modes(turn_is_over=turn_is_over)
        key = attempt.journal.come_to_look(SAID)
        with self._open_waits.in_flight():
            return await self._order.look(lambda: self._do(lambda: said(attempt, key, modes)))

    async def _write_pending(self) -> None:
        await self._do(self._record_pending)

    @property
    def session(self) -> Coroutine[Any, Any, RunSession]:
        """The conversation of the session, to be awaited; see `Run.session`."""
        return self._session()

    @_to_be_awaited
    async def _session(self) -> RunSession:
        opened = self._opened_session()
        if opened is not None:
            return opened
        key = self._attempt.journal.come_to(SESSION)
        opening = self._do(lambda: OpenSession().take(self._attempt, key))
        return self._keep_session(await self._in_order(opening, key))

    async def _take(self, wanted: Durable) -> Any:
        key = self._attempt.journal.come_to(wanted.name)
        if isinstance(wanted, Spawn):
            return await self._in_order(self._do(lambda: wanted.take(self._attempt, key)), key)
        return await self._wait(lambda: wanted.take(self._attempt, key), key)

    async def _wait(self, look: Callable[[], T], *keys: str) -> T:
        """Await what waits, or is recorded in these steps. Waits of other tasks are open at the same time."""
        return await self._open_waits.wait(look, lambda looking: self._given_out(looking, *keys))

    async def _in_order(self, recording: Coroutine[Any, Any, T], *keys: str) -> T:
        """Await what records these steps; what comes of it is given out when it is its turn."""
        with self._open_waits.in_flight():
            return await self._given_out(recording, *keys)

    async def _given_out(self, recording: Coroutine[Any, Any, T], *keys: str) -> T:
        try:
            result = await recording
        except asyncio.CancelledError:
            for key in keys:
                self._order.forget(key)
            raise
        except Exception:
            await self._order.turn(*keys)
            self._see(keys)
            raise
        await self._order.turn(*keys)
        self._see(keys)
        return result

    def _see(self, keys: Sequence[str]) -> None:
        """The code is about to have the results of these steps."""
        journal = self._attempt.journal
        if journal.has_spent:
            journal.see(keys)

    async def _do(self, job: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._desk.submit(job))


async def _caught(coroutine: Coroutine[Any, Any, T]) -> T | Exception:
    try:
        return await coroutine
    except Exception as error:  # noqa: BLE001 - handed to the caller, in its place
        return error


def drive(attempt: Attempt, function: Callable[[AsyncRun, Any], Coroutine[Any, Any, Any]], value: Any) -> Any:
    """Runs an async agent to its end, in the thread that executes the task; returns what it returns."""
    attempt.nesting.is_concurrent = attempt.memory.conversation.is_in_any_order = True
    attempt.journal.sees_at_once = False
    desk = Desk(attempt.course, helpers=DEFAULT_LIMIT)
    order = ReplayOrder(step for step in attempt.journal if step.name not in attempt.journal.passed)

    async def work() -> Any:
        order.begin()
        attempt.journal.thread = threading.get_ident()
        # Before any subscriber: what they do with a record does not hold up its result.
        attempt.recorder.listeners.insert(0, order.add)
        run = AsyncRun(attempt, desk, order, OpenWaits(attempt, desk, order))
        with running(run):
            output = await function(run, value)
        desk.check_all_awaited()
        return output

    return desk.serve(event_loop.start(work()))
