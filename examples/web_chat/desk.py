"""The agent: one execution for each message of the traveller, in the conversation of its session."""

import json
from datetime import timedelta
from typing import Any, Final

from celery_agents import (
    AnswerTimeout,
    ApprovalDenied,
    ApprovalExpired,
    AsyncRun,
    CallInterrupted,
    InvalidArguments,
    Retry,
    agent,
)
from examples.web_chat import model
from examples.web_chat.stays import book_stay, search_stays

_INSTRUCTIONS: Final = "You work at a travel desk. Look for stays before you propose one, and book what you propose."
_TOOLS: Final = {tool.name: tool for tool in (search_stays, book_stay)}
_ASK: Final = "ask_traveller"
_FUNCTIONS: Final[list[dict[str, Any]]] = [
    *({"name": tool.name, "description": tool.description, "parameters": tool.json_schema} for tool in _TOOLS.values()),
    {
        "name": _ASK,
        "description": "Ask the traveller something, and wait for the answer.",
        "parameters": {
            "type": "object",
            "properties": {"question": {"type": "string"}, "choices": {"type": "array", "items": {"type": "string"}}},
            "required": ["question"],
        },
    },
]
_PUT_OFF: Final = "not called: the traveller has said something first"


@agent(name="travel-desk", session_policy="queue", max_steps=100, deadline=timedelta(days=30))
async def travel_desk(run: AsyncRun, message: str) -> str:
    """Find a stay for a traveller, and book it."""
    session = await run.session
    session.say("user", message)
    # What the traveller says meanwhile may end an answer that is on its way.
    thinking = run.options(retry=Retry(retries=4), interruptible=True)
    while True:
        for saying in await run.said():
            session.say("user", saying.text)
        try:
            answer = await thinking.step("model", model.ask, _chat(session.messages), _functions())
        except CallInterrupted as interrupted:
            if interrupted.text:
                session.say("assistant", interrupted.text)
            continue
        calls = answer.get("tool_calls", ())
        # An answer that ends the turn listens to everything, calls of tools to what cannot wait for their end.
        said = await run.said(turn_is_over=not calls)
        results = [_PUT_OFF if said else await _result(run, call["function"]) for call in calls]
        # A call and its result are stored in one write: no model takes one without the other.
        session.say("assistant", answer)
        for call, result in zip(calls, results, strict=True):
            session.say("tool", {"tool_call_id": call["id"], "content": result})
        for saying in said:
            session.say("user", saying.text)
        if not calls and not said:
            return str(answer["content"])


async def _result(run: AsyncRun, function: dict[str, str]) -> str:
    """Return what the model is told of a call."""
    name = function["name"]
    try:
        arguments = json.loads(function["arguments"] or "{}")
        if name == _ASK:
            return str(await run.ask(arguments["question"], choices=arguments.get("choices")))
        returned = await run.tool(_TOOLS[name], **arguments)
    except (ApprovalDenied, ApprovalExpired, AnswerTimeout, InvalidArguments, KeyError, TypeError, ValueError) as error:
        return f"Error: {type(error).__name__}: {error}"
    return returned if isinstance(returned, str) else json.dumps(returned, ensure_ascii=False)


def _functions() -> list[dict[str, Any]]:
    return [{"type": "function", "function": function} for function in _FUNCTIONS]


def _chat(messages: Any) -> list[dict[str, Any]]:
    """Return the conversation as a model's API takes it."""
    chat = [{"role": "system", "content": _INSTRUCTIONS}]
    for message in messages:
        content = message.content
        chat.append({"role": message.role, **(content if isinstance(content, dict) else {"content": content})})
    return chat
