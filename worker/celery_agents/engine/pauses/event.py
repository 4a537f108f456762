"""`run.wait_for`: a pause until somebody sends an event of this name to the execution.

An event that nobody waits for is kept, for the next `wait_for` of its name. While one is waited for, the door holds
what is sent against the type that is wanted. What came before that, and does not fit, is passed over: the reason is
recorded, and the execution waits on. It would otherwise fail for good by what anybody may have sent.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pydantic

from agent_statestore.records import Action, Result, WaitKind
from celery_agents.define import types
from celery_agents.define.answers import Expected, name_of_type
from celery_agents.define.names import check_event_name
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.pauses.question import MISSING
from celery_agents.engine.pauses.rounds import Round
from celery_agents.engine.pauses.signal import Waited
from celery_agents.engine.pauses.wait import conclude, wait
from celery_agents.errors import EventTimeout, JournalMismatch


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitedEvent:
    """An event as the code waits for it. `payload` is what it must carry, and `annotation` names its type."""

    event: str
    payload: Expected
    annotation: Any
    timeout: timedelta | None
    default: Any = MISSING

    def __post_init__(self) -> None:
        check_event_name(self.event)

    @property
    def name(self) -> str:
        """The name of its step."""
        return f"event {self.event}"

    def take(self, attempt: Attempt, key: str) -> Any:
        """What the event carried; unwinds the agent until it comes. Raises `EventTimeout`."""
        action = Action(kind="event", input=self.event)
        recorded = attempt.journal.look_up(key, action)
        if recorded is not None and recorded.result is not None:
            return self._replayed(key, recorded.result)
        asked = Round.of(recorded)
        while True:
            waited = self._wait(attempt, key, asked)
            if waited.signal is None:
                result = self._timed_out()
                break
            problems = self.payload.problems(waited.signal.payload, key)
            if not problems:
                result = Result(success=True, output={"payload": waited.signal.payload})
                break
            asked = asked.refuse(attempt, key, action, waited.signal, problems, waited.since, what="an event")
        return self._replayed(key, conclude(attempt, key, action, result, waited.since, asked))

    def _wait(self, attempt: Attempt, key: str, asked: Round) -> Waited:
        return wait(
            attempt,
            WaitKind.EVENT,
            self.event,
            step=key,
            timeout=self.timeout,
            schema=self.payload.json_schema(),
            asked=asked,
            answer_type=None
            if self.annotation is MISSING
            else name_of_type(self.annotation, attempt.environment.names()),
        )

    def _timed_out(self) -> Result:
        if self.default is MISSING:
            return Result(success=False, error=describe(EventTimeout(self.event)))
        return Result(success=True, output=_TIMED_OUT)

    def _replayed(self, key: str, result: Result) -> Any:
        if result.error is not None:
            raise revive(result.error)
        if result.output == _TIMED_OUT:
            return self.default
        try:
            return types.from_json(self.payload.adapter, result.output["payload"], key)
        except pydantic.ValidationError as error:
            raise JournalMismatch(
                key, f"its recorded payload does not fit the code's type: {'; '.join(types.problems(error))}"
            ) from error


_TIMED_OUT = {"timed_out": True}
