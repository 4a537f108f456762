"""What the function of a loop agent is given to decide upon."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_statestore.records import JSONValue
from celery_agents.engine.journal.failures import describe
from celery_agents.errors import StepFailed
from celery_agents.loop.delegates import Usable


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDescription:
    """A tool as a model is told of it. `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, JSONValue]

    @classmethod
    def of(cls, tool: Usable) -> "ToolDescription":
        """That of a tool."""
        return cls(name=tool.name, description=tool.description, parameters=tool.json_schema)

    def as_function(self) -> dict[str, JSONValue]:
        """In the common chat format: an entry of a request's `tools`."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopResult:
    """What one of the last calls, questions or waits came to.

    `name` is the tool's; "ask_user" for an answer; the event's, or "wait", for the end of a wait. `output` is JSON;
    `error` is a text that begins with `error_type`, the name of the error's class. `arguments` are those that the tool
    was called with, also if a person has changed them; `call_id` is the call's in the conversation.
    """

    name: str
    success: bool
    output: JSONValue = None
    error: str | None = None
    error_type: str | None = None
    call_id: str | None = None
    arguments: Mapping[str, JSONValue] = field(default_factory=dict)

    @classmethod
    def of_failure(cls, name: str, error: Exception, **call: Any) -> "LoopResult":
        """That of something which failed."""
        if isinstance(error, StepFailed):  # the record knows the name of the class that it stands in for
            info = describe(error)
            kind, text = info.type.rpartition(":")[2], info.message
        else:
            kind, text = type(error).__qualname__, str(error)
        kind = kind.rpartition(".")[2]
        return cls(
            name=name,
            success=False,
            error=f"{kind}: {text}",
            error_type=kind,
            **call,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopContext:
    """The state of an execution at the beginning of a turn.

    Attributes:
        input: the execution's input, of the agent's `input` type.
        messages: the conversation so far, in the common chat format (`role`, `content`, `tool_calls`, `tool_call_id`).
        memory: the working memory, to be read.
        tools: the tools that the agent may use.
        results: what the last calls (or question, or wait) came to, in the order of the calls.
        turn: the number of this turn, from 1. An unusable decision does not end a turn.
        max_turns: the number of the last permitted turn.
        spent: what was used up so far: `tokens` and `cost`.
    """

    input: Any
    messages: tuple[dict[str, JSONValue], ...]
    memory: Mapping[str, JSONValue]
    tools: tuple[ToolDescription, ...]
    results: tuple[LoopResult, ...]
    turn: int
    max_turns: int
    spent: Mapping[str, float]
    execution_id: str
    agent_id: str
    session_id: str | None
    user_id: str | None
    metadata: Mapping[str, JSONValue]
    make_action_schema: Callable[[], dict[str, JSONValue]] = field(repr=False)

    @property
    def action_schema(self) -> dict[str, JSONValue]:
        """JSON Schema of what may be decided, for models that answer by a schema: with the names of the tools."""
        return self.make_action_schema()
