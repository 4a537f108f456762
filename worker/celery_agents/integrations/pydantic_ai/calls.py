"""What an operation of Pydantic AI is recorded and shown as: the name of its step, and the tool or model it calls."""

import math
from dataclasses import dataclass
from typing import Any, Final

import pydantic
from pydantic_ai.durable_exec import DurableOperationId, EventStreamHandlerId, ModelRequestId, ToolsetCallToolId
from pydantic_core import to_jsonable_python

from celery_agents.define.called_as import CalledAs
from celery_agents.define.names import step_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The name of an operation's step, what it is recorded as, and the tool that it calls, if it does."""

    name: str
    called_as: CalledAs | None = None
    tool: str | None = None


_PYTHON: Final = pydantic.TypeAdapter(Any)


def as_recorded(arguments: Any) -> Any:
    """Return typed arguments as JSON that is the same in each process: a set has no order."""
    plain = _PYTHON.dump_python(arguments, mode="python", warnings="none", fallback=repr)
    return to_jsonable_python(_ordered(plain), fallback=repr, bytes_mode="base64")


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(one) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(_ordered, value), key=repr)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # which JSON has not
    return [_ordered(one) for one in value] if isinstance(value, list | tuple) else value


def described(agent: str, operation_id: DurableOperationId, name: str, cache_key: tuple[Any, ...]) -> Described:
    """Return how an operation is recorded. `name` is Pydantic AI's own, `cache_key` what identifies its arguments.

    A call of a tool is named by the id that the model gave it, which is recorded with the model's answer: the same
    after a crash, whatever awaits what first.
    """
    match operation_id:
        case ModelRequestId(model_name=model):
            count = len(cache_key[1])
            title = f"{model}, {count} message{'s' * (count != 1)}"
            called = CalledAs(kind="model", name=model or "model", title=title)
            return Described(name=step_name(f"{agent} model"), called_as=called)
        case ToolsetCallToolId():
            tool, arguments, context = cache_key[:3]
            called = CalledAs(kind="tool", name=tool, arguments=as_recorded(arguments))
            return Described(name=step_name(f"{tool} {context.tool_call_id}"), called_as=called, tool=tool)
        case EventStreamHandlerId():
            return Described(
                name=step_name(f"{agent} event"), called_as=CalledAs(kind="handler", name="event_stream_handler")
            )
        case _:
            # Listings of tools, checks of arguments, operations of capabilities, and what later versions add.
            return Described(name=step_name(name))
