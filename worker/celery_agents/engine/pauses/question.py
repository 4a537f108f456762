"""A question to a person: answered from the journal, from the mailbox, by its deadline, or by a pause."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Final

import pydantic

from agent_statestore.envelope import dump
from agent_statestore.errors import NotSerialisable
from agent_statestore.records import Action, JSONValue, Result, WaitKind
from celery_agents.define import types
from celery_agents.define.names import MARK
from celery_agents.define.retry import NO_RETRY
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.pauses.signal import Waited
from celery_agents.engine.pauses.wait import conclude, wait
from celery_agents.engine.steps.step import Step
from celery_agents.engine.steps.taking import reach
from celery_agents.engine.steps.work import PlainWork
from celery_agents.errors import AnswerTimeout, InvalidAnswer, JournalMismatch


class Missing(Enum):
    """Stands for "not given" where None is a value."""

    MISSING = 0


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question as the code asks it. `answer` is the type that an answer must have.

    `escalate` is called, once, when the deadline has passed; the question then stands for the same time again.
    """

    name: str
    prompt: JSONValue
    answer: types.Adapter
    choices: tuple[JSONValue, ...] | None
    timeout: timedelta | None
    default: Any = MISSING
    escalate: Callable[[JSONValue], Any] | None = None

    def take(self, attempt: Attempt, key: str) -> Any:
        """The answer; unwinds the agent if there is none yet."""
        action = Action(kind="ask", input=self.prompt)
        recorded = attempt.journal.look_up(key, action)
        if recorded is not None and recorded.result is not None:
            self._escalate(attempt, key, only_if_recorded=True)
            return self._typed(key, recorded.result)
        has_escalated = self._escalate(attempt, key, only_if_recorded=True)
        waited = self._wait(attempt, key)
        if waited.signal is None and self.escalate is not None and not has_escalated:
            self._escalate(attempt, key, only_if_recorded=False)
            waited = self._wait(attempt, key)
        result = self._unanswered(key) if waited.signal is None else self._judged(key, waited.signal.payload)
        return self._typed(key, conclude(attempt, key, action, result, waited.since))

    def _wait(self, attempt: Attempt, key: str) -> Waited:
        return wait(attempt, WaitKind.INPUT, key, timeout=self.timeout, prompt=self.prompt, schema=self.json_schema)

    def _escalate(self, attempt: Attempt, key: str, *, only_if_recorded: bool) -> bool:
        """Calls the callback as a step of its own; False if it is neither recorded nor to be called now."""
        name = f"escalate {key.replace(MARK, ' ')}"
        escalate = self.escalate
        if escalate is None or (only_if_recorded and not attempt.has_begun(attempt.journal.upcoming_key(name))):
            return False
        step = Step(
            name=name,
            action=Action(kind="step"),
            work=PlainWork(lambda _: escalate(self.prompt), is_async=types.is_async(escalate)),
            returns=types.ANY,
            retry=NO_RETRY,
        )
        reach(attempt, step, attempt.journal.come_to(name, is_derived=True)).finish()
        return True

    @property
    def json_schema(self) -> dict[str, JSONValue] | None:
        """What a client holds an answer against before it sends it."""
        if self.choices is not None:
            return {"enum": list(self.choices)}
        return None if self.answer is types.ANY else self.answer.json_schema()

    def _judged(self, key: str, payload: JSONValue) -> Result:
        """An answer that came past the client's own check may still be wrong."""
        try:
            types.from_json(self.answer, payload, key)
        except pydantic.ValidationError as error:
            return Result(success=False, error=describe(InvalidAnswer(key, types.problems(error))))
        except Exception as error:  # noqa: BLE001 - of a validator of the user's; the answer is taken nevertheless
            return Result(success=False, error=describe(error))
        if self.choices is not None and not any(_same(payload, choice) for choice in self.choices):
            problem = f"{payload!r} is not one of {list(self.choices)!r}"
            return Result(success=False, error=describe(InvalidAnswer(key, [problem])))
        return Result(success=True, output=payload)

    def _unanswered(self, key: str) -> Result:
        if self.default is MISSING:
            return Result(success=False, error=describe(AnswerTimeout(key)))
        return Result(success=True, output=self._default_as_json())

    def _default_as_json(self) -> JSONValue:
        return types.to_json(types.ANY, self.default)

    def _typed(self, key: str, result: Result) -> Any:
        if result.error is not None:
            raise revive(result.error)
        if self.default is not MISSING and _same(result.output, self._default_as_json()):
            return self.default  # which need not be a valid answer: None, say, for "nobody answered"
        try:
            return types.from_json(self.answer, result.output, key)
        except pydantic.ValidationError as error:
            raise JournalMismatch(
                key, f"its recorded answer does not fit the code's type: {'; '.join(types.problems(error))}"
            ) from error


def _same(one: JSONValue, other: JSONValue) -> bool:
    """As JSON has it: true is not 1."""
    return dump(one, "answer") == dump(other, "answer")


def question(
    name: str,
    prompt: JSONValue,
    answer: Any,
    choices: Sequence[JSONValue] | None,
    timeout: timedelta | None,
    default: Any,
    escalate: Callable[[JSONValue], Any] | None,
) -> Question:
    """A question from the arguments of `Run.ask`.

    Raises `NotSerialisable` for a default, or choices, that JSON cannot carry.
    """
    if choices is not None:
        if isinstance(choices, str) or not choices:
            raise TypeError(f"choices needs a list of the answers allowed, not {choices!r:.80}")
        choices = tuple(choices)
        dump(list(choices), "choices")
    if default is not MISSING:
        try:
            dump(types.carried(types.ANY, default, "default")[1], "default")
        except ValueError as error:
            raise NotSerialisable("default", str(error)) from error
    return Question(
        name=name,
        prompt=prompt,
        answer=types.ANY if answer is MISSING else types.adapter_for(answer, name),
        choices=choices,
        timeout=timeout,
        default=default,
        escalate=escalate,
    )
