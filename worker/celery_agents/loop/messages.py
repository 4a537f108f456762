"""The shapes of a loop agent's messages: as stored, and as models' APIs take them.

| role | stored content |
|---|---|
| `user` | the input, or an answer: text, or any JSON |
| `assistant` | text; or `{"content": text or null, "tool_calls": [{"id", "name", "arguments"}]}` |
| `tool` | `{"tool_call_id", "name", "content"}`, or `"error"` in the place of `"content"`; `"arguments"` if a person \
changed them |
| `system` | what the loop tells the model: that a decision cannot be used, or that a wait is over |

Arguments and results are kept as JSON, not as text with JSON in it: a person can read them, and they do not grow.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agent_statestore.envelope import dump
from agent_statestore.records import JSONValue, Message
from celery_agents.loop.actions import ToolCall
from celery_agents.loop.context import LoopResult


def of_calls(text: str | None, calls: Sequence[ToolCall]) -> JSONValue:
    """The content of the assistant's message with these calls."""
    return {
        "content": text,
        "tool_calls": [{"id": call.id, "name": call.tool, "arguments": call.arguments} for call in calls],
    }


def of_result(result: LoopResult, *, has_changed: bool) -> JSONValue:
    """The content of the message with the result of a call."""
    outcome = {"content": result.output} if result.success else {"error": result.error}
    changed = {"arguments": result.arguments} if has_changed else {}
    return {"tool_call_id": result.call_id, "name": result.name, **outcome, **changed}


def untold(result: LoopResult, why: str) -> JSONValue:
    """The content of the message with the result of a call, where that itself cannot be told."""
    what = "it succeeded, but its result" if result.success else "it failed, and its error"
    return {"tool_call_id": result.call_id, "name": result.name, "error": f"{what} cannot be told: {why}"}


def as_chat(message: Message) -> dict[str, Any]:
    """A message in the common chat format: contents and arguments are texts."""
    content = message.content
    if message.role == "assistant" and isinstance(content, dict) and "tool_calls" in content:
        calls = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": as_text(call["arguments"])},
            }
            for call in content["tool_calls"]
        ]
        return {"role": "assistant", "content": content["content"], "tool_calls": calls}
    if message.role == "tool" and isinstance(content, dict) and "tool_call_id" in content:
        return {"role": "tool", "tool_call_id": content["tool_call_id"], "content": _told(content)}
    return {"role": message.role, "content": as_text(content)}


def action_from_chat(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a model's answer in the common chat format decides: its `tool_calls`, or else a text that ends the turn.

    To be returned by the function of a loop agent. An answer that is malformed is told to the model.
    """
    calls, text = message.get("tool_calls"), message.get("content")
    if not calls:
        return {"action": "respond", "message": text}
    return {"action": "use_tools", "text": text or None, "calls": [_call_of(call) for call in calls]}


def _call_of(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return call  # no call: whoever reads the action says so
    return {"id": call.get("id"), "tool": function.get("name"), "arguments": function.get("arguments")}


def _told(content: dict[str, JSONValue]) -> str:
    text = f"Error: {content['error']}" if "error" in content else as_text(content["content"])
    if "arguments" in content:
        return f"(A person changed the arguments to {as_text(content['arguments'])}.) {text}"
    return text


def as_text(value: JSONValue) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else dump(value, "message")
