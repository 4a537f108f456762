"""One durable step: from the journal if it is recorded, else run, tried again as its policy says, and recorded."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import pydantic

from statestore.checkpoint import new_checkpoint_id
from statestore.errors import InvalidRecord, StoreUnavailable
from statestore.records import Action, JSONValue, Result, Wait, WaitKind
from statestore.states import AgentState
from worker import schema
from worker.engine.attempt import Attempt
from worker.engine.failures import describe, revive
from worker.engine.work import OpenWork, Work
from worker.errors import InvalidResult, JournalMismatch
from worker.retry import Retry

# How soon a retry delay that is slept in place notices that the process shuts down.
_DRAIN_LOOK_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step as the code asks for it. `returns` is the type of its result."""

    name: str
    action: Action
    work: Work
    returns: schema.Adapter
    retry: Retry

    def take(self, attempt: Attempt) -> Any:
        """The result: recorded, or made now and recorded before it is returned."""
        key, recorded = attempt.reach(self.name, self.action)
        if recorded is not None and recorded.result is not None:
            return self._replayed(key, recorded.result)
        attempt.begin_step(key, self.action)
        tries = 0 if recorded is None else recorded.tries
        checkpoint_id, unavailable, give_up_at = new_checkpoint_id(), 0, 0.0
        while True:
            tries += 1
            started = attempt.now()
            attempt.memory.begin_step()
            try:
                with self.work.open(attempt, checkpoint_id) as work:
                    return self._do(attempt, key, work, started, tries)
            except _TryFailed as failed:
                error = failed.error
                attempt.memory.roll_back()
                if failed.may_be_retried and self.retry.allows(error, tries):
                    self._wait_to_retry(attempt, key, tries)
                    continue
                raise self._recorded_failure(attempt, key, error, started, tries) from error
            except StoreUnavailable as error:
                # The transaction that the step was part of is gone. That was no fault of the step's: it counts as no
                # try.
                attempt.memory.roll_back()
                tries -= 1
                give_up_at = give_up_at or attempt.held.deadline
                attempt.wait_for_store(error, unavailable, give_up_at)
                unavailable += 1

    def _do(self, attempt: Attempt, key: str, work: OpenWork, started: datetime, tries: int) -> Any:
        """One try. Raises `_TryFailed`, through the work's block, which undoes what can be undone."""
        try:
            with attempt.inside_step(key):
                value, output = self._round_trip(key, work.call())
        except attempt.interrupts:
            raise  # not the step's own: the process, or the whole attempt, is being ended
        except BaseException as error:
            raise _TryFailed(error, may_be_retried=True) from error
        changes = attempt.memory.step_changes()
        result = Result(success=True, output=output)
        step = attempt.make_step(key, self.action, result, started=started, tries=tries, changes=changes)
        try:
            recorded = work.record(step)
        except InvalidRecord as error:  # JSON cannot carry the result, or it is too large
            raise _TryFailed(error, may_be_retried=False) from error
        attempt.memory.keep_step()
        if recorded is step or recorded.result is None:
            return value
        # An earlier try was committed, and its answer lost.
        if changes is not None or recorded.changes is not None:
            attempt.leave_to_next_claim()
        return self._replayed(key, recorded.result)

    def _replayed(self, key: str, result: Result) -> Any:
        if result.error is not None:
            raise revive(result.error)
        try:
            return schema.from_json(self.returns, result.output, key)
        except pydantic.ValidationError as error:
            raise JournalMismatch(
                key, f"its recorded result does not fit the code's type: {'; '.join(schema.problems(error))}"
            ) from error

    def _round_trip(self, key: str, value: Any) -> tuple[Any, JSONValue]:
        """The value as it will be after a crash, and its JSON."""
        try:
            output = schema.to_json(self.returns, value)
            return schema.from_json(self.returns, output, key), output
        except pydantic.ValidationError as error:
            raise InvalidResult(key, schema.problems(error)) from error
        except InvalidRecord as error:
            raise InvalidResult(key, [str(error)]) from error
        except ValueError as error:
            raise InvalidResult(key, [f"not JSON-serialisable: {error}"]) from error

    def _recorded_failure(
        self, attempt: Attempt, key: str, error: BaseException, started: datetime, tries: int
    ) -> Exception:
        """Records the failure. The error to raise is made from the record, as it will be after a crash."""
        info = describe(error)
        result = Result(success=False, error=info)
        attempt.record(attempt.make_step(key, self.action, result, started=started, tries=tries))
        return revive(info)

    def _wait_to_retry(self, attempt: Attempt, key: str, tries: int) -> None:
        """Waits in place if that is short; else pauses on a durable timer, with the number of tries recorded."""
        remaining = self.retry.delay_seconds(tries, attempt.surroundings.jitter)
        if remaining <= attempt.surroundings.inline_wait_seconds:
            wait_until = time.monotonic() + remaining
            while (remaining := wait_until - time.monotonic()) > 0 and not attempt.surroundings.is_draining():
                attempt.held.wait(min(remaining, _DRAIN_LOOK_SECONDS))
                if attempt.held.is_lost or attempt.held.cancel_requested:
                    attempt.enter_boundary()
            if remaining <= 0:
                attempt.enter_boundary()
                return
        now = attempt.now()
        intent = attempt.make_step(key, self.action, None, started=now, tries=tries)
        wake_at = now + timedelta(seconds=remaining)
        attempt.pause(AgentState.WAITING, Wait(kind=WaitKind.TIMER, key=key, asked_at=now, wake_at=wake_at), intent)


class _TryFailed(BaseException):
    """Carries the error of one try out of the block of its work. No code of the agent's sees it."""

    def __init__(self, error: BaseException, *, may_be_retried: bool) -> None:
        super().__init__(error)
        self.error = error
        self.may_be_retried = may_be_retried
