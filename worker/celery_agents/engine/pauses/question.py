"""A question to a person: answered from the journal, from the mailbox, by its deadline, or by a pause."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Any, Final

import pydantic

from agent_statestore.envelope import dump
from agent_statestore.errors import NotSerialisable
from agent_statestore.records import Action, JSONValue, Result, WaitKind
from celery_agents.define import types
from celery_agents.define.answers import Expected, name_of_type, same
from celery_agents.define.names import MARK
from celery_agents.define.retry import NO_RETRY
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.pauses.rounds import Round
from celery_agents.engine.pauses.signal import Waited
from celery_agents.engine.pauses.wait import conclude, wait
from celery_agents.engine.steps.step import Step
from celery_agents.engine.steps.taking import reach
from celery_agents.engine.steps.work import PlainWork
from celery_agents.errors import AnswerTimeout, JournalMismatch


class Missing(Enum):
    """Stands for "not given" where None is a value."""

    MISSING = 0


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question as the code asks it. `expected` is what an answer must be, and `annotation` names its type.

    `escalate` is called, once, when the deadline has passed; the question then stands for the same time again.
    """

    name: str
    prompt: JSONValue
    expected: Expected
    annotation: Any
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
        has_escalated, asked = self._escalate(attempt, key, only_if_recorded=True), Round.of(recorded)
        if has_escalated:
            asked = replace(asked, since=None) if asked.since else asked  # it stands for the whole time again
        while True:
            waited = self._wait(attempt, key, asked)
            if waited.signal is None and self.escalate is not None and not has_escalated:
                has_escalated = self._escalate(attempt, key, only_if_recorded=False)
                asked = replace(asked, since=None) if asked.since else asked
                continue
            if waited.signal is None:
                result = self._unanswered(key)
                break
            problems = [*waited.problems] or self.expected.problems(waited.signal.payload, key)
            if not problems:
                result = Result(success=True, output=waited.signal.payload)
                break
            asked = asked.refuse(attempt, key, action, waited.signal, problems, waited.since)
        return self._typed(key, conclude(attempt, key, action, result, waited.since, asked))

    def _wait(self, attempt: Attempt, key: str, asked: Round) -> Waited:
        return wait(
            attempt,
            WaitKind.INPUT,
            key,
            timeout=self.timeout,
            prompt=self.prompt,
            schema=self.expected.json_schema(),
            asked=asked,
            answer_type=name_of_type(self.annotation, attempt.environment.names()),
        )

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

    def _unanswered(self, key: str) -> Result:
        if self.default is MISSING:
            return Result(success=False, error=describe(AnswerTimeout(key)))
        return Result(success=True, output=self._default_as_json())

    def _default_as_json(self) -> JSONValue:
        return types.to_json(types.ANY, self.default)

    def _typed(self, key: str, result: Result) -> Any:
        if result.error is not None:
            raise revive(result.error)
        if self.default is not MISSING and same(result.output, self._default_as_json()):
            return self.default  # which need not be a valid answer: None, say, for "nobody answered"
        try:
            return types.from_json(self.expected.adapter, result.output, key)
        except pydantic.ValidationError as error:
            raise JournalMismatch(
                key, f"its recorded answer does not fit the code's type: {'; '.join(types.problems(error))}"
            ) from error


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
        expected=Expected(adapter=types.ANY if answer is MISSING else types.adapter_for(answer, name), choices=choices),
        annotation=answer,
        timeout=timeout,
        default=default,
        escalate=escalate,
    )
