"""What the published clients of AG-UI and the AI SDK make of streams: in the end, exactly what counts."""

import random
from typing import Any

from ag_ui.core import Event as AGUIEvent
from pydantic import TypeAdapter

from celery_agents.http.formats.agui import AGUI, AGUIRun
from celery_agents.http.formats.ui_messages import UIMessages
from tests.celery_agents.client.test_transcript import History
from tests.celery_agents.http.formats.telling import objects, summary, told
from tests.http_clients.running import play

ACTS = ["say"] * 6 + ["say_between", "fail", "record", "late", "resumed", "recovered", "other"]
AGUI_EVENT: TypeAdapter[Any] = TypeAdapter(AGUIEvent)


def histories(number: int) -> list[tuple[History, list[tuple[str, str, str]]]]:
    made = []
    for seed in range(number):
        chance = random.Random(seed)
        history = History(chance)
        history.go_on(chance.choices(ACTS, k=40))
        made.append((history, history.finish()))
    return made


def run(*messages: dict[str, Any], tools: frozenset[str] = frozenset()) -> AGUIRun:
    return AGUIRun(thread_id="thread", run_id="run", history=messages, tools=tools)


def validated(text: str) -> str:
    """The response, all of whose events the published models of AG-UI accept, with no field that they do not know."""
    for value in objects(text):
        event = AGUI_EVENT.validate_python(value)
        assert not event.model_extra, event
    return text


def said_by_agui(messages: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    said = []
    for message in messages:
        if message["role"] == "reasoning" and message["content"]:
            said.append(("thinking", "", message["content"]))
        if message["role"] == "assistant":
            if message.get("content"):
                said.append(("text", "", message["content"]))
            said += [("tool_call", "", call["function"]["arguments"]) for call in message.get("toolCalls", ())]
    return sorted(said)


def said_by_chat(messages: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    [message] = messages
    names = {"text": "text", "reasoning": "thinking"}
    said = [(names[part["type"]], "", part["text"]) for part in message["parts"] if part["type"] in names]
    calls = [part for part in message["parts"] if part["type"] == "tool-pay"]
    return sorted(said + [("tool_call", "", part["input"]) for part in calls])


def test_their_messages_are_exactly_the_recorded_words_whatever_failed_and_wherever_the_connection_broke() -> None:
    """Random streams of three steps at once; every second viewer is cut off at a random event and comes back."""
    chance = random.Random(7)
    agui, chat, expected = [], [], []
    for history, words in histories(24):
        expected.append(sorted((kind, "", text) for kind, _, text in words))
        whole = validated(told(AGUI(summary(), run()), history.events))
        cut = {"cutAfter": chance.randint(2, max(len(objects(whole)) - 1, 2))} if len(expected) % 2 else {}
        agui.append({"canned": [whole] * 2, "acts": [{"runId": "run", **cut}, *([{"runId": "run"}] if cut else [])]})
        whole = told(UIMessages(summary()), history.events)
        cut = {"cutAfter": chance.randint(2, max(len(objects(whole)) - 1, 2))} if len(expected) % 2 else {}
        resumed: list[dict[str, Any]] = [{"resume": True}] if cut else []
        chat.append({"canned": [whole] * 2, "acts": [{"send": "hi", **cut}, *resumed]})

    # A front end of AG-UI that comes back sends what it has by then: the response begins by correcting that.
    first = play("agui", [{**each, "acts": each["acts"][:1]} for each in agui])
    again = [
        {"messages": left["messages"], "canned": [_corrected(history, left["messages"])], "acts": [{"runId": "run"}]}
        for left, (history, _) in zip(first, histories(24), strict=True)
    ]
    for number, result in enumerate(play("agui", again)):
        assert result["runs"][-1]["error"] is None, (number, result["runs"][-1]["error"])
        assert said_by_agui(result["messages"]) == expected[number], number
    for number, left in enumerate(first):
        if number % 2:
            assert said_by_agui(left["messages"]) == expected[number], number
        else:
            assert left["runs"][0]["error"] == "network error", number
    for number, result in enumerate(play("chat", chat)):
        assert result["status"] == "ready", (number, result["errors"])
        assert said_by_chat(result["messages"][1:]) == expected[number], number


def _corrected(history: History, messages: list[dict[str, Any]]) -> str:
    return validated(told(AGUI(summary(), run(*messages)), history.events))
