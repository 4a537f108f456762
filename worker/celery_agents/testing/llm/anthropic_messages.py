"""Anthropic's protocol: `POST /v1/messages`, whole answers and streams (API reference, "Messages", "Streaming")."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from celery_agents.testing.llm.conversation import Conversation, Turn, text_of
from celery_agents.testing.llm.openai_chat import tokens, words
from celery_agents.testing.llm.replies import Call, Calls, Refuses, Says

PATHS: Final = ("/v1/messages", "/messages")

# The error types of the API by status ("Errors").
_ERRORS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def read(body: Mapping[str, Any]) -> Conversation:
    """Return the conversation of a request."""
    turns = [Turn(role="system", text=text_of(body["system"]))] if body.get("system") else []
    for message in body["messages"]:
        content = message["content"]
        parts: list[Mapping[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        turns += [
            Turn(role="tool", text=text_of(part.get("content")), call_id=part["tool_use_id"])
            for part in parts
            if part["type"] == "tool_result"
        ]
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        calls = tuple(part["name"] for part in parts if part["type"] == "tool_use")
        if text or calls or message["role"] == "assistant":
            turns.append(Turn(role=message["role"], text=text, calls=calls))
    tools = tuple(tool["name"] for tool in body.get("tools") or ())
    return Conversation(model=body["model"], turns=tuple(turns), tools=tools)


def answer(said: Says | Calls, calls: tuple[Call, ...], body: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    """Return the answer as one JSON object."""
    return {
        "id": request_id,
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [*([{"type": "text", "text": said.text}] if said.text else []), *map(_use, calls)],
        "stop_reason": _reason(calls),
        "stop_sequence": None,
        "usage": _usage(said, calls, body),
    }


def stream(said: Says | Calls, calls: tuple[Call, ...], body: Mapping[str, Any], request_id: str) -> Iterator[str]:
    """Yield the answer as server-sent events."""

    def event(name: str, **fields: Any) -> str:
        return f"event: {name}\ndata: {json.dumps({'type': name} | fields)}\n\n"

    used = _usage(said, calls, body)
    whole = answer(said, calls, body, request_id)
    started = whole | {"content": [], "stop_reason": None, "usage": used | {"output_tokens": 1}}
    yield event("message_start", message=started)
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            yield event("content_block_start", index=index, content_block={"type": "text", "text": ""})
            deltas = [{"type": "text_delta", "text": word} for word in words(block["text"])]
        else:
            yield event("content_block_start", index=index, content_block=block | {"input": {}})
            text = json.dumps(block["input"])
            parts = (text[: len(text) // 2], text[len(text) // 2 :])
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    yield event(
        "message_delta",
        delta={"stop_reason": whole["stop_reason"], "stop_sequence": None},
        usage=used,
    )
    yield event("message_stop")


def error(refused: Refuses) -> dict[str, Any]:
    """Return an error as Anthropic has it."""
    kind = _ERRORS.get(refused.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": refused.message}}


def error_event(refused: Refuses) -> str:
    """Return an error in the middle of a stream."""
    return f"event: error\ndata: {json.dumps(error(refused))}\n\n"


def _usage(said: Says | Calls, calls: tuple[Call, ...], body: Mapping[str, Any]) -> dict[str, int]:
    asked = tokens(json.dumps([body.get("system"), body["messages"]]))
    answered = tokens(said.text) + sum(tokens(json.dumps(dict(call.arguments))) for call in calls)
    return {"input_tokens": asked, "output_tokens": answered}


def _use(call: Call) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.tool, "input": dict(call.arguments)}


def _reason(calls: tuple[Call, ...]) -> str:
    return "tool_use" if calls else "end_turn"
