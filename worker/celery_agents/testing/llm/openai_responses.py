"""OpenAI's protocol: `POST /v1/responses`, whole answers and streams (API reference, "Responses", "Streaming")."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from celery_agents.testing.llm.conversation import Conversation, Turn, text_of
from celery_agents.testing.llm.openai_chat import CREATED, error, tokens, words
from celery_agents.testing.llm.replies import Call, Calls, Refuses, Says

__all__ = ["PATHS", "answer", "error", "error_event", "read", "stream"]

PATHS: Final = ("/v1/responses", "/responses")

_ROLES: Final = {"developer": "system"}


def read(body: Mapping[str, Any]) -> Conversation:
    """Return the conversation of a request. What the model said and called at once is one turn of it."""
    turns = [Turn(role="system", text=body["instructions"])] if body.get("instructions") else []
    given = body["input"]
    items: list[Mapping[str, Any]] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    for item in items:
        turn = _turn(item)
        if turn.role == "assistant" and turns and turns[-1].role == "assistant":
            before = turns.pop()
            turn = Turn(
                role="assistant",
                text="\n".join(filter(None, (before.text, turn.text))),
                calls=(*before.calls, *turn.calls),
            )
        turns.append(turn)
    tools = tuple(tool["name"] for tool in body.get("tools") or () if tool["type"] == "function")
    return Conversation(model=body["model"], turns=tuple(turns), tools=tools)


def _turn(item: Mapping[str, Any]) -> Turn:
    kind = item.get("type", "message")
    if kind == "message":
        return Turn(role=_ROLES.get(item["role"], item["role"]), text=text_of(item["content"]))
    if kind == "function_call_output":
        return Turn(role="tool", text=text_of(item["output"]), call_id=item["call_id"])
    # Calls, and what the model reasoned before them.
    return Turn(role="assistant", calls=(item["name"],) if kind == "function_call" else ())


def answer(said: Says | Calls, calls: tuple[Call, ...], body: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    """Return the answer as one JSON object."""
    return {
        "id": request_id,
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": None,
        "model": body["model"],
        "output": [
            *([_message(said.text, request_id)] if said.text else []),
            *(_call(call) for call in calls),
        ],
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "temperature": 1.0,
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "usage": _usage(said, calls, body),
        "metadata": {},
    }


def stream(said: Says | Calls, calls: tuple[Call, ...], body: Mapping[str, Any], request_id: str) -> Iterator[str]:
    """Yield the answer as server-sent events."""
    number = -1

    def event(kind: str, /, **fields: Any) -> str:
        nonlocal number
        number += 1
        return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': number} | fields)}\n\n"

    whole = answer(said, calls, body, request_id)
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for index, item in enumerate(whole["output"]):
        place = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            part, empty = item["content"][0], item["content"][0] | {"text": ""}
            yield event("response.output_item.added", output_index=index, item=item | {"content": []} | _BEGUN)
            yield event("response.content_part.added", **place, content_index=0, part=empty)
            for word in words(part["text"]):
                yield event("response.output_text.delta", **place, content_index=0, delta=word, logprobs=[])
            yield event("response.output_text.done", **place, content_index=0, text=part["text"], logprobs=[])
            yield event("response.content_part.done", **place, content_index=0, part=part)
        else:
            text = item["arguments"]
            yield event("response.output_item.added", output_index=index, item=item | {"arguments": ""} | _BEGUN)
            for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
                yield event("response.function_call_arguments.delta", **place, delta=piece)
            yield event("response.function_call_arguments.done", **place, name=item["name"], arguments=text)
        yield event("response.output_item.done", output_index=index, item=item)
    yield event("response.completed", response=whole)


def error_event(refused: Refuses) -> str:
    """Return an error in the middle of a stream."""
    told = {"type": "error", "sequence_number": 0, "code": refused.code, "message": refused.message, "param": None}
    return f"event: error\ndata: {json.dumps(told)}\n\n"


_BEGUN: Final = {"status": "in_progress"}


def _message(text: str, request_id: str) -> dict[str, Any]:
    return {
        "id": f"msg_{request_id}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
    }


def _call(call: Call) -> dict[str, Any]:
    return {
        "id": f"fc_{call.id}",
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.tool,
        "arguments": json.dumps(dict(call.arguments)),
    }


def _usage(said: Says | Calls, calls: tuple[Call, ...], body: Mapping[str, Any]) -> dict[str, Any]:
    asked = tokens(json.dumps([body.get("instructions"), body["input"]]))
    answered = tokens(said.text) + sum(tokens(json.dumps(dict(call.arguments))) for call in calls)
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": asked + answered,
    }
