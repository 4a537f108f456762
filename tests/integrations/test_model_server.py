"""The model server speaks to the real clients of OpenAI and Anthropic, whole and in streams."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2 as httpx
import openai
import pytest

from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Refuses, Reply, Says

Serve = Callable[..., ModelServer]
TOOL = {"type": "object", "properties": {"order": {"type": "integer"}}}
ARGUMENTS = {"order": 7, "why": 'Łódź "quoted"\n'}
SCRIPT: list[Reply] = [
    Calls(Call("refund", ARGUMENTS), Call("look"), text="Let me see."),
    Says("It is done, Łukasz 🦊."),
]


def openai_messages(answers: list[Any]) -> list[Any]:
    messages: list[Any] = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Refund me."}]
    for answer in answers:
        messages.append(answer)
        messages.extend(
            {"role": "tool", "tool_call_id": call["id"], "content": f"result of {call['function']['name']}"}
            for call in answer["tool_calls"]
        )
    return messages


@pytest.mark.parametrize("is_streamed", [False, True])
def test_openai_s_client_gets_what_the_script_says(serve: Serve, is_streamed: bool) -> None:
    server = serve(model=SCRIPT)
    tools: Any = [{"type": "function", "function": {"name": "refund", "parameters": TOOL}}]
    with openai.OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as client:
        answers: list[Any] = []
        for turn in range(2):
            asked: Any = {"model": "model", "messages": openai_messages(answers), "tools": tools}
            if is_streamed:
                with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as events:
                    completion: Any = events.get_final_completion()
            else:
                completion = client.chat.completions.create(**asked)
            message = completion.choices[0].message
            assert completion.usage.total_tokens > completion.usage.completion_tokens > 0
            if turn == 0:
                assert completion.choices[0].finish_reason == "tool_calls"
                assert message.content == "Let me see."
                calls = message.tool_calls
                assert [call.function.name for call in calls] == ["refund", "look"]
                assert json.loads(calls[0].function.arguments) == ARGUMENTS
                assert len({call.id for call in calls}) == 2
                answers.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
                for call in answers[-1]["tool_calls"]:
                    call["function"] = {key: call["function"][key] for key in ("name", "arguments")}
            else:
                assert (message.content, completion.choices[0].finish_reason) == ("It is done, Łukasz 🦊.", "stop")
    first, second = (request.conversation for request in server.requests)
    assert (first.system, first.prompt, first.tools) == ("Be kind.", "Refund me.", ("refund",))
    assert second.results == ("result of refund", "result of look")


@pytest.mark.parametrize("is_streamed", [False, True])
def test_openai_s_client_gets_it_over_the_responses_protocol_too(serve: Serve, is_streamed: bool) -> None:
    server = serve(model=SCRIPT)
    tools: Any = [{"type": "function", "name": "refund", "parameters": TOOL, "strict": False}]
    given: list[Any] = [{"role": "user", "content": "Refund me."}]
    with openai.OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as client:
        for turn in range(2):
            asked: Any = {"model": "model", "input": given, "instructions": "Be kind.", "tools": tools}
            if is_streamed:
                with client.responses.stream(**asked) as events:
                    response: Any = events.get_final_response()
            else:
                response = client.responses.create(**asked)
            assert response.usage.total_tokens > response.usage.output_tokens > 0
            if turn == 0:
                assert response.output_text == "Let me see."
                calls = [item for item in response.output if item.type == "function_call"]
                assert [(call.name, json.loads(call.arguments)) for call in calls] == [
                    ("refund", ARGUMENTS),
                    ("look", {}),
                ]
                assert len({call.call_id for call in calls}) == 2
                given += [item.model_dump(exclude_unset=True) for item in response.output]
                given += [
                    {"type": "function_call_output", "call_id": call.call_id, "output": f"result of {call.name}"}
                    for call in calls
                ]
            else:
                assert response.output_text == "It is done, Łukasz 🦊."
    first, second = (request.conversation for request in server.requests)
    assert (first.system, first.prompt, first.tools) == ("Be kind.", "Refund me.", ("refund",))
    assert second.results == ("result of refund", "result of look")
    assert second.turn == 1


@pytest.mark.parametrize("is_streamed", [False, True])
def test_anthropic_s_client_gets_what_the_script_says(serve: Serve, is_streamed: bool) -> None:
    server = serve(model=SCRIPT)
    tools: Any = [{"name": "refund", "input_schema": TOOL}]
    messages: list[Any] = [{"role": "user", "content": "Refund me."}]
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        for turn in range(2):
            asked: Any = {
                "model": "model",
                "max_tokens": 100,
                "system": "Be kind.",
                "messages": messages,
                "tools": tools,
            }
            if is_streamed:
                with client.messages.stream(**asked) as events:
                    message: Any = events.get_final_message()
            else:
                message = client.messages.create(**asked)
            assert message.usage.output_tokens > 0
            if turn == 0:
                assert message.stop_reason == "tool_use"
                text, refund, look = message.content
                assert text.text == "Let me see."
                assert (refund.name, refund.input, look.name) == ("refund", ARGUMENTS, "look")
                results = [
                    {"type": "tool_result", "tool_use_id": call.id, "content": f"result of {call.name}"}
                    for call in (refund, look)
                ]
                messages += [
                    {"role": "assistant", "content": [part.model_dump(exclude_none=True) for part in message.content]},
                    {"role": "user", "content": results},
                ]
            else:
                assert (message.content[0].text, message.stop_reason) == ("It is done, Łukasz 🦊.", "end_turn")
    first, second = (request.conversation for request in server.requests)
    assert (first.system, first.prompt, first.tools) == ("Be kind.", "Refund me.", ("refund",))
    assert second.results == ("result of refund", "result of look")


def test_errors_are_the_clients_own_with_headers(serve: Serve) -> None:
    def script(conversation: Conversation) -> Reply:
        return Refuses(status=429, headers={"retry-after": "7"}, code="rate_limit_exceeded")

    server = serve(model=script)
    asked: Any = {"model": "model", "messages": [{"role": "user", "content": "Hi."}]}
    with (
        openai.OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.RateLimitError) as limited,
    ):
        client.chat.completions.create(**asked)
    assert limited.value.response.headers["retry-after"] == "7"
    assert limited.value.code == "rate_limit_exceeded"
    with (
        anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as other,
        pytest.raises(anthropic.RateLimitError) as limited_too,
    ):
        other.messages.create(**asked, max_tokens=5)
    assert limited_too.value.response.headers["retry-after"] == "7"
    assert [request.conversation.times for request in server.requests] == [1, 1]


def test_what_cannot_be_answered_is_a_fault_that_says_why() -> None:
    with ModelServer({"model": [Says("once")]}) as server:
        asked = {"role": "user", "content": "Hi."}
        bodies: dict[str, tuple[str, Any, int]] = {
            "no model 'other' here": ("/v1/chat/completions", {"model": "other", "messages": [asked]}, 404),
            "1 replies": (
                "/v1/chat/completions",
                {"model": "model", "messages": [asked, {"role": "assistant", "content": "once"}]},
                400,
            ),
            "not a request of this protocol": ("/v1/messages", {"model": "model"}, 400),
            "nothing is served": ("/v1/embeddings", {}, 404),
        }
        for why, (path, body, status) in bodies.items():
            answer = httpx.post(f"{server.url}{path}", json=body)
            assert answer.status_code == status, why
            assert why in answer.text, why
        assert len(server.faults) == 3
        assert httpx.post(f"{server.url}/v1/messages", content=b"no json").status_code == 400


def test_a_request_that_comes_again_is_told_from_a_new_one(serve: Serve) -> None:
    server = serve(model=lambda conversation: Says(f"time {conversation.times}"))
    with openai.OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as client:

        def ask(text: str) -> str:
            answer = client.chat.completions.create(model="model", messages=[{"role": "user", "content": text}])
            return answer.choices[0].message.content or ""

        assert [ask("a"), ask("b"), ask("a")] == ["time 1", "time 1", "time 2"]
    assert [request.conversation.prompt for request in server.repeated()] == ["a"]


def test_answers_take_their_time_and_do_not_wait_for_each_other() -> None:
    with ModelServer({"model": lambda _: Says("slow")}, delay_seconds=0.3) as server:
        started = time.monotonic()
        body = {"model": "model", "messages": [{"role": "user", "content": "Hi."}]}

        def ask() -> None:
            assert httpx.post(f"{server.openai_url}/chat/completions", json=body, timeout=30).status_code == 200

        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 20
        assert 0.3 <= time.monotonic() - started < 20 * 0.3
