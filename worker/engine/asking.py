"""A question to a person: answered from the journal, from the mailbox, by its deadline, or by a pause."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Final

import pydantic

from statestore.envelope import dump
from statestore.errors import NotSerialisable
from statestore.records import Action, JSONValue, Result, SignalKind, Wait, WaitKind
from statestore.states import AgentState
from worker import schema
from worker.engine.attempt import Attempt
from worker.engine.failures import describe, revive
from worker.errors import AnswerTimeout, InvalidAnswer, JournalMismatch


class Missing(Enum):
    """Stands for "not given" where None is a value."""

    MISSING = 0


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question as the code asks it. `answer` is the type that an answer must have."""

    name: str
    prompt: JSONValue
    answer: schema.Adapter
    choices: tuple[JSONValue, ...] | None
    timeout: timedelta | None
    default: Any = MISSING

    def put(self, attempt: Attempt) -> Any:
        """The answer; unwinds the agent if there is none yet."""
        action = Action(kind="ask", input=self.prompt)
        key, recorded = attempt.reach(self.name, action)
        if recorded is not None and recorded.result is not None:
            return self._typed(key, recorded.result)
        waiting = attempt.context.waiting
        asked_at = waiting.asked_at if waiting is not None and waiting.key == key else attempt.now()
        signal = attempt.take_signal(SignalKind.ANSWER, key)
        if signal is not None:
            result = self._judged(key, signal.payload)
        elif waiting is not None and waiting.key == key and self._is_overdue(attempt, waiting):
            result = self._unanswered(key)
        else:
            attempt.enter_boundary()
            wake_at = None if self.timeout is None else asked_at + self.timeout
            attempt.pause(
                AgentState.WAITING_FOR_INPUT,
                Wait(
                    kind=WaitKind.INPUT,
                    key=key,
                    prompt=self.prompt,
                    schema=self.json_schema,
                    asked_at=asked_at,
                    wake_at=waiting.wake_at if waiting is not None and waiting.key == key else wake_at,
                ),
            )
        attempt.record(attempt.make_step(key, action, result, started=asked_at))
        return self._typed(key, result)

    @property
    def json_schema(self) -> dict[str, JSONValue] | None:
        """What a client holds an answer against before it sends it."""
        if self.choices is not None:
            return {"enum": list(self.choices)}
        return None if self.answer is schema.ANY else self.answer.json_schema()

    @staticmethod
    def _is_overdue(attempt: Attempt, waiting: Wait) -> bool:
        return waiting.wake_at is not None and attempt.now() >= waiting.wake_at

    def _judged(self, key: str, payload: JSONValue) -> Result:
        """An answer that came past the client's own check may still be wrong."""
        try:
            schema.from_json(self.answer, payload, key)
        except pydantic.ValidationError as error:
            return Result(success=False, error=describe(InvalidAnswer(key, schema.problems(error))))
        if self.choices is not None and payload not in self.choices:
            problem = f"{payload!r} is not one of {list(self.choices)!r}"
            return Result(success=False, error=describe(InvalidAnswer(key, [problem])))
        return Result(success=True, output=payload)

    def _unanswered(self, key: str) -> Result:
        if self.default is MISSING:
            return Result(success=False, error=describe(AnswerTimeout(key)))
        return Result(success=True, output=self._default_as_json())

    def _default_as_json(self) -> JSONValue:
        return schema.to_json(schema.ANY, self.default)

    def _typed(self, key: str, result: Result) -> Any:
        if result.error is not None:
            raise revive(result.error)
        if self.default is not MISSING and result.output == self._default_as_json():
            return self.default  # which need not be a valid answer: None, say, for "nobody answered"
        try:
            return schema.from_json(self.answer, result.output, key)
        except pydantic.ValidationError as error:
            raise JournalMismatch(
                key, f"its recorded answer does not fit the code's type: {'; '.join(schema.problems(error))}"
            ) from error


def question(
    name: str,
    prompt: JSONValue,
    answer: Any,
    choices: Sequence[JSONValue] | None,
    timeout: timedelta | None,
    default: Any,
) -> Question:
    """A question from the arguments of `Run.ask`. Raises `NotSerialisable` for a default that JSON cannot carry."""
    if default is not MISSING:
        try:
            dump(schema.to_json(schema.ANY, default), "default")
        except ValueError as error:
            raise NotSerialisable("default", str(error)) from error
    return Question(
        name=name,
        prompt=prompt,
        answer=schema.ANY if answer is MISSING else schema.adapter_for(answer, name),
        choices=None if choices is None else tuple(choices),
        timeout=timeout,
        default=default,
    )
