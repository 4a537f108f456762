"""What people say to an execution: human messages for the agent of LangChain in it, once, whatever crashes."""

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

from agent_statestore import SignalKind
from celery_agents import AsyncRun, Registry
from celery_agents import agent as make_agent
from celery_agents.engine import lease
from celery_agents.integrations.langchain import DurabilityMiddleware, durable_graph
from celery_agents.testing import LocalAgents, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says
from tests.celery_agents.driving import Engine
from tests.integrations.langchain.models import openai

Serve = Callable[..., ModelServer]


def told(state: dict[str, Any]) -> list[str]:
    kinds = (HumanMessage, AIMessage)
    return [str(message.text) for message in state["messages"] if isinstance(message, kinds) and message.text]


@pytest.mark.parametrize("is_graph", [True, False], ids=["durable_graph", "ainvoke"])
def test_a_message_comes_with_the_next_call_and_one_at_the_end_makes_one_more(
    serve: Serve, registry: Registry, local: LocalAgents, is_graph: bool
) -> None:
    def script(conversation: Conversation) -> Says | Calls:
        if conversation.turn == 0:
            return Calls(Call("look", {}))
        if conversation.turn == 1:
            execution.say("second", mode="next_turn", message_id="b")
            return Says("Found.")
        return Says("Bye.")

    @tool
    async def look() -> str:
        """Looks."""
        execution.say("first", message_id="a")
        return "seen"

    server = serve(model=script)
    graph = create_agent(openai(server), tools=[look], name="chat", middleware=[DurabilityMiddleware()])
    if is_graph:
        durable_graph(graph, registry=registry, output=told)
        execution = local.start("chat", {"messages": [{"role": "user", "content": "go"}]})
    else:

        @make_agent(registry=registry)
        async def chat(run: AsyncRun, input: str) -> list[str]:
            return told(await graph.ainvoke({"messages": [HumanMessage(input)]}))

        execution = local.start("chat", "go")
    crash = local.crash_at("chat model#2", When.BEFORE_INTENT)
    execution.run()
    assert execution.wait() == ["go", "first", "Found.", "second", "Bye."]
    assert crash.happened
    assert len(server.requests) == 3


def test_an_agent_in_a_tool_is_not_told(serve: Serve, registry: Registry, local: LocalAgents) -> None:
    server = serve(outer=[Calls(Call("ask", {})), Says("Bye.")], inner=[Says("inner says")])
    inner = create_agent(openai(server, "inner"), name="inner", middleware=[DurabilityMiddleware()])

    @tool
    async def ask() -> str:
        """Asks."""
        execution.say("for the outer one", message_id="a")
        return told(await inner.ainvoke({"messages": [HumanMessage("inner")]}))[-1]

    middleware = [DurabilityMiddleware(tools={"ask": False})]
    outer = create_agent(openai(server, "outer"), tools=[ask], name="chat", middleware=middleware)
    durable_graph(outer, registry=registry, output=told)
    execution = local.start("chat", {"messages": [{"role": "user", "content": "go"}]})
    assert execution.wait() == ["go", "for the outer one", "Bye."]


def test_an_interrupt_ends_the_call_in_flight(
    serve: Serve, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_HEAR_SECONDS", 0.1)
    engine = Engine(registry=registry)

    def script(conversation: Conversation) -> Says:
        if len(server.requests) == 0:
            engine.send(execution_id, SignalKind.SAY, "interrupt", "stop")
            server.delay_seconds = 3.0
            return Says("too late")
        server.delay_seconds = 0.0
        return Says("Stopped.")

    server = serve(model=script)
    graph = create_agent(openai(server), name="chat", middleware=[DurabilityMiddleware()])
    chat = durable_graph(graph, registry=registry, output=told)
    execution_id = engine.start(chat, {"messages": [{"role": "user", "content": "go"}]})
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == ["go", "stop", "Stopped."], outcome.error
