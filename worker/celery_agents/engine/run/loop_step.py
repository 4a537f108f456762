"""A step of an async agent that is called where its agent runs: on the event loop.

Only its record leaves the loop. The scribe writes it together with those of other executions. What does not go the
plain way (a failure, a retry, a store that does not answer) goes on in the thread that executes the task, from the call
that was made: that is the way of all other steps, and the rules are there.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from datetime import datetime
from threading import Thread
from types import CoroutineType
from typing import Any, Final

from agent_statestore.checkpoint import LeasedWrite
from agent_statestore.errors import StoreError, StoreUnavailable
from agent_statestore.plain_text import line_logger
from agent_statestore.records import Checkpointed, JSONValue, Result
from celery_agents.define import types
from celery_agents.define.crash_policy import CrashPolicy
from celery_agents.engine.cutting import CuttableCall
from celery_agents.engine.journal.recorder import Writing
from celery_agents.engine.run.desk import Desk
from celery_agents.engine.run.event_loop import Interrupted
from celery_agents.engine.run.scribe import scribe_of
from celery_agents.engine.steps.calling import within
from celery_agents.engine.steps.taking import ReachedStep, begin_at_once
from celery_agents.engine.steps.work import CalledWork, PlainWork, Try

log = line_logger(__name__)


def begin(reached: ReachedStep, desk: Desk) -> "asyncio.Future[Any] | None":
    """Begin the step on the event loop, if nothing of it has to block; return its result to be awaited.

    The step goes on to its end if whoever awaits it is cancelled.
    """
    attempt, step = reached.attempt, reached.step
    work, course = step.work, attempt.course
    if (
        type(work) is not PlainWork
        or not work.is_async
        or reached.recorded is not None
        or step.crash_policy is not CrashPolicy.RETRY  # its intent is recorded before the call
        or attempt.stage is not None
        or not attempt.recorder.store.writes_together
        or not (attempt.events is None or attempt.events.are_quick)
        or not desk.takes_loop_steps
        or not course.lock.acquire(blocking=False)
    ):
        return None
    try:
        busy = course.busy(reached.key)
        busy.__enter__()
        has_begun = begin_at_once(attempt, reached.key, step.action)
        if not has_begun:
            busy.__exit__(None, None, None)
            return None
    finally:
        course.lock.release()
    return _LoopStep(reached, work, desk, busy).begin()


class _LoopStep:
    """A step in flight. Its parts run on the loop, but for those of `Entry`, and those that the desk's thread does."""

    def __init__(self, reached: ReachedStep, work: PlainWork, desk: Desk, busy: AbstractContextManager[None]) -> None:
        self._reached = reached
        self._work = work
        self._desk = desk
        self._busy = busy
        self.loop: Final = asyncio.get_running_loop()
        self.execution_id: Final = reached.attempt.context.execution_id
        self._future: asyncio.Future[Any] = self.loop.create_future()
        self._context = copy_context()
        self._called_at: datetime = reached.attempt.now()
        self._is_called = False
        self._given: Any = None  # what the function returned
        self._value: Any = None  # the same as it will be after a crash
        self._output: JSONValue = None  # and as it is recorded
        self._writing: Writing | None = None

    def begin(self) -> "asyncio.Future[Any]":
        """Have the function called, in a task and a context of its own."""
        context = self._context.copy()
        context.run(self._reached.attempt.nesting.enter_step, self._reached.key)
        self.task = self.loop.create_task(self._call(), context=context)
        self.task.add_done_callback(self._look_whether_called)
        self._desk.loop_steps.add(self)
        return self._future

    async def _call(self) -> None:
        self._is_called = True
        reached, work = self._reached, self._work
        key, attempt = reached.key, reached.attempt
        cut: CuttableCall | None = None
        try:
            given = work.function(Try(key, 1))
            if isinstance(given, CoroutineType):
                with attempt.held.telling(self._interrupt), self._cuttable() as cut:
                    given = await (given if work.timeout is None else within(given, key, work.timeout))
        except GeneratorExit:
            raise  # the interpreter ends
        except BaseException as error:  # noqa: BLE001 - judged by the thread that goes on with it
            if cut is not None and cut.was_cut and not (attempt.held.is_lost or attempt.held.cancel_requested):
                error = cut.interrupted(error)
            elif isinstance(error, asyncio.CancelledError):
                error = Interrupted()
            self._leave(CalledWork(work, error=error))
            return
        self._given = given
        try:
            self._value, self._output = types.round_trip(reached.step.returns, key, given)
            store = attempt.recorder.store
            scribe_of(store).take(store, self)
        except Exception:  # noqa: BLE001 - raised again by the thread that goes on with it
            self._leave(CalledWork(work, value=given))

    @contextmanager
    def _cuttable(self) -> Iterator[CuttableCall | None]:
        """Somebody may cut the function off in this block, if it is such a one."""
        if not self._work.is_cuttable:
            yield None
            return
        with self._reached.attempt.held.cuttable.call(self._reached.key) as cut:
            cut.ends_by(self._interrupt)
            yield cut

    def _interrupt(self) -> None:
        """Cancel the function: the lease is lost, or a cancel is asked for. Called in any thread."""
        self.loop.call_soon_threadsafe(self.task.cancel)

    def _look_whether_called(self, _: "asyncio.Task[None]") -> None:
        if not self._is_called:  # cancelled before
            self._leave(CalledWork(self._work, error=Interrupted()))

    # -- recording: an `Entry` of the scribe, in its thread ------------------------------------------------------------

    def start_writing(self) -> LeasedWrite | None:
        """See `Entry`. `Course.lock` is held until `end_writing`."""
        attempt, step = self._reached.attempt, self._reached.step
        if not attempt.course.lock.acquire(blocking=False):  # a plain step of the same agent is being recorded
            self._leave(CalledWork(self._work, value=self._given))
            return None
        try:
            if attempt.recorder.unknown is not None or attempt.memory.outbox.pending.goes_out:
                raise StoreUnavailable(attempt.recorder.store.url, "more has to be written than this record")
            result = Result(success=True, output=self._output)
            record = attempt.recorder.make_step(self._reached.key, step.action, result, started=self._called_at)
            self._writing = attempt.recorder.start_writing(record)
        except BaseException:  # noqa: BLE001 - raised again by the thread that goes on with it
            attempt.course.lock.release()
            self._leave(CalledWork(self._work, value=self._given))
            return None
        return self._writing.write

    def end_writing(self, outcome: Checkpointed | StoreError | None) -> bool:
        """See `Entry`."""
        attempt, writing = self._reached.attempt, self._writing
        assert writing is not None, "begun before"
        try:
            if isinstance(outcome, Checkpointed):
                attempt.recorder.end_writing(writing, outcome)
                self._busy.__exit__(None, None, None)
                return True
            if outcome is None or isinstance(outcome, StoreUnavailable):
                attempt.recorder.unknown = writing
            else:
                attempt.recorder.undo_writing(writing)
        finally:
            attempt.course.lock.release()
        self._leave(CalledWork(self._work, value=self._given))
        return False

    def give_out(self) -> None:
        """See `Entry`."""
        self._desk.loop_step_ends(self)
        if not self._future.done():
            self._future.set_result(self._value)

    # -- going on in the desk's thread ---------------------------------------------------------------------------------

    def _leave(self, called: CalledWork) -> None:
        """Leave the step to the desk, with what came of the call. In any thread; waits for nothing."""

        def finish() -> Any:
            try:
                return self._reached.finish_called(called, self._called_at)
            finally:
                self._busy.__exit__(None, None, None)

        self._desk.submit(finish, self._context).add_done_callback(self._tell_loop)

    def _tell_loop(self, job: "Future[Any]") -> None:
        if job.cancelled():  # the attempt was ended from outside: what it has in flight waits for nothing
            _in_thread(lambda: self._busy.__exit__(None, None, None))
        self.loop.call_soon_threadsafe(self._take_over, job)

    def _take_over(self, job: "Future[Any]") -> None:
        self._desk.loop_step_ends(self)
        if self._future.done():
            return
        if job.cancelled():
            self._future.cancel()
        elif (error := job.exception()) is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(job.result())


def _in_thread(function: Callable[[], object]) -> None:
    try:
        Thread(target=function, daemon=True).start()
    except RuntimeError as error:  # no more threads are to be had
        log.warning("a step that was given up still counts as in flight: %s", error)
