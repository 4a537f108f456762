"""`durable`: what goes into the store and what does not, what is refused, and that agents stay what they are."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    CustomTool,
    RunContextWrapper,
    Runner,
    ShellTool,
    WebSearchTool,
    function_tool,
)
from pydantic import BaseModel

from agent_statestore import AgentState
from celery_agents import AsyncRun, InvalidInput, RegistrationError, Registry, Run
from celery_agents import agent as make_agent
from celery_agents.engine.run import event_loop
from celery_agents.integrations.openai_agents import DurableRunner, durable
from celery_agents.testing import LocalAgents, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says
from tests.integrations.openai_agents.models import Models

Serve = Callable[..., ModelServer]


@dataclass
class Shop:
    """A context, with something that no JSON carries."""

    name: str
    connection: Any


def selling(conversation: Conversation) -> Says | Calls:
    return Calls(Call("sell", {})) if conversation.turn == 0 else Says(conversation.results[0])


@function_tool
def sell(context: RunContextWrapper[Shop]) -> str:
    """Sells."""
    return f"sold by {context.context.name}"


def test_contexts_are_made_for_each_attempt_and_never_stored(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    made: list[str] = []

    def plain() -> Shop:
        made.append("plain")
        return Shop("plain", object())

    async def with_run(run: AsyncRun) -> Shop:
        made.append(run.execution_id)
        return Shop(str(run.metadata["shop"]), object())

    agent = Agent(name="seller", model=models.responses(serve(model=selling)), tools=[sell])
    durable(agent, context=plain, registry=registry, name="plain")
    durable(agent, context=with_run, registry=registry, name="with-run")
    local.crash_at("seller model#2", When.BEFORE_CHECKPOINT)
    assert local.start("plain", "Sell.").run().wait() == "sold by plain"
    assert made == ["plain", "plain"]
    execution = local.start("with-run", "Sell.", metadata={"shop": "Ada's"})
    assert execution.run().wait() == "sold by Ada's"
    assert made[2:] == [execution.id]
    for step in execution.steps():
        assert "object at" not in str(step)


class Order(BaseModel):
    number: int
    wish: str


def as_prompt(order: Order) -> str:
    return f"Order {order.number}: {order.wish}"


def test_the_input_may_be_of_a_type(serve: Serve, models: Models, registry: Registry, local: LocalAgents) -> None:
    server = serve(model=lambda conversation: Says(conversation.prompt))
    agent = Agent(name="clerk", model=models.responses(server))
    clerk = durable(agent, prompt=as_prompt, registry=registry)
    assert local.start(clerk, Order(number=7, wish="soon")).run().wait() == "Order 7: soon"
    assert clerk.input_schema["required"] == ["number", "wish"]
    with pytest.raises(InvalidInput, match="number"):
        local.start(clerk, {"wish": "soon"})
    with pytest.raises(InvalidInput):
        local.start(durable(agent, name="plain", registry=registry), 7)


def test_the_agent_stays_as_it_was(serve: Serve, models: Models, registry: Registry, local: LocalAgents) -> None:
    server = serve(model=selling)
    helper = Agent(name="helper", model=models.responses(server), tools=[sell])
    agent = Agent(name="seller", model=models.responses(server), tools=[sell], handoffs=[helper])
    before = copy(agent.__dict__), copy(helper.__dict__), list(agent.tools), list(agent.handoffs), sell.on_invoke_tool
    durable(agent, context=lambda: Shop("Ada's", None), registry=registry)
    assert local.start("seller", "Sell.").run().wait() == "sold by Ada's"
    after = copy(agent.__dict__), copy(helper.__dict__), list(agent.tools), list(agent.handoffs), sell.on_invoke_tool
    assert [one is other for one, other in zip(after[0].values(), before[0].values(), strict=True)].count(False) == 0
    assert after[1:] == before[1:]
    config = models.config(server)
    for run in (Runner.run, DurableRunner().run):
        done = event_loop.start(run(agent, "Sell.", context=Shop("Bob's", None), run_config=config)).result(30)
        assert done.final_output == "sold by Bob's"
        assert done.last_agent is agent
    assert len(server.requests) == 6


def test_tools_that_act_on_the_worker_s_machine_are_refused(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server = serve(boss=[Calls(Call("transfer_to_hacker", {}))])
    acting: list[Any] = [ShellTool(executor=lambda _: "done"), ApplyPatchTool(editor=object())]  # type: ignore[arg-type]
    for tool in acting:
        agent = Agent(name="hacker", model=models.responses(server), tools=[tool])
        with pytest.raises(RegistrationError, match=type(tool).__name__):
            durable(agent, registry=registry)
    durable(Agent(name="reader", model=models.responses(server), tools=[WebSearchTool()]), registry=registry)
    # One that is met only on the way.
    durable(Agent(name="boss", model=models.responses(server, "boss"), handoffs=[agent]), registry=registry)
    failed = local.start("boss", "Go.").run()
    error = failed.summary().error
    assert error is not None
    assert "ApplyPatchTool" in error.message


def test_custom_tools_are_steps(registry: Registry, local: LocalAgents) -> None:
    from agents.tool_context import ToolContext

    from celery_agents.integrations.openai_agents.runner import DurableRunner as Runs
    from celery_agents.integrations.openai_agents.scope import RunScope, within
    from celery_agents.integrations.openai_agents.tools import durable_tool

    made: list[str] = []

    async def grep(context: ToolContext[Any], text: str) -> str:
        made.append(text)
        return f"found {text}"

    tool = durable_tool(CustomTool(name="grep", description="", on_invoke_tool=grep), Runs()._options)

    @make_agent(registry=registry)
    async def searching(run: AsyncRun, input: str) -> str:
        context: ToolContext[Any] = ToolContext(None, None, "grep", "c1", input)
        with within(RunScope(options=Runs()._options), "searching"):
            found: str = await tool.on_invoke_tool(context, input)
        return await run.step("after", lambda: found)

    local.crash_at("after", When.BEFORE_CHECKPOINT)
    execution = local.start("searching", "x").run()
    assert execution.wait() == "found x"
    assert made == ["x"]
    assert execution.steps()[0].action.input == {"input": "x"}


def test_a_plain_agent_is_told_to_be_async(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    import asyncio

    agent = Agent(name="seller", model=models.responses(serve(model=selling)), tools=[sell])

    @make_agent(registry=registry)
    def plain(run: Run, input: str) -> str:
        return str(asyncio.run(DurableRunner().run(agent, input)).final_output)

    execution = local.start("plain", "Go.").run()
    assert execution.state is AgentState.FAILED
    error = execution.summary().error
    assert error is not None
    assert "async def" in error.message
