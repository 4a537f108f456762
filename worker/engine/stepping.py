"""One durable step: from the journal if it is recorded, else run, tried again as its policy says, and recorded."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import pydantic

from statestore.errors import InvalidRecord
from statestore.records import Action, JSONValue, Result, Wait, WaitKind
from statestore.states import AgentState
from worker import schema
from worker.engine.attempt import Attempt
from worker.engine.failures import describe, revive
from worker.errors import InvalidResult, JournalMismatch
from worker.retry import Retry

# How soon a retry delay that is slept in place notices that the process shuts down.
_DRAIN_LOOK_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step as the code asks for it. `call` does the work; `returns` is the type of its result."""

    name: str
    action: Action
    call: Callable[[], Any]
    returns: schema.Adapter
    retry: Retry

    def take(self, attempt: Attempt) -> Any:
        """The result: recorded, or made now and recorded before it is returned."""
        key, recorded = attempt.reach(self.name, self.action)
        if recorded is not None and recorded.result is not None:
            return self._replayed(key, recorded.result)
        attempt.begin_step(key, self.action)
        tries = 0 if recorded is None else recorded.tries
        while True:
            tries += 1
            started = attempt.now()
            attempt.memory.begin_step()
            try:
                with attempt.inside_step(key):
                    value, output = self._round_trip(key, self.call())
            except attempt.interrupts:
                raise  # not the step's own: the process, or the whole attempt, is being ended
            except BaseException as error:
                attempt.memory.roll_back()
                if self.retry.allows(error, tries):
                    self._wait_to_retry(attempt, key, tries)
                    continue
                raise self._recorded_failure(attempt, key, error, started, tries) from error
            changes = attempt.memory.step_changes()
            result = Result(success=True, output=output)
            try:
                attempt.record(
                    attempt.make_step(key, self.action, result, started=started, tries=tries, changes=changes)
                )
            except InvalidRecord as error:  # JSON cannot carry the result, or it is too large
                attempt.memory.roll_back()
                raise self._recorded_failure(attempt, key, error, started, tries) from error
            attempt.memory.keep_step()
            return value

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
