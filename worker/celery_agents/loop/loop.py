"""The loop: asks for a decision, does it, tells what came of it, and so on to the end.

The conversation is never stored with a tool call that has no result: the assistant's message with its calls is said
after they have ended, together with their results, so that one checkpoint carries all of them.
"""

from collections.abc import Callable
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

import pydantic

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import JSONValue
from celery_agents.define import types
from celery_agents.define.saying import CallInterrupted
from celery_agents.engine.run.run import Run
from celery_agents.errors import (
    AnswerTimeout,
    EventTimeout,
    InvalidAnswer,
    InvalidDecision,
    JournalMismatch,
    MaxTurnsExceeded,
)
from celery_agents.loop import messages, steering, verdicts
from celery_agents.loop.actions import AskUser, Complete, Respond, Think, UseTool, UseTools, WaitFor
from celery_agents.loop.calls import make_calls
from celery_agents.loop.context import LoopContext, LoopResult
from celery_agents.loop.definition import Definition

DECIDE: Final = "decide"


class Loop:
    """One attempt at an execution of a loop agent."""

    def __init__(self, definition: Definition, run: Run, value: Any) -> None:
        self._definition = definition
        self._run = run
        self._input = value
        self._tools = definition.tools()
        self._results: tuple[LoopResult, ...] = ()
        self._rules = verdicts.Rules(tools=self._tools, output=definition.output, max_value_bytes=run.max_value_bytes)
        self._max_turns = definition.max_turns

    def to_end(self) -> Any:
        """The output."""
        if self._input is not None:
            self._tell("user", types.to_json(self._definition.input, self._input))
        turn = 0
        while True:
            for told in steering.heard(self._run):
                self._tell(told.role, told.content)
            turn += 1
            self._check_turns(turn)
            action = self._decided(turn)
            if action is None or self._is_put_off(action):
                self._max_turns += 1  # who says something asks for more than what was planned
                continue
            if isinstance(action, Complete):
                if action.message:
                    self._tell("assistant", action.message)
                return self._output(action.output)
            if isinstance(action, Respond) and not action.goes_on:
                self._tell("assistant", action.message)
                return self._output(action.message)
            self._do(action)

    def _is_put_off(self, action: Any) -> bool:
        """Tell, in the place of what was decided, what somebody has said meanwhile; False if nobody did."""
        told = steering.is_put_off(self._run, action)
        if told is None:
            return False
        self._results = steering.results_of(action)
        for one in told:
            if one.role == "tool" or (one.role == "assistant" and not isinstance(one.content, str)):
                self._run.say(one.role, one.content)
            else:
                self._tell(one.role, one.content)
        return True

    # -- deciding ------------------------------------------------------------------------------------------------------

    def _check_turns(self, turn: int) -> None:
        """Raises `MaxTurnsExceeded`, or asks a person, when the last permitted turn is over."""
        while turn > self._max_turns:
            error = MaxTurnsExceeded(self._max_turns)
            if not self._definition.asks_at_limit:
                raise error
            more: int = self._run.ask(
                {"question": f"{error}. How many turns more may it take? 0 lets it fail.", "limit": "turns"},
                schema=pydantic.NonNegativeInt,
                name="limit turns",
            )
            if not more:
                raise error
            self._max_turns += more

    def _decided(self, turn: int) -> Any:
        """The next action that can be done; None if somebody has interrupted.

        Raises `InvalidDecision` after too much nonsense in a row.
        """
        for _ in range(self._definition.max_invalid + 1):
            try:
                verdict = self._ask(turn)
            except CallInterrupted as interrupted:
                if interrupted.text:
                    self._tell("assistant", interrupted.text)
                return None
            if verdict.action is not None:
                return verdict.action
            said = f" You decided: {verdict.decided}" if verdict.decided else ""
            self._tell("system", f"This decision cannot be used: {'; '.join(verdict.problems)}. Decide again.{said}")
        raise InvalidDecision(self._run.agent_id, list(verdict.problems))

    def _ask(self, turn: int) -> verdicts.Verdict:
        definition, rules = self._definition, self._rules

        def ask() -> Any:
            return verdicts.decide(definition.decide, self._context(turn), rules, turn)

        options = self._run.options(retry=definition.retry, timeout=definition.timeout, returns=Any, interruptible=True)
        verdict = verdicts.Verdict.of_json(options.step(DECIDE, ask), DECIDE)
        if verdict.usage.tokens or verdict.usage.cost:  # recorded before steps had it in their records
            self._run.spend(tokens=verdict.usage.tokens, cost=verdict.usage.cost)
        return verdict

    def _context(self, turn: int) -> LoopContext:
        run = self._run
        return LoopContext(
            input=self._input,
            messages=tuple(messages.as_chat(message) for message in run.messages),
            memory=MappingProxyType(run.memory),
            tools=self._definition.descriptions(),
            results=self._results,
            turn=turn,
            max_turns=self._max_turns,
            spent=run.spent,
            execution_id=run.execution_id,
            agent_id=run.agent_id,
            session_id=run.session_id,
            user_id=run.user_id,
            metadata=run.metadata,
            make_action_schema=self._definition.action_schema,
        )

    def _output(self, output: JSONValue) -> Any:
        try:
            return types.from_json(self._definition.output, output, "output")
        except pydantic.ValidationError as error:
            problems = "; ".join(types.problems(error))
            raise JournalMismatch(DECIDE, f"its recorded output does not fit the code's type: {problems}") from error

    # -- doing ---------------------------------------------------------------------------------------------------------

    def _do(self, action: Think | UseTool | UseTools | AskUser | Respond | WaitFor) -> None:
        match action:
            case Think():
                self._tell("assistant", action.thought)
            case UseTool() | UseTools():
                self._call(action)
            case AskUser():
                self._ask_user(action)
            case Respond():
                self._tell("assistant", action.message)
                self._run.step("respond", _nothing)  # so that the user has it now, and not after the next turn
            case WaitFor():
                self._wait(action)

    def _call(self, action: UseTool | UseTools) -> None:
        calls = verdicts.calls_of(action)
        for call in calls:
            if call.tool not in self._tools:
                raise JournalMismatch(DECIDE, f"it chose tool {call.tool!r}, which the agent has not got any more")
        ends = make_calls(self._run, [(call, self._tools[call.tool]) for call in calls])
        self._results = tuple(end.result for end in ends)
        told = [self._fitting(end.result, messages.of_result(end.result, has_changed=end.has_changed)) for end in ends]
        self._run.say("assistant", messages.of_calls(action.text, calls))
        for content in told:
            self._run.say("tool", content)

    def _fitting(self, result: LoopResult, content: JSONValue) -> JSONValue:
        """Looked at before anything is said: a message that is refused would leave the calls without results."""
        try:
            verdicts.check_fits("tool", content, self._run.max_value_bytes)
        except InvalidRecord as error:
            return messages.untold(result, str(error))
        return content

    def _ask_user(self, action: AskUser) -> None:
        self._tell("assistant", action.question)
        timeout = None if action.timeout_seconds is None else timedelta(seconds=action.timeout_seconds)
        answer = self._ended(
            "ask_user", lambda: self._run.ask(action.question, choices=action.choices, timeout=timeout)
        )
        if answer.success:
            self._tell("user", answer.output)
        else:
            self._tell("system", f"There is no answer: {answer.error}")

    def _wait(self, action: WaitFor) -> None:
        if action.event is None:
            assert action.seconds is not None
            self._run.sleep(action.seconds)
            self._results = (LoopResult(name="wait", success=True),)
            self._tell("system", f"{action.seconds:g} seconds have passed.")
            return
        event, timeout = action.event, None if action.seconds is None else timedelta(seconds=action.seconds)
        end = self._ended(event, lambda: self._run.wait_for(event, timeout=timeout))
        if end.success:
            # What it carries comes from outside: it must not speak with the voice of the system.
            self._tell("user", f"Event {event!r} came, with: {messages.as_text(end.output)}")
        else:
            self._tell("system", f"Event {event!r} did not come in {action.seconds:g} seconds.")

    def _ended(self, name: str, wait: Callable[[], JSONValue]) -> LoopResult:
        try:
            result = LoopResult(name=name, success=True, output=wait())
        except (AnswerTimeout, InvalidAnswer, EventTimeout) as error:
            result = LoopResult.of_failure(name, error)
        self._results = (result,)
        return result

    def _tell(self, role: str, content: JSONValue) -> None:
        """Says what is about no call; what there is no room for is replaced, as it is recorded in a step anyway."""
        try:
            verdicts.check_fits(role, content, self._run.max_value_bytes)
        except InvalidRecord as error:
            content = f"(cannot be told: {error})"
        self._run.say(role, content)


def _nothing() -> None:
    pass
