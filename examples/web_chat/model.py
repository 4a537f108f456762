"""The model of the travel desk: a real one where there is a key for it, otherwise one that follows a script."""

import json
import os
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx

from celery_agents import current_stream, spend

# Where another server of the same protocol is than the demo's own; see `script`.
URL: Final = "WEB_CHAT_MODEL_URL"
SCRIPTED: Final = "scripted-model"
_REAL: Final = "gpt-6-luna"
_SILENCE_SECONDS: Final = 60.0


async def ask(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Ask the model; return its message. Each piece of the answer goes into the stream of the execution as it comes."""
    stream = current_stream()
    text = ""
    calls: dict[int, dict[str, Any]] = {}
    async for chunk in _chunks({"messages": messages, "tools": tools}):
        if chunk.get("usage"):
            spend(tokens=chunk["usage"]["total_tokens"])
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if delta.get("content"):
                text += delta["content"]
                stream.text(delta["content"])
            for part in delta.get("tool_calls") or ():
                given = part["function"]
                if part["index"] not in calls:
                    function = {"name": given["name"], "arguments": ""}
                    calls[part["index"]] = {"id": part["id"], "type": "function", "function": function}
                calls[part["index"]]["function"]["arguments"] += given.get("arguments") or ""
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    return message | ({"tool_calls": list(calls.values())} if calls else {})


async def _chunks(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Yield the pieces of an answer, as OpenAI's protocol has them. Raise `httpx.HTTPError` if it does not come."""
    key = os.environ.get("OPENAI_API_KEY")
    url = "https://api.openai.com/v1" if key else os.environ[URL]
    body = {"model": _REAL if key else SCRIPTED, "stream": True, "stream_options": {"include_usage": True}, **request}
    headers = {"Authorization": f"Bearer {key or 'none'}"}
    async with (
        httpx.AsyncClient(timeout=_SILENCE_SECONDS) as client,
        client.stream("POST", f"{url}/chat/completions", json=body, headers=headers) as answer,
    ):
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            data = line.removeprefix("data: ")
            if data != line and data != "[DONE]":
                yield json.loads(data)
