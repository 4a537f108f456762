"""Judges what was decided: an action that can be done, or nonsense that the model is to be told of.

This happens inside the step that asks for the decision, so that the verdict is recorded with it: a later deploy of the
code, with other tools, judges nothing again.
"""

import inspect
import reprlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import pydantic

from agent_statestore.codec import encode_message
from agent_statestore.envelope import dump
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import JSONValue, Message
from celery_agents.define import types
from celery_agents.engine.run.current_run import spend
from celery_agents.errors import InvalidArguments, InvalidDecision, JournalMismatch
from celery_agents.loop import messages
from celery_agents.loop.actions import ACTIONS, ADAPTER, Complete, Decision, Respond, ToolCall, Usage, UseTool, UseTools
from celery_agents.loop.delegates import Usable

# Titles of the validation errors that speak of an action, as the deciding function may raise them itself.
_OF_ACTIONS: Final = {kind.__name__ for kind in (*ACTIONS, ToolCall)}
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a decision is held against."""

    tools: Mapping[str, Usable]
    output: types.Adapter
    max_value_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """An action, or the problems of what was decided in the place of one.

    `usage` is read from records of earlier versions: today it is recorded with the step.
    """

    action: Any = None
    problems: tuple[str, ...] = ()
    decided: str = ""
    usage: Usage = field(default_factory=Usage)

    def as_json(self) -> JSONValue:
        """As recorded."""
        if self.action is None:
            return {"problems": list(self.problems), "decided": self.decided}
        return {"decision": _as_json(self.action)}

    @classmethod
    def of_json(cls, recorded: JSONValue, key: str) -> "Verdict":
        """As read. Raises `JournalMismatch` if it was recorded by code that knew other actions."""
        try:
            usage = Usage.model_validate(recorded.get("usage", {}))
            if "decision" not in recorded:
                return cls(problems=tuple(recorded["problems"]), decided=recorded["decided"], usage=usage)
            return cls(action=ADAPTER.validate_python(recorded["decision"]), usage=usage)
        except pydantic.ValidationError as error:
            problems = "; ".join(types.problems(error))
            raise JournalMismatch(key, f"its recorded decision is no action of this version: {problems}") from error


def decide(function: Callable[[Any], Any], context: Any, rules: Rules, turn: int) -> JSONValue | Awaitable[JSONValue]:
    """Asks for a decision, and judges it. Raises what the function raises, but not what speaks of a decision.

    Of an async function this is a coroutine.
    """
    try:
        decided = function(context)
    except (InvalidDecision, pydantic.ValidationError) as error:
        return _of_error(error).as_json()
    if inspect.isawaitable(decided):
        return _later(decided, rules, turn)
    return judge(decided, rules, turn).as_json()


async def _later(decided: Awaitable[Any], rules: Rules, turn: int) -> JSONValue:
    try:
        action = await decided
    except (InvalidDecision, pydantic.ValidationError) as error:
        return _of_error(error).as_json()
    return judge(action, rules, turn).as_json()


def _of_error(error: InvalidDecision | pydantic.ValidationError) -> Verdict:
    """The function could not make an action of what its model had returned."""
    if isinstance(error, InvalidDecision):
        return Verdict(problems=tuple(error.problems))
    if error.title not in _OF_ACTIONS and not error.title.startswith("tagged-union[Think,"):
        raise error
    return Verdict(problems=tuple(types.problems(error)), decided=error.title)


def judge(decided: Any, rules: Rules, turn: int) -> Verdict:
    """The action, or what is wrong with it."""
    if isinstance(decided, Decision):
        spend(tokens=decided.usage.tokens, cost=decided.usage.cost)
        decided = decided.action
    try:
        action = _named(_read(decided), turn)
        dump(_as_json(action), "decision", rules.max_value_bytes)
        # From here on it is what it will be after a crash.
        action = ADAPTER.validate_python(_as_json(action))
        problems = list(_problems(action, rules))
    except pydantic.ValidationError as error:
        problems = types.problems(error)
    except (InvalidRecord, ValueError, RecursionError) as error:
        problems = [_clean(str(error))]
    if problems:
        return Verdict(problems=tuple(_clean(problem) for problem in problems), decided=_shown(decided))
    return Verdict(action=action)


def _read(decided: Any) -> Any:
    if isinstance(decided, str | bytes):
        return ADAPTER.validate_json(decided)
    return ADAPTER.validate_python(decided)


def _named(action: Any, turn: int) -> Any:
    """With a name for each call that has none."""
    if isinstance(action, UseTool) and action.id is None:
        return action.model_copy(update={"id": f"call_{turn}"})
    if isinstance(action, UseTools):
        calls = [
            call if call.id is not None else call.model_copy(update={"id": f"call_{turn}_{place}"})
            for place, call in enumerate(action.calls, 1)
        ]
        return action.model_copy(update={"calls": tuple(calls)})
    return action


def _as_json(action: Any) -> dict[str, JSONValue]:
    return {name: value for name, value in action.model_dump(mode="json").items() if value is not None}


def calls_of(action: Any) -> tuple[ToolCall, ...]:
    """The calls that an action makes."""
    if isinstance(action, UseTools):
        return tuple(action.calls)
    return (action,) if isinstance(action, UseTool) else ()


def _problems(action: Any, rules: Rules) -> list[str]:
    if isinstance(action, Complete):
        return _of_output(action.output, rules)
    if isinstance(action, Respond) and not action.goes_on:
        hint = "what this agent ends with is not a text: end with complete"
        return [hint] if _of_output(action.message, rules) else []
    calls = calls_of(action)
    problems = [problem for call in calls for problem in _of_call(call, rules)]
    if len({call.id for call in calls}) < len(calls):
        problems.append("calls: two of them have the same id")
    if calls and not problems:
        problems = _of_size(action, rules)
    return problems


def _of_call(call: ToolCall, rules: Rules) -> list[str]:
    tool = rules.tools.get(call.tool)
    if tool is None:
        return [f"there is no tool {call.tool!r:.80}; the tools are: {', '.join(rules.tools) or 'none'}"]
    try:
        tool.check_arguments((), call.arguments)
        tool.describe_arguments((), call.arguments)
    except InvalidArguments as error:
        return [f"tool {call.tool}: {problem}" for problem in error.problems]
    return []


def _of_output(output: JSONValue, rules: Rules) -> list[str]:
    try:
        types.from_json(rules.output, output, "output")
    except pydantic.ValidationError as error:
        return [f"output: {problem}" for problem in types.problems(error)]
    return []


def _of_size(action: UseTool | UseTools, rules: Rules) -> list[str]:
    """A call that the conversation has no room for must not be made: its result could not stand there either."""
    content = messages.of_calls(action.text, calls_of(action))
    try:
        check_fits("assistant", content, rules.max_value_bytes)
    except InvalidRecord as error:
        return [str(error)]
    return []


def check_fits(role: str, content: JSONValue, max_value_bytes: int) -> None:
    """Raises `InvalidRecord` for a message that cannot be said."""
    encode_message(Message(role=role, content=content, timestamp=datetime.now(UTC), by_run=True), max_value_bytes)


def _shown(decided: Any) -> str:
    try:
        text = decided if isinstance(decided, str) else _short.repr(decided)
    except Exception as error:  # noqa: BLE001 - a foreign __repr__ may raise anything
        text = f"<{type(decided).__name__}, whose __repr__ raised {type(error).__name__}>"
    text = _clean(text)
    return text if len(text) <= 500 else text[:500] + " ..."


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
