"""What people say to an execution: user prompts for the outermost run of Pydantic AI in it, once, whatever crashes."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, TextPart, UserPromptPart

from agent_statestore import AgentState, SignalKind, WaitKind
from celery_agents import AsyncRun, Registry
from celery_agents import agent as make_agent
from celery_agents.engine import lease
from celery_agents.integrations.pydantic_ai import CeleryDurability
from celery_agents.testing import LocalAgents, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says
from tests.celery_agents.driving import Engine
from tests.integrations.pydantic_ai.models import Models

Serve = Callable[..., ModelServer]


def told(messages: list[ModelMessage]) -> list[str]:
    """What was said, by the user and the model."""
    parts = [part for message in messages for part in message.parts]
    return [str(part.content) for part in parts if isinstance(part, UserPromptPart | TextPart)]


def made(registry: Registry, agent: Agent[None, Any]) -> None:
    """Register an agent that returns the whole conversation."""

    @make_agent(registry=registry, name="chat")
    async def chat(run: AsyncRun, input: str) -> list[str]:
        return told((await agent.run(input)).all_messages())


def test_a_message_comes_with_the_next_request_and_one_at_the_end_makes_one_more(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    def script(conversation: Conversation) -> Says | Calls:
        if conversation.turn == 0:
            return Calls(Call("look", {}))
        if conversation.turn == 1:
            execution.say("second", mode="next_turn", message_id="b")
            return Says("Found.")
        return Says("Bye.")

    server = serve(model=script)
    agent = Agent(models.openai(server), name="chat", capabilities=[CeleryDurability()])

    @agent.tool_plain
    def look() -> str:
        execution.say("first", message_id="a")
        return "seen"

    made(registry, agent)
    execution = local.start("chat", "go")
    crash = local.crash_at("chat model#2", When.BEFORE_INTENT)
    execution.run()
    assert execution.wait() == ["go", "first", "Found.", "second", "Bye."]
    assert crash.happened
    assert len(server.requests) == 3
    assert execution.context().signals == ()


def test_an_agent_in_a_tool_is_not_told(serve: Serve, models: Models, registry: Registry, local: LocalAgents) -> None:
    server = serve(
        outer=[Calls(Call("ask", {})), Says("Bye.")],
        inner=[Says("inner says")],
    )
    inner = Agent(models.openai(server, "inner"), name="inner", capabilities=[CeleryDurability()])
    outer = Agent(models.openai(server, "outer"), name="chat", capabilities=[CeleryDurability()])

    @outer.tool_plain(metadata={"celery": False})
    async def ask() -> str:
        execution.say("for the outer one", message_id="a")
        return (await inner.run("inner")).output

    made(registry, outer)
    execution = local.start("chat", "go")
    assert execution.wait() == ["go", "for the outer one", "Bye."]


def test_an_approval_stays_open(serve: Serve, models: Models, registry: Registry, local: LocalAgents) -> None:
    server = serve(model=[Calls(Call("pay", {})), Says("Bye.")])
    agent = Agent(models.openai(server), name="chat", capabilities=[CeleryDurability()])

    @agent.tool_plain(requires_approval=True)
    def pay() -> str:
        return "paid"

    made(registry, agent)
    execution = local.start("chat", "go").run()
    execution.say("and quick")
    execution.run()
    assert execution.state is AgentState.WAITING_FOR_APPROVAL
    assert execution.waits[0].kind is WaitKind.APPROVAL
    execution.approve(sender="ada")
    assert execution.wait() == ["go", "and quick", "Bye."]


def test_an_interrupt_ends_the_request_in_flight(
    serve: Serve, models: Models, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_HEAR_SECONDS", 0.1)
    engine = Engine(registry=registry)
    server = serve(model=[Says("late")])

    def script(conversation: Conversation) -> Says:
        if len(server.requests) == 0:
            engine.send(execution_id, SignalKind.SAY, "interrupt", "stop")
            server.delay_seconds = 3.0
            return Says("too late")
        server.delay_seconds = 0.0
        return Says("Stopped.")

    server.models["model"] = script
    agent = Agent(models.openai(server), name="chat", capabilities=[CeleryDurability()])
    made(registry, agent)
    execution_id = engine.start(registry.agent("chat"), "go")  # type: ignore[arg-type]
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == ["go", "stop", "Stopped."], outcome.error
    assert [step.name for step in engine.context(execution_id).steps][-3:] == ["chat model", "#said#2", "chat model#2"]
