"""What a loop agent may decide to do. A discriminated union: a model's JSON is decoded straight into it."""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from types import GenericAlias
from typing import Annotated, Any, Final, Literal, TypeAlias

import pydantic
import pydantic_core

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import JSONValue
from celery_agents.define.names import check_event_name

_TAG: Final = "action"
_LONGEST_SECONDS: Final = 100 * 365 * 86_400.0
_LONGEST_EVENT: Final = 150  # it becomes part of a step's name

Text: TypeAlias = Annotated[str, pydantic.Field(min_length=1)]
Seconds: TypeAlias = Annotated[float, pydantic.Field(gt=0, le=_LONGEST_SECONDS, allow_inf_nan=False)]


def _from_text(arguments: Any) -> Any:
    """Most models' APIs give the arguments as JSON text, and None or "" for none."""
    if isinstance(arguments, str | bytes) and arguments.strip():
        return pydantic_core.from_json(arguments)
    return arguments or {}


class _Part(pydantic.BaseModel):
    # "constants" leaves NaN as it is, to be refused by name; pydantic would write null in its place.
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class ToolCall(_Part):
    """One call of a tool: its name, and its arguments by name; JSON may also bring these as a text with JSON in it.

    `id` names the call in the conversation; without one the loop gives it one.
    """

    tool: str
    arguments: Annotated[dict[str, Any], pydantic.BeforeValidator(_from_text)] = pydantic.Field(default_factory=dict)
    id: Text | None = None


class Think(_Part):
    """Thinks aloud: `thought` joins the conversation, and the next turn begins."""

    action: Literal["think"] = "think"
    thought: Text


class UseTool(ToolCall):
    """Calls one tool. `text` is what the model says along with the call."""

    action: Literal["use_tool"] = "use_tool"
    text: str | None = None


class UseTools(_Part):
    """Calls several tools at once. `text` is what the model says along with the calls."""

    action: Literal["use_tools"] = "use_tools"
    calls: Sequence[ToolCall] = pydantic.Field(min_length=1)
    text: str | None = None


class AskUser(_Part):
    """Asks the user, and pauses until there is an answer, which joins the conversation.

    `choices` are the only answers allowed. After `timeout_seconds` the model is told that nobody answered.
    """

    action: Literal["ask_user"] = "ask_user"
    question: Text
    choices: list[JSONValue] | None = pydantic.Field(default=None, min_length=1)
    timeout_seconds: Seconds | None = None


class Respond(_Part):
    """Says something to the user, which ends the turn: the execution completes with `message` as its output.

    With `goes_on` the message is a note on the way: it is stored at once, and the next turn begins.
    """

    action: Literal["respond"] = "respond"
    message: Text
    goes_on: bool = False


class WaitFor(_Part):
    """Waits for `seconds`, or for an `event`, or for an event for at most so many seconds."""

    action: Literal["wait"] = "wait"
    seconds: Seconds | None = None
    event: str | None = None

    @pydantic.field_validator("event")
    @classmethod
    def _is_a_name(cls, event: str | None) -> str | None:
        if event is not None:
            try:
                check_event_name(event)
            except InvalidRecord as error:
                raise ValueError(error.reason) from error
            if len(event) > _LONGEST_EVENT:
                raise ValueError(f"an event's name has at most {_LONGEST_EVENT} characters")
        return event

    @pydantic.model_validator(mode="after")
    def _waits_for_something(self) -> "WaitFor":
        if self.seconds is None and self.event is None:
            raise ValueError("give seconds, an event, or both")
        return self


class Complete(_Part):
    """Ends the execution with an output, of the agent's `output` type. `message` is said to the user."""

    action: Literal["complete"] = "complete"
    output: Any = None
    message: str | None = None


LoopAction: TypeAlias = Annotated[
    Think | UseTool | UseTools | AskUser | Respond | WaitFor | Complete, pydantic.Field(discriminator=_TAG)
]
ACTIONS: Final = (Think, UseTool, UseTools, AskUser, Respond, WaitFor, Complete)
ADAPTER: Final[pydantic.TypeAdapter[Any]] = pydantic.TypeAdapter(LoopAction)


class Usage(_Part):
    """What a decision has used up; recorded with its step, for the limits `max_tokens` and `max_cost`."""

    tokens: float = pydantic.Field(default=0, ge=0, allow_inf_nan=False)
    cost: float = pydantic.Field(default=0, ge=0, allow_inf_nan=False)


class Decision:
    """An action, or what a model has returned in the place of one, with what that has used up.

    Nonsense is paid for, too: so the usage stands beside what was decided, and not in it.
    """

    def __init__(self, action: Any, *, tokens: float = 0, cost: float = 0) -> None:
        self.action = action
        self.usage = Usage(tokens=tokens, cost=cost)


def schema_of(tools: tuple[str, ...], output: Any) -> dict[str, JSONValue]:
    """JSON Schema of the actions, with the names of the tools and the type of the output filled in."""
    kinds: list[Any] = [Think, AskUser, Respond, WaitFor]
    if tools:
        named: Any = Literal[tools]
        call = _with(ToolCall, tool=(named, ...))
        kinds.append(_with(UseTool, tool=(named, ...)))
        kinds.append(_with(UseTools, calls=(GenericAlias(list, (call,)), pydantic.Field(min_length=1))))
    kinds.append(Complete if output is Any else _with(Complete, output=(output, ...)))
    union: Any = Annotated[reduce(or_, kinds), pydantic.Field(discriminator=_TAG)]
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(union)
    schema = adapter.json_schema()
    for definition in schema["$defs"].values():
        if _TAG in definition.get("properties", {}):
            # Its default is for Python code. In JSON nothing else says which action this is.
            definition["required"] = [_TAG, *definition.get("required", ())]
    return schema


def _with(kind: type[_Part], **fields: Any) -> Any:
    made: Any = pydantic.create_model(kind.__name__, __base__=kind, __doc__=kind.__doc__, **fields)
    return made
