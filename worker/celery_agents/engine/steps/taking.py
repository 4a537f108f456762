"""Takes a step: from the journal if it is recorded, else run, tried again as its policy says, and recorded."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pydantic

from agent_statestore.errors import ContextTooLarge, InvalidRecord, StoreUnavailable
from agent_statestore.records import Action, AgentStep, Result, Wait, WaitKind
from agent_statestore.states import AgentState
from agent_statestore.streams.records import StreamKind
from celery_agents.define import types
from celery_agents.define.called_as import CalledKind
from celery_agents.define.crash_policy import CrashPolicy
from celery_agents.define.saying import CallInterrupted
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.events import EventKind
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import as_seen_here, revive
from celery_agents.engine.pauses.limit import keep_within_limits
from celery_agents.engine.pauses.pause import pause_step
from celery_agents.engine.pauses.sleep import sleep_in_place
from celery_agents.engine.run.event_loop import Interrupted
from celery_agents.engine.steps import crash
from celery_agents.engine.steps.step import Step
from celery_agents.engine.steps.work import OpenWork, Try, Work
from celery_agents.engine.stream.telling import failed_try
from celery_agents.errors import JournalMismatch, StepTimeout


def reach(attempt: Attempt, step: Step, key: str) -> "ReachedStep":
    """The code has come to a step, at this place in its order."""
    return ReachedStep(step, attempt, key, attempt.journal.look_up(key, step.action))


def begin_step(attempt: Attempt, key: str, action: Action, *, is_new: bool = True, is_expected: bool = False) -> None:
    """A step that has no result yet is about to run, inside of `Course.busy`. Raise `LimitExceeded`.

    One that is expected is still taken before a pause. Of one that is not new an intent is recorded.
    """
    course = attempt.course
    with course.lock:  # of steps that begin at once, as many go on as there may be
        course.enter_boundary(is_expected=is_expected)
        if is_new:
            course.unrecorded.add(key)
            if action.kind == CalledKind.HANDLER:
                attempt.limits.exempt()
        number = attempt.journal.last_number + len(course.unrecorded)
        if attempt.limits.reached(number) is not None:
            keep_within_limits(attempt, number, in_step=True)
    if attempt.outlet is not None:
        attempt.outlet.begin(key, action, 1)
    if attempt.events is not None:
        state = AgentState.USING_TOOL if action.kind == "tool" else AgentState.THINKING
        attempt.events.tell(EventKind.STATE, state, tool=action.tool)


def begin_at_once(attempt: Attempt, key: str, action: Action) -> bool:
    """`begin_step` for a new step, inside of `Course.busy`, where nothing may block; False if that might."""
    course, held = attempt.course, attempt.held
    if course.stopped is not None or held.is_lost or held.cancel_requested or course.is_draining():
        return False
    if attempt.limits.reached(attempt.journal.last_number + len(course.unrecorded) + 1) is not None:
        return False
    course.unrecorded.add(key)
    if action.kind == CalledKind.HANDLER:
        attempt.limits.exempt()
    if attempt.outlet is not None:
        attempt.outlet.begin(key, action, 1)
    if attempt.events is not None:
        state = AgentState.USING_TOOL if action.kind == "tool" else AgentState.THINKING
        attempt.events.tell(EventKind.STATE, state, tool=action.tool)
    return True


# Not frozen, as one is made for every step, and a frozen one takes several times as long.
@dataclass(slots=True)
class ReachedStep:
    """A step at its place in the code's order; `recorded` is what the journal has of it."""

    step: Step
    attempt: Attempt
    key: str
    recorded: AgentStep | None
    # When its function was called, if that is done already.
    called_at: datetime | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether `finish` only reads."""
        return self.recorded is not None and self.recorded.result is not None

    def finish(self, *, is_expected: bool = False) -> Any:
        """Return the result: recorded, or made now and recorded before.

        `is_expected` says that `Course.expect` was called for it.
        """
        recorded = self.recorded
        if recorded is not None and recorded.result is not None:
            return self._replayed(recorded.result)
        attempt = self.attempt
        with attempt.course.busy(self.key, is_expected=is_expected):
            begin_step(attempt, self.key, self.step.action, is_new=recorded is None, is_expected=is_expected)
            if recorded is not None and recorded.in_flight:
                result = crash.settle(self.step, attempt, recorded)
                if result is not None:
                    return self._settled(recorded, result)
            return self._try(0 if recorded is None else recorded.tries)

    def finish_called(self, work: Work, called_at: datetime) -> Any:
        """Return the result, where the step is in flight and its function was called: `work` has what came of that."""
        called = ReachedStep(replace(self.step, work=work), self.attempt, self.key, None, called_at)
        return called._try(0)

    def finish_made(self, called_at: datetime) -> Any:
        """Return the result, where the function only tells what came of a call that was made outside of the step."""
        self.called_at = called_at
        return self._try(0)

    def _try(self, tries: int) -> Any:
        step, attempt = self.step, self.attempt
        patience = None
        while True:
            tries += 1
            if tries > 1 and attempt.outlet is not None:
                attempt.outlet.begin(self.key, step.action, tries)
            started, self.called_at = self.called_at or attempt.now(), None
            if step.crash_policy is not CrashPolicy.RETRY:
                self._record_intent(started, tries)
            if not attempt.nesting.is_concurrent:
                attempt.memory.begin_step()
            try:
                result = step.work.open(attempt, Try(self.key, tries), partial(self._do, started, tries))
                if patience is not None:
                    patience.succeeded()
                return result
            except _TryFailed as failed:
                error = failed.error
                self._roll_back()
                delay: float | None = None
                try:
                    if failed.may_be_retried and step.retry.allows(error, tries) and attempt.may_retry():
                        delay = step.retry.delay_seconds(tries, attempt.environment.jitter, error)
                except Exception as broken:  # noqa: BLE001 - of the functions that the policy was given
                    broken.__context__ = None
                    error = broken
                if attempt.outlet is not None:
                    attempt.outlet.say(StreamKind.TRY_FAILED, failed_try(error, delay), step=self.key, tried=tries)
                if delay is not None:
                    self._wait_to_retry(tries, timedelta(seconds=delay))
                    continue
                failure = self._recorded_failure(error, started, tries)
                break
            except StoreUnavailable as error:
                # The transaction that the step was part of is gone. That was no fault of the step's: it counts as no
                # try.
                self._roll_back()
                tries -= 1
                patience = patience or attempt.patience()
                patience.wait(error)
        raise failure  # out of the block above, so that it has the cause that is recorded, and no other

    def _do(self, started: datetime, tries: int, work: OpenWork) -> Any:
        """One try. Raise `_TryFailed`, through the work, which undoes what can be undone."""
        attempt, key = self.attempt, self.key
        try:
            around = attempt.nesting.enter_step(key)
            try:
                given = work.call() if attempt.stage is None else attempt.stage.call(key, work.call)
                value, output = types.round_trip(self.step.returns, key, given)
            finally:
                attempt.nesting.leave_step(around)
        except attempt.course.interrupts as error:
            if attempt.course.is_interrupt(error):
                raise  # not the step's own: the process, or the whole attempt, is being ended
            raise _TryFailed(error, may_be_retried=False) from error
        except Interrupted as error:
            attempt.course.enter_boundary()
            raise _TryFailed(error, may_be_retried=True) from error
        except CallInterrupted as error:
            raise _TryFailed(error, may_be_retried=False) from error
        except StepTimeout as error:
            raise _TryFailed(error, may_be_retried=not error.still_running) from error
        except BaseException as error:
            raise _TryFailed(error, may_be_retried=True) from error
        changes = None if attempt.nesting.is_concurrent else attempt.memory.step_changes()
        with attempt.course.lock:
            record = attempt.recorder.make_step(
                key,
                self.step.action,
                Result(success=True, output=output),
                started=started,
                tries=tries,
                changes=changes,
            )
            try:
                recorded = work.record(record)
            except InvalidRecord as error:  # JSON cannot carry the result, or it is too large
                raise _TryFailed(error, may_be_retried=False) from error
        attempt.memory.keep_step()
        if recorded is record or recorded.result is None:
            return value
        # An earlier try was committed, and its answer lost.
        if changes is not None or recorded.changes is not None:
            attempt.course.leave_to_next_claim()
        return self._replayed(recorded.result)

    def _record_intent(self, started: datetime, tries: int) -> None:
        recorder, action = self.attempt.recorder, self.step.action
        with self.attempt.course.lock:
            recorder.record(recorder.make_step(self.key, action, None, started=started, tries=tries, in_flight=True))

    def _settled(self, intent: AgentStep, result: Result) -> Any:
        """Record what became of an interrupted call."""
        with self.attempt.course.lock:
            try:
                self._record(result, intent.timestamp, intent.tries)
            except InvalidRecord as error:  # what a person or a reconcile function gave is too large
                result = Result(success=False, error=describe(error))
                self._record(result, intent.timestamp, intent.tries)
        return self._replayed(result)

    def _recorded_failure(self, error: BaseException, started: datetime, tries: int) -> Exception:
        """Record the failure. The error to raise is made from the record, as it will be after a crash."""
        info = describe(error)
        try:
            self._record(Result(success=False, error=info), started, tries)
        except ContextTooLarge as full:
            # Not even this fits. Code that catches it would call its functions again and again, without a record.
            recorder = self.attempt.recorder
            failed = Result(success=False, error=info)
            with self.attempt.course.lock:
                step = recorder.make_step(self.key, self.step.action, failed, started=started, tries=tries)
                self.attempt.last_write.give_up(full, step)
        return as_seen_here(revive(info), error)

    def _record(self, result: Result, started: datetime, tries: int) -> None:
        recorder = self.attempt.recorder
        with self.attempt.course.lock:
            recorder.record(recorder.make_step(self.key, self.step.action, result, started=started, tries=tries))

    def _roll_back(self) -> None:
        if not self.attempt.nesting.is_concurrent:
            self.attempt.memory.roll_back()

    def _replayed(self, result: Result) -> Any:
        if result.error is not None:
            raise revive(result.error)
        try:
            return types.from_record(self.step.returns, result.output, self.key)
        except pydantic.ValidationError as error:
            raise JournalMismatch(
                self.key, f"its recorded result does not fit the code's type: {'; '.join(types.problems(error))}"
            ) from error

    def _wait_to_retry(self, tries: int, delay: timedelta) -> None:
        """Wait in place if that is short; else pause on a durable timer, with the number of tries recorded."""
        attempt = self.attempt
        remaining = sleep_in_place(attempt, delay)
        if remaining is None:
            return
        with attempt.course.lock:
            now = attempt.now()
            intent = attempt.recorder.make_step(self.key, self.step.action, None, started=now, tries=tries)
            pause_step(attempt, Wait(kind=WaitKind.TIMER, key=self.key, asked_at=now, wake_at=now + remaining), intent)


class _TryFailed(BaseException):
    """Carries the error of one try out of the block of its work. No code of the agent's sees it."""

    def __init__(self, error: BaseException, *, may_be_retried: bool) -> None:
        super().__init__(error)
        self.error = error
        self.may_be_retried = may_be_retried
