"""What people say to an execution: the user's input for the outermost agent in it, once, whatever crashes."""

from collections.abc import Callable
from typing import Any

import pytest
from agents import Agent, function_tool

from agent_statestore import SignalKind
from celery_agents import Registry
from celery_agents.engine import lease
from celery_agents.integrations.openai_agents import durable
from celery_agents.testing import LocalAgents, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says
from tests.celery_agents.driving import Engine
from tests.integrations.openai_agents.models import Models

Serve = Callable[..., ModelServer]


def told(conversation: Conversation) -> list[str]:
    return [turn.text for turn in conversation.turns if turn.role in ("user", "assistant") and turn.text]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_message_comes_with_the_next_request_and_one_at_the_end_makes_one_more(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, is_streamed: bool
) -> None:
    def script(conversation: Conversation) -> Says | Calls:
        if conversation.turn < 2:
            return Calls(Call("look", {}))
        if conversation.turn == 2:
            execution.say("second", mode="next_turn", message_id="b")
            return Says("Found.")
        return Says(" | ".join(told(conversation)))

    @function_tool
    def look() -> str:
        execution.say("first", message_id="a")
        return "seen"

    server = serve(model=script)
    agent: Agent[Any] = Agent(name="chat", model=models.responses(server), tools=[look])
    durable(agent, registry=registry, on_stream=(lambda _: None) if is_streamed else None)
    execution = local.start("chat", "go")
    crash = local.crash_at("chat model#2", When.BEFORE_INTENT)
    execution.run()
    assert execution.wait() == "go | first | Found. | second"
    assert crash.happened
    # It stands in front of what came after it, in each later request.
    roles = [turn.role for turn in server.requests[-1].conversation.turns]
    assert roles == ["user", "assistant", "tool", "user", "assistant", "tool", "assistant", "user"]


def test_an_agent_as_a_tool_is_not_told(serve: Serve, models: Models, registry: Registry, local: LocalAgents) -> None:
    def says(conversation: Conversation) -> Says:
        execution.say("for the outer one", message_id="a")
        return Says("inner says")

    def outer_says(conversation: Conversation) -> Says | Calls:
        if conversation.turn == 0:
            return Calls(Call("ask", {"input": "inner"}))
        return Says(" | ".join(told(conversation)))

    server = serve(outer=outer_says, inner=says)
    inner: Agent[Any] = Agent(name="inner", model=models.responses(server, "inner"))
    ask = inner.as_tool("ask", "Asks.")
    outer: Agent[Any] = Agent(name="chat", model=models.responses(server, "outer"), tools=[ask])
    durable(outer, registry=registry)
    execution = local.start("chat", "go")
    assert execution.wait() == "go | for the outer one"


def test_an_interrupt_ends_the_request_in_flight(
    serve: Serve, models: Models, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_HEAR_SECONDS", 0.1)
    engine = Engine(registry=registry)

    def script(conversation: Conversation) -> Says:
        if len(server.requests) == 0:
            engine.send(execution_id, SignalKind.SAY, "interrupt", "stop")
            server.delay_seconds = 3.0
            return Says("too late")
        server.delay_seconds = 0.0
        return Says(" | ".join(told(conversation)))

    server = serve(model=script)
    chat = durable(Agent(name="chat", model=models.responses(server)), registry=registry)
    execution_id = engine.start(chat, "go")
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == "go | stop", outcome.error
