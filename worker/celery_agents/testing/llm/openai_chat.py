"""OpenAI's protocol: `POST /v1/chat/completions`, whole answers and streams (API reference, "Chat Completions")."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from celery_agents.testing.llm.conversation import Conversation, Turn, text_of
from celery_agents.testing.llm.replies import Call, Calls, Refuses, Says

PATHS: Final = ("/v1/chat/completions", "/chat/completions")

CREATED: Final = 1_700_000_000
_ROLES: Final = {"developer": "system", "function": "tool"}


def read(body: Mapping[str, Any]) -> Conversation:
    """Return the conversation of a request."""
    turns = tuple(
        Turn(
            role=_ROLES.get(message["role"], message["role"]),
            text=text_of(message.get("content")),
            calls=tuple(call["function"]["name"] for call in message.get("tool_calls") or ()),
            call_id=message.get("tool_call_id") or "",
        )
        for message in body["messages"]
    )
    tools = tuple(tool["function"]["name"] for tool in body.get("tools") or () if "function" in tool)
    return Conversation(model=body["model"], turns=turns, tools=tools)


def answer(said: Says | Calls, calls: tuple[Call, ...], body: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    """Return the answer as one JSON object."""
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None, "refusal": None}
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    return {
        "id": request_id,
        "object": "chat.completion",
        "created": CREATED,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(calls)}],
        "usage": usage(said, calls, body),
    }


def stream(said: Says | Calls, calls: tuple[Call, ...], body: Mapping[str, Any], request_id: str) -> Iterator[str]:
    """Yield the answer as server-sent events."""

    def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
        fields = {"id": request_id, "object": "chat.completion.chunk", "created": CREATED, "model": body["model"]}
        return f"data: {json.dumps(fields | {'choices': choices} | more)}\n\n"

    def delta(fields: dict[str, Any], reason: str | None = None) -> str:
        return chunk([{"index": 0, "delta": fields, "logprobs": None, "finish_reason": reason}])

    yield delta({"role": "assistant", "content": ""})
    for word in words(said.text):
        yield delta({"content": word})
    for index, call in enumerate(calls):
        whole = _call(call)
        arguments = whole["function"]["arguments"]
        yield delta({"tool_calls": [whole | {"index": index, "function": whole["function"] | {"arguments": ""}}]})
        for part in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
            yield delta({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    yield delta({}, _reason(calls))
    if (body.get("stream_options") or {}).get("include_usage"):
        yield chunk([], usage=usage(said, calls, body))
    yield "data: [DONE]\n\n"


def error(refused: Refuses) -> dict[str, Any]:
    """Return an error as OpenAI has it."""
    return {
        "error": {"message": refused.message, "type": "scripted_error", "param": None, "code": refused.code},
    }


def error_event(refused: Refuses) -> str:
    """Return an error in the middle of a stream."""
    return f"data: {json.dumps(error(refused))}\n\n"


def usage(said: Says | Calls, calls: tuple[Call, ...], body: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many tokens were used: one for each four characters, as a rule of thumb has it."""
    asked = tokens(json.dumps(body["messages"]))
    answered = tokens(said.text) + sum(tokens(json.dumps(dict(call.arguments))) for call in calls)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def tokens(text: str) -> int:
    """Return how many tokens a text counts as."""
    return -(-len(text) // 4)


def words(text: str) -> Iterator[str]:
    """Yield a text in pieces as a model streams it."""
    start = 0
    while start < len(text):
        end = text.find(" ", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _call(call: Call) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments))
    return {"id": call.id, "type": "function", "function": {"name": call.tool, "arguments": arguments}}


def _reason(calls: tuple[Call, ...]) -> str:
    return "tool_calls" if calls else "stop"
