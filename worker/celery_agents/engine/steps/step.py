"""One durable step: from the journal if it is recorded, else run, tried again as its policy says, and recorded."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pydantic

from agent_statestore.checkpoint import new_checkpoint_id
from agent_statestore.errors import InvalidRecord, StoreUnavailable
from agent_statestore.records import Action, AgentStep, Result, StepChanges, Wait, WaitKind
from celery_agents.define import types
from celery_agents.define.crash_policy import CrashPolicy
from celery_agents.define.retry import Retry
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe, revive
from celery_agents.engine.journal.results import round_trip
from celery_agents.engine.pauses.pause import pause_step
from celery_agents.engine.pauses.sleep import sleep_in_place
from celery_agents.engine.run.event_loop import Interrupted
from celery_agents.engine.steps import crash
from celery_agents.engine.steps.work import OpenWork, Try, Work
from celery_agents.errors import JournalMismatch, StepTimeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step as the code asks for it.

    `returns` is the type of its result. `crash_policy` says what is done about a call during which the process died,
    and `reconcile` is its function, if it has one.
    """

    name: str
    action: Action
    work: Work
    returns: types.Adapter
    retry: Retry
    crash_policy: CrashPolicy = CrashPolicy.RETRY
    reconcile: Callable[[Try], Any] | None = None

    def take(self, attempt: Attempt) -> Any:
        """The result: recorded, or made now and recorded before it is returned."""
        return self.reach(attempt).finish()

    def reach(self, attempt: Attempt, key: str | None = None) -> "ReachedStep":
        """The code has come to it: from now on its place in the journal is fixed, if it is not by this `key`."""
        key = key or attempt.come_to(self.name)
        return ReachedStep(step=self, attempt=attempt, key=key, recorded=attempt.look_up(key, self.action))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedStep:
    """A step at its place in the code's order; `recorded` is what the journal has of it."""

    step: Step
    attempt: Attempt
    key: str
    recorded: AgentStep | None

    @property
    def is_recorded(self) -> bool:
        """Whether `finish` only reads."""
        return self.recorded is not None and self.recorded.result is not None

    def finish(self, *, is_expected: bool = False) -> Any:
        """The result; see `Step.take`. `is_expected` says that `Traffic.expect` was called for it."""
        recorded = self.recorded
        if recorded is not None and recorded.result is not None:
            return self._replayed(recorded.result)
        attempt = self.attempt
        with attempt.busy(self.key, is_expected=is_expected):
            attempt.begin_step(self.key, self.step.action, is_expected=is_expected)
            if recorded is not None and recorded.in_flight:
                result = crash.settle(self.step, attempt, recorded)
                if result is not None:
                    return self._settled(recorded, result)
            return self._try(0 if recorded is None else recorded.tries)

    def _try(self, tries: int) -> Any:
        step, attempt = self.step, self.attempt
        checkpoint_id, unavailable, give_up_at = new_checkpoint_id(), 0, 0.0
        while True:
            tries += 1
            started = attempt.now()
            if step.crash_policy is not CrashPolicy.RETRY:
                with attempt.lock:
                    attempt.record_intent(self._record(None, started=started, tries=tries, in_flight=True))
            if not attempt.nesting.is_concurrent:
                attempt.memory.begin_step()
            try:
                with step.work.open(attempt, Try(self.key, tries), checkpoint_id) as work:
                    return self._do(work, started, tries)
            except _TryFailed as failed:
                error = failed.error
                self._roll_back()
                if failed.may_be_retried and step.retry.allows(error, tries) and attempt.may_retry():
                    self._wait_to_retry(tries)
                    continue
                raise self._recorded_failure(error, started, tries) from error
            except StoreUnavailable as error:
                # The transaction that the step was part of is gone. That was no fault of the step's: it counts as no
                # try.
                self._roll_back()
                tries -= 1
                give_up_at = give_up_at or attempt.held.deadline
                attempt.wait_for_store(error, unavailable, give_up_at)
                unavailable += 1

    def _do(self, work: OpenWork, started: datetime, tries: int) -> Any:
        """One try. Raises `_TryFailed`, through the work's block, which undoes what can be undone."""
        attempt = self.attempt
        try:
            with attempt.inside_step(self.key):
                value, output = round_trip(self.step.returns, self.key, work.call())
        except attempt.interrupts:
            raise  # not the step's own: the process, or the whole attempt, is being ended
        except Interrupted as error:
            attempt.enter_boundary()
            raise _TryFailed(error, may_be_retried=True) from error
        except StepTimeout as error:
            raise _TryFailed(error, may_be_retried=not error.still_running) from error
        except BaseException as error:
            raise _TryFailed(error, may_be_retried=True) from error
        changes = None if attempt.nesting.is_concurrent else attempt.memory.step_changes()
        result = Result(success=True, output=output)
        with attempt.lock:
            record = self._record(result, started=started, tries=tries, changes=changes)
            try:
                recorded = work.record(record)
            except InvalidRecord as error:  # JSON cannot carry the result, or it is too large
                raise _TryFailed(error, may_be_retried=False) from error
        attempt.memory.keep_step()
        if recorded is record or recorded.result is None:
            return value
        # An earlier try was committed, and its answer lost.
        if changes is not None or recorded.changes is not None:
            attempt.leave_to_next_claim()
        return self._replayed(recorded.result)

    def _settled(self, intent: AgentStep, result: Result) -> Any:
        """Records what became of an interrupted call."""
        started, tries = intent.timestamp, intent.tries
        with self.attempt.lock:
            try:
                self.attempt.record(self._record(result, started=started, tries=tries))
            except InvalidRecord as error:  # what a person or a reconcile function gave is too large
                result = Result(success=False, error=describe(error))
                self.attempt.record(self._record(result, started=started, tries=tries))
        return self._replayed(result)

    def _record(
        self,
        result: Result | None,
        *,
        started: datetime,
        tries: int,
        changes: StepChanges | None = None,
        in_flight: bool = False,
    ) -> AgentStep:
        return self.attempt.make_step(
            self.key,
            self.step.action,
            result,
            started=started,
            tries=tries,
            changes=changes,
            in_flight=in_flight,
        )

    def _roll_back(self) -> None:
        if not self.attempt.nesting.is_concurrent:
            self.attempt.memory.roll_back()

    def _replayed(self, result: Result) -> Any:
        if result.error is not None:
            raise revive(result.error)
        try:
            return types.from_json(self.step.returns, result.output, self.key)
        except pydantic.ValidationError as error:
            raise JournalMismatch(
                self.key, f"its recorded result does not fit the code's type: {'; '.join(types.problems(error))}"
            ) from error

    def _recorded_failure(self, error: BaseException, started: datetime, tries: int) -> Exception:
        """Records the failure. The error to raise is made from the record, as it will be after a crash."""
        info = describe(error)
        result = Result(success=False, error=info)
        with self.attempt.lock:
            self.attempt.record(self._record(result, started=started, tries=tries))
        return revive(info)

    def _wait_to_retry(self, tries: int) -> None:
        """Waits in place if that is short; else pauses on a durable timer, with the number of tries recorded."""
        attempt = self.attempt
        delay = timedelta(seconds=self.step.retry.delay_seconds(tries, attempt.environment.jitter))
        remaining = sleep_in_place(attempt, delay)
        if remaining is None:
            return
        with attempt.lock:
            now = attempt.now()
            intent = self._record(None, started=now, tries=tries)
            pause_step(attempt, Wait(kind=WaitKind.TIMER, key=self.key, asked_at=now, wake_at=now + remaining), intent)


class _TryFailed(BaseException):
    """Carries the error of one try out of the block of its work. No code of the agent's sees it."""

    def __init__(self, error: BaseException, *, may_be_retried: bool) -> None:
        super().__init__(error)
        self.error = error
        self.may_be_retried = may_be_retried
