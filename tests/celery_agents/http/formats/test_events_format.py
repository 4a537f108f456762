"""The bytes of server-sent events, and our own format."""

import json
from datetime import UTC, datetime

from agent_statestore.records import ExecutionSummary
from agent_statestore.states import AgentState
from agent_statestore.streams import StreamEvent
from celery_agents.http.formats.events import Events
from celery_agents.http.formats.sse import message, retry


def test_a_text_of_several_lines_is_one_message() -> None:
    assert message("a\nb\r\nc\rd", id=7, event="x\ny") == b"id: 7\nevent: xy\ndata: a\ndata: b\ndata: c\ndata: d\n\n"
    assert message("") == b"data: \n\n"
    assert message("a\u2028b\x0bc") == "data: a\u2028b\x0bc\n\n".encode()
    assert retry(250) == b"retry: 250\n\n"


def test_an_event_is_one_message_whose_id_is_its_number() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    summary = ExecutionSummary(execution_id="x", agent_id="a", state=AgentState.THINKING, created_at=at, updated_at=at)
    event = StreamEvent(kind="text", data={"delta": "ä\n"}, at=at, attempt=2, seq=3, step="llm", tried=1, number=99)
    told = Events(summary).tell(event).decode()
    first, second, third, *rest = told.split("\n")
    assert (first, second, rest) == ("id: 99", "event: text", ["", ""])
    assert json.loads(third.removeprefix("data: ")) == {
        "number": 99,
        "kind": "text",
        "at": "2026-01-02T03:04:05+00:00",
        "attempt": 2,
        "step": "llm",
        "tried": 1,
        "data": {"delta": "ä\n"},
    }
