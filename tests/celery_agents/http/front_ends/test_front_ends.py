"""The published clients of AG-UI and the AI SDK at our server, with an agent that is executed meanwhile."""

from typing import Any

from agent_statestore.query import Query
from celery_agents import Agent
from celery_agents.host.runtime import Runtime
from tests.celery_agents.http.formats.telling import parts_of
from tests.celery_agents.http.formats.test_front_end_formats import AGUI_EVENT
from tests.celery_agents.http.front_ends.conftest import Worker
from tests.http_clients.running import play

ADA = {"Authorization": "Bearer secret:ada"}
FINAL = "The moon is red (paid 30 to Zoë, What is it like?)."


def test_use_chat_shows_all_that_an_agent_does_and_answers_it(port: int, runtime: Runtime, writer: Agent) -> None:
    [chat] = play(
        "chat",
        [
            {
                "api": f"http://127.0.0.1:{port}/chat/writer",
                "headers": ADA,
                "chatId": "chat-1",
                "acts": [
                    {"send": "What is it like?"},
                    {"approve": {"approved": True, "reason": "fine"}},
                    {"answer": "red"},
                ],
            }
        ],
    )
    assert (chat["status"], chat["errors"]) == ("ready", [])
    user, message = chat["messages"]
    assert user["parts"] == [{"type": "text", "text": "What is it like?"}]
    assert [part["text"] for part in parts_of(message, "text")] == ["Let me see. ", FINAL]
    assert all(part["state"] == "done" for part in parts_of(message, "text", "reasoning"))
    assert [part["text"] for part in parts_of(message, "reasoning")] == ["I shall look it up.", "Try 2. "]
    [looked] = parts_of(message, "tool-look_up")
    assert (looked["state"], looked["input"], looked["output"]) == (
        "output-available",
        {"word": "moon"},
        {"word": "moon", "found": 2},
    )
    [paid] = parts_of(message, "tool-pay")
    assert (paid["state"], paid["input"], paid["output"]) == (
        "output-available",
        {"to": "Zoë", "amount": 30},
        "paid 30 to Zoë",
    )
    assert (paid["approval"]["approved"], paid["approval"]["reason"]) == (True, "fine")
    [asked] = parts_of(message, "tool-ask")
    assert (asked["input"]["prompt"], asked["output"]) == ("Which colour?", "red")
    assert parts_of(message, "data-emitted")[0]["data"] == {"progress": 50}
    assert [part["data"] for part in parts_of(message, "data-weather")] == [{"sky": "clear"}]
    assert chat["finished"] == ["tool-calls", "tool-calls", "stop"]
    assert message["metadata"]["output"] == FINAL
    assert set(chat["called"]) == {"ask"}, "what the server calls is not called by the page"
    told = [part["data"]["kind"] for part in chat["data"] if part["type"] == "data-execution"]
    assert {"started", "resumed", "answered", "try_failed"} <= set(told)
    [execution] = runtime.store.find(Query()).items
    assert (execution.user_id, execution.session_id) == ("ada", "chat-1")
    assert message["id"] == execution.execution_id
    context = runtime.store.get_context(execution.execution_id)
    assert context is not None
    assert context.output == FINAL


def test_use_chat_ends_with_the_recorded_text_after_a_cut_in_the_middle_and_a_reload(
    port: int, writer: Agent, worker: Worker
) -> None:
    worker.may_go_on.clear()
    api: dict[str, Any] = {"api": f"http://127.0.0.1:{port}/chat/writer", "headers": ADA, "chatId": "chat-2"}
    began, again, unknown = play(
        "chat",
        [
            {**api, "acts": [{"send": "x", "messageId": "m1", "cutAfter": "Let me"}, {"resume": True}]},
            {**api, "messages": [_user("m1", "x")], "acts": [{"resume": True}]},
            {**api, "chatId": "never", "acts": [{"resume": True}]},
        ],
    )
    assert began["after"][0]["status"] == "error"
    assert began["finished"] == ["disconnect", "tool-calls"]
    assert began["messages"][1] == again["messages"][1]
    assert [part["text"] for part in parts_of(again["messages"][1], "text")] == ["Let me see. "]
    assert unknown["requests"] == ["GET /chat/writer/never/stream"]
    assert (unknown["messages"], unknown["status"]) == ([], "ready")

    resumed = {**api, "messages": again["messages"]}
    approved, asked = play(
        "chat",
        [
            {**resumed, "acts": [{"approve": {"approved": True}}]},
            {**api, "messages": [_user("m1", "x")], "acts": [{"resume": True}]},
        ],
    )
    assert approved["messages"][1]["parts"] == asked["messages"][1]["parts"]
    # The first try has said half of it when the connection breaks.
    red = {"answer": "red", "cutAfter": "The moon is "}
    [cut] = play("chat", [{**api, "messages": asked["messages"], "acts": [red]}])
    assert cut["finished"] == ["disconnect"]
    assert parts_of(cut["messages"][1], "text")[-1]["text"] == "The moon is "
    worker.may_go_on.set()
    [whole] = play("chat", [{**api, "messages": cut["messages"], "acts": [{"resume": True}]}])
    assert whole["finished"] == ["stop"]
    texts = [part["text"] for part in parts_of(whole["messages"][1], "text")]
    assert texts == ["Let me see. ", FINAL.replace("What is it like?", "x")]
    [reloaded] = play("chat", [{**api, "messages": [_user("m1", "x")], "acts": [{"resume": True}]}])
    assert reloaded["messages"] == whole["messages"], "also when it is over"


def _user(id: str, text: str) -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}


def test_ag_ui_shows_all_that_an_agent_does_and_answers_it(port: int, runtime: Runtime, writer: Agent) -> None:
    agent = {"url": f"http://127.0.0.1:{port}/agui/writer", "headers": ADA, "threadId": "thread-1"}
    begun: dict[str, Any] = {
        "runId": "r1",
        "messages": [{"id": "m1", "role": "user", "content": "What is it like?"}],
        "tools": [{"name": "go_to", "description": "", "parameters": {}}],
    }
    approval = {"status": "resolved", "payload": {"approved": True, "editedArgs": {"to": "Zoë", "amount": 20}}}
    [result] = play(
        "agui",
        [
            {
                **agent,
                "acts": [
                    begun,
                    {"runId": "r2", "resume": approval},
                    {"runId": "r3", "resume": {"status": "resolved", "payload": "red"}},
                ],
            }
        ],
    )
    first, second, third = result["runs"]
    assert [run["error"] for run in result["runs"]] == [None] * 3
    [interrupt] = first["interrupts"]
    assert (interrupt["reason"], interrupt["toolCallId"], interrupt["message"]) == (
        "tool_call",
        "call-2",
        "Sends money.",
    )
    assert interrupt["metadata"]["arguments"] == {"to": "Zoë", "amount": 30}
    [question] = second["interrupts"]
    assert (question["reason"], question["message"]) == ("input_required", "Which colour?")
    assert question["responseSchema"] == {"type": "string"}
    final = FINAL.replace("30", "20")
    assert (third["interrupts"], third["result"]) == ([], final)
    assert result["state"] == {"page": 2}
    messages = result["messages"]
    assert messages[0] == begun["messages"][0]
    assert [each["content"] for each in messages if each["role"] == "assistant"] == ["Let me see. ", final]
    assert [each["content"] for each in messages if each["role"] == "reasoning"] == ["I shall look it up.", "Try 2. "]
    [called] = [each["toolCalls"] for each in messages if "toolCalls" in each]
    assert [(call["id"], call["function"]["name"]) for call in called] == [("call-1", "look_up"), ("call-2", "pay")]
    results = {each["toolCallId"]: each["content"] for each in messages if each["role"] == "tool"}
    assert results == {"call-1": '{"word": "moon", "found": 2}', "call-2": "paid 20 to Zoë"}
    customs = [event["name"] for event in result["seen"] if event["type"] == "CUSTOM"]
    assert {"agents.started", "agents.answered", "agents.resumed", "agents.try_failed", "agents.emitted"} == set(
        customs
    )
    for event in result["seen"]:
        assert not AGUI_EVENT.validate_python(event).model_extra
    [execution] = runtime.store.find(Query()).items
    assert (execution.user_id, execution.session_id, execution.agent_id) == ("ada", "thread-1", "writer")
    assert {event["metadata"]["executionId"] for event in result["seen"] if event["type"] == "RUN_STARTED"} == {
        execution.execution_id
    }

    [stranger] = play("agui", [{**agent, "headers": {"Authorization": "Bearer secret:bob"}, "acts": [begun]}])
    assert "403" in stranger["runs"][0]["error"]
    [again] = play("agui", [{**agent, "messages": messages, "acts": [{"runId": "r1"}]}])
    assert again["messages"] == messages, "the same run, told once more to a page that has it"


def test_ag_ui_ends_with_the_recorded_text_after_cuts_in_the_middle(port: int, writer: Agent) -> None:
    begun = {"runId": "r1", "messages": [{"id": "m1", "role": "user", "content": "x"}]}
    approved = {"runId": "r2", "resume": {"status": "resolved", "payload": {"approved": True}}}
    answered = {"runId": "r3", "resume": {"status": "resolved", "payload": "red"}}
    [result] = play(
        "agui",
        [
            {
                "url": f"http://127.0.0.1:{port}/agui/writer",
                "headers": ADA,
                "threadId": "thread-2",
                "acts": [
                    {**begun, "cutAfter": "Let me"},
                    {"runId": "r1"},
                    approved,
                    {**answered, "cutAfter": "The moon is "},
                    answered,
                ],
            }
        ],
    )
    assert [run["error"] for run in result["runs"]] == ["network error", None, None, "network error", None]
    # The first try had said this much when the connection broke.
    assert result["runs"][3]["messages"][-1]["content"] == "The moon is "
    said = [each["content"] for each in result["messages"] if each["role"] == "assistant"]
    assert said == ["Let me see. ", FINAL.replace("What is it like?", "x")]
    assert [each["role"] for each in result["messages"]].count("user") == 1
