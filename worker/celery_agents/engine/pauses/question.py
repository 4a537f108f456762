"""A question to a person: answered from the journal, from the mailbox, by its deadline, or by a pause."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Any, Final

import pydantic

from agent_statestore.envelope import dump
from agent_statestore.errors import NotSerialisable
from agent_statestore.records import Action, AgentStep, JSONValue, Result, Wait, WaitKind
from celery_agents.define import types
from celery_agents.define.answers import Expected, name_of_type, same
from celery_agents.define.names import MARK
from celery_agents.define.retry import NO_RETRY
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.pauses.open_wait import Awaited, Ended, OpenWait
from celery_agents.engine.pauses.wait import look_for
from celery_agents.engine.steps.step import Step
from celery_agents.engine.steps.taking import reach
from celery_agents.engine.steps.work import PlainWork
from celery_agents.errors import AnswerTimeout, JournalMismatch


class Missing(Enum):
    """Stands for "not given" where None is a value."""

    MISSING = 0


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Awaited):
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

    def open(self, attempt: Attempt, key: str) -> "OpenQuestion":
        """The code has come to it: its place."""
        return OpenQuestion(self, attempt, key)


class OpenQuestion(OpenWait):
    """A question at its place."""

    kind = WaitKind.INPUT

    def __init__(self, question: Question, attempt: Attempt, key: str) -> None:
        super().__init__(attempt, key, Action(kind="ask", input=question.prompt), timeout=question.timeout)
        self._question = question
        self._escalation = f"escalate {key.replace(MARK, ' ')}"
        self._has_escalated = False
        if question.escalate is not None:
            recorded = attempt.journal.upcoming_key(self._escalation)
            if attempt.has_begun(recorded):
                self._escalate()
                self._forget_time_before(attempt.journal.step(recorded))

    def look(self, *, is_alone: bool = True) -> Ended | Wait:
        """See `OpenWait`."""
        del is_alone
        question, key = self._question, self.key
        while True:
            waited = look_for(
                self.attempt,
                WaitKind.INPUT,
                key,
                since=self.since,
                wake_at=self.wake_at,
                prompt=question.prompt,
                schema=question.expected.json_schema(),
                asked=self.asked,
                answer_type=name_of_type(question.annotation, self.attempt.environment.names()),
            )
            if isinstance(waited, Wait):
                return waited
            if waited.signal is None and question.escalate is not None and not self._has_escalated:
                self._escalate()
                self.begin_anew()
                continue
            if waited.signal is None:
                return Ended(result=self._unanswered(), since=waited.since, asked=self.asked)
            problems = [*waited.problems] or question.expected.problems(waited.signal.payload, key)
            if not problems:
                result = Result(success=True, output=waited.signal.payload)
                return Ended(result=result, since=waited.since, asked=self.asked)
            self.asked = self.asked.refuse(self.attempt, key, self.action, waited.signal, problems, waited.since)

    def _escalate(self) -> None:
        """Call the callback as a step of its own, or read that it was called. The question then stands anew."""
        escalate, prompt = self._question.escalate, self._question.prompt
        assert escalate is not None
        step = Step(
            name=self._escalation,
            action=Action(kind="step"),
            work=PlainWork(lambda _: escalate(prompt), is_async=types.is_async(escalate)),
            returns=types.ANY,
            retry=NO_RETRY,
        )
        key = self.attempt.journal.come_to(self._escalation, is_derived=True)
        reach(self.attempt, step, key).finish()
        self.attempt.journal.see((key,))  # no code is given the result
        self._has_escalated = True
        if self.asked.since:
            self.asked = replace(self.asked, since=None)  # it stands for the whole time again

    def _forget_time_before(self, escalation: AgentStep) -> None:
        """Where several waits are open, the store may still show since when it was asked before the escalation."""
        paused_on = self.attempt.recorder.paused_on.find(self.kind, self.address)
        if paused_on is not None and paused_on.asked_at < escalation.timestamp + escalation.duration:
            self.begin_anew()

    def _unanswered(self) -> Result:
        if self._question.default is MISSING:
            return Result(success=False, error=describe(AnswerTimeout(self.key)))
        return Result(success=True, output=self._default_as_json())

    def _default_as_json(self) -> JSONValue:
        return types.to_json(types.ANY, self._question.default)

    def value(self, result: Result) -> Any:
        """Return the answer. Raise `AnswerTimeout`."""
        if result.error is not None:
            raise revive(result.error)
        question = self._question
        if question.default is not MISSING and same(result.output, self._default_as_json()):
            return question.default  # which need not be a valid answer: None, say, for "nobody answered"
        try:
            return types.from_json(question.expected.adapter, result.output, self.key)
        except pydantic.ValidationError as error:
            raise JournalMismatch(
                self.key, f"its recorded answer does not fit the code's type: {'; '.join(types.problems(error))}"
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
