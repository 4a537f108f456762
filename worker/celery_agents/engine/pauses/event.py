"""`run.wait_for`: a pause until somebody sends an event of this name to the execution.

An event that nobody waits for is kept, for the next `wait_for` of its name.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pydantic

from agent_statestore.records import Action, Result, WaitKind
from celery_agents.define import types
from celery_agents.define.names import check_event_name
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.pauses.question import MISSING
from celery_agents.engine.pauses.wait import conclude, wait
from celery_agents.errors import EventTimeout, InvalidResult, JournalMismatch


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitedEvent:
    """An event as the code waits for it. `payload` is the type of what it carries."""

    event: str
    payload: types.Adapter
    timeout: timedelta | None
    default: Any = MISSING

    def __post_init__(self) -> None:
        check_event_name(self.event)

    @property
    def name(self) -> str:
        """The name of its step."""
        return f"event {self.event}"

    def take(self, attempt: Attempt, key: str) -> Any:
        """What the event carried; unwinds the agent until it comes. Raises `EventTimeout`, `InvalidResult`."""
        action = Action(kind="event", input=self.event)
        recorded = attempt.journal.look_up(key, action)
        if recorded is not None and recorded.result is not None:
            return self._replayed(key, recorded.result)
        waited = wait(attempt, WaitKind.EVENT, self.event, step=key, timeout=self.timeout)
        if waited.signal is not None:
            result = self._judged(key, waited.signal.payload)
        elif self.default is MISSING:
            result = Result(success=False, error=describe(EventTimeout(self.event)))
        else:
            result = Result(success=True, output=_TIMED_OUT)
        return self._replayed(key, conclude(attempt, key, action, result, waited.since))

    def _judged(self, key: str, payload: Any) -> Result:
        try:
            types.from_json(self.payload, payload, key)
        except pydantic.ValidationError as error:
            return Result(success=False, error=describe(InvalidResult(key, types.problems(error))))
        except Exception as error:  # noqa: BLE001 - of a validator of the user's; the event is taken nevertheless
            return Result(success=False, error=describe(error))
        return Result(success=True, output={"payload": payload})

    def _replayed(self, key: str, result: Result) -> Any:
        if result.error is not None:
            raise revive(result.error)
        if result.output == _TIMED_OUT:
            return self.default
        try:
            return types.from_json(self.payload, result.output["payload"], key)
        except pydantic.ValidationError as error:
            raise JournalMismatch(
                key, f"its recorded payload does not fit the code's type: {'; '.join(types.problems(error))}"
            ) from error


_TIMED_OUT = {"timed_out": True}
