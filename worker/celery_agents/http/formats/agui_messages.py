"""The messages of AG-UI, and what it asks of a person."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from agent_statestore.records import JSONValue
from celery_agents.http.formats.asks import Ask
from celery_agents.http.formats.talk import Item, ItemKind
from celery_agents.http.formats.tool_calls import Returned

TOOL_CALL: Final = "tool_call"
INPUT_REQUIRED: Final = "input_required"
Event: TypeAlias = dict[str, JSONValue]


def corrected(
    execution_id: str, history: Sequence[Mapping[str, Any]], items: Sequence[Item], parents: Mapping[str, str]
) -> list[Event]:
    """Return the messages that a front end is to have, which has `history`: its own ones, and ours in their places.

    `parents` are the messages to which calls belong, by the item's id.
    """
    ours = {str(message["id"]): message for message in _messages(execution_id, items, parents)}
    messages: list[Event] = []
    for old in history:
        if not is_ours(execution_id, old):
            messages.append(dict(old))
        elif (now := ours.pop(str(old.get("id")), None)) is not None:
            messages.append(now)
    return [*messages, *ours.values()]


def is_ours(execution_id: str, message: Mapping[str, Any]) -> bool:
    """Return whether a front end has this message from this execution."""
    return str(message.get("id", "")).startswith(f"{execution_id}:")


def _messages(execution_id: str, items: Sequence[Item], parents: Mapping[str, str]) -> Iterator[Event]:
    """Yield our messages, each with its calls, and what these returned behind it."""
    calls: dict[str, list[Item]] = {}
    for item in items:
        if item.kind is ItemKind.TOOL_CALL:
            calls.setdefault(parents[item.id], []).append(item)
    for item in items:
        if item.kind is ItemKind.SAID:
            yield {"id": item.id, "role": "user", "content": item.text}
        elif item.kind is ItemKind.THINKING:
            yield {"id": item.id, "role": "reasoning", "content": item.text}
        elif item.kind is ItemKind.TEXT or item.id in calls:
            message: Event = {"id": item.id, "role": "assistant"}
            if item.kind is ItemKind.TEXT:
                message["content"] = item.text
            yield from _with_calls(execution_id, message, calls.get(item.id, []))


def _with_calls(execution_id: str, message: Event, calls: list[Item]) -> Iterator[Event]:
    if calls:
        message["toolCalls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.tool, "arguments": _arguments(call)}}
            for call in calls
        ]
    yield message
    for call in calls:
        if call.returned is not None:
            content = told_of(call.returned)
            yield {
                "id": result_id(execution_id, call),
                "role": "tool",
                "toolCallId": call.call_id,
                "content": content,
            }


def parent_of(call: Item, items: Sequence[Item], parents: Mapping[str, str]) -> str:
    """Return the message that a call belongs to: the text before it in the same step, or one of its own."""
    for item in reversed(items):
        if item.step == call.step and item is not call:
            if item.kind is ItemKind.TEXT:
                return item.id
            if item.id in parents:
                return parents[item.id]
    return call.id


def interrupt_of(item: Item, ask: Ask) -> Event:
    """Return the interrupt that asks a person."""
    told: Event = {
        "id": ask.name,
        "reason": TOOL_CALL if ask.is_approval else INPUT_REQUIRED,
        "message": ask.prompt or (f"May {item.tool} be called?" if ask.is_approval else "An answer is needed."),
    }
    schema = ask.data.get("schema")
    if ask.is_approval:
        told["toolCallId"] = item.call_id
        told["responseSchema"] = {
            "type": "object",
            "properties": {
                "approved": {"type": "boolean"},
                "editedArgs": schema if isinstance(schema, dict) else {"type": "object"},
                "reason": {"type": "string"},
            },
            "required": ["approved"],
        }
    elif isinstance(schema, dict):
        told["responseSchema"] = schema
    if isinstance(until := ask.data.get("until"), str):
        told["expiresAt"] = until
    told["metadata"] = {name: ask.data[name] for name in ("tool", "arguments", "prompt") if name in ask.data}
    return told


def result_id(execution_id: str, call: Item) -> str:
    """Return the id of the message that holds what a call has returned."""
    return f"{execution_id}:result:{call.call_id}"


def told_of(returned: Returned) -> str:
    """Return what a call has returned, as text."""
    if returned.error is not None:
        return returned.error
    return returned.output if isinstance(returned.output, str) else json.dumps(returned.output)


def _arguments(call: Item) -> str:
    return call.text or ("" if call.arguments is None else json.dumps(call.arguments))
