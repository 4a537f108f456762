"""`run.wait_for`: a pause until somebody sends an event of this name to the execution.

An event that nobody waits for is kept, for the next `wait_for` of its name. While one is waited for, the door holds
what is sent against the type that is wanted. What came before that, and does not fit, is passed over: the reason is
recorded, and the execution waits on. It would otherwise fail for good by what anybody may have sent.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pydantic

from agent_statestore.records import Action, Result, Wait, WaitKind
from celery_agents.define import types
from celery_agents.define.answers import Expected, name_of_type
from celery_agents.define.names import check_event_name
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.pauses.open_wait import Awaited, Ended, OpenWait
from celery_agents.engine.pauses.question import MISSING
from celery_agents.engine.pauses.wait import look_for
from celery_agents.errors import EventTimeout, JournalMismatch


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitedEvent(Awaited):
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

    def open(self, attempt: Attempt, key: str) -> "OpenEvent":
        """The code has come to it: its place."""
        return OpenEvent(self, attempt, key)


class OpenEvent(OpenWait):
    """A wait for an event, at its place."""

    kind = WaitKind.EVENT

    def __init__(self, awaited: AwaitedEvent, attempt: Attempt, key: str) -> None:
        event = awaited.event
        super().__init__(attempt, key, Action(kind="event", input=event), address=event, timeout=awaited.timeout)
        self._awaited = awaited

    def look(self, *, is_alone: bool = True) -> Ended | Wait:
        """See `OpenWait`."""
        del is_alone
        awaited = self._awaited
        while True:
            waited = look_for(
                self.attempt,
                WaitKind.EVENT,
                awaited.event,
                step=self.key,
                since=self.since,
                wake_at=self.wake_at,
                schema=awaited.payload.json_schema(),
                asked=self.asked,
                answer_type=None
                if awaited.annotation is MISSING
                else name_of_type(awaited.annotation, self.attempt.environment.names()),
            )
            if isinstance(waited, Wait):
                return waited
            if waited.signal is None:
                return Ended(result=self._timed_out(), since=waited.since, asked=self.asked)
            problems = awaited.payload.problems(waited.signal.payload, self.key)
            if not problems:
                result = Result(success=True, output={"payload": waited.signal.payload})
                return Ended(result=result, since=waited.since, asked=self.asked)
            signal, since = waited.signal, waited.since
            self.asked = self.asked.refuse(
                self.attempt, self.key, self.action, signal, problems, since, what="an event"
            )

    def _timed_out(self) -> Result:
        if self._awaited.default is MISSING:
            return Result(success=False, error=describe(EventTimeout(self._awaited.event)))
        return Result(success=True, output=_TIMED_OUT)

    def value(self, result: Result) -> Any:
        """Return what the event carried. Raise `EventTimeout`."""
        if result.error is not None:
            raise revive(result.error)
        if result.output == _TIMED_OUT:
            return self._awaited.default
        try:
            return types.from_json(self._awaited.payload.adapter, result.output["payload"], self.key)
        except pydantic.ValidationError as error:
            raise JournalMismatch(
                self.key, f"its recorded payload does not fit the code's type: {'; '.join(types.problems(error))}"
            ) from error


_TIMED_OUT = {"timed_out": True}


def awaited_event(event: str, schema: Any, timeout: timedelta | None, default: Any) -> AwaitedEvent:
    """Return a wait for an event from the arguments of `Run.wait_for`. Raise `InvalidRecord` for an invalid name."""
    payload = Expected(adapter=types.ANY if schema is MISSING else types.adapter_for(schema, event))
    return AwaitedEvent(event=event, payload=payload, annotation=schema, timeout=timeout, default=default)
