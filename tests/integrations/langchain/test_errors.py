"""Errors of models and tools: which are tried again, which are the model's to know, and which stay what they are."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import openai as openai_client
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, tool

from agent_statestore import AgentState
from celery_agents import AsyncRun, RegistrationError, Registry, Retry
from celery_agents import agent as make_agent
from celery_agents.integrations.langchain import DurabilityMiddleware, StepOptions, durable_graph
from celery_agents.testing import Crash, LocalAgents, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Refuses, Reply, Says
from tests.integrations.langchain.models import anthropic, openai

Serve = Callable[..., ModelServer]


def durable(model: Any, registry: Registry, *tools: BaseTool, name: str = "agent", **options: Any) -> None:
    given = {key: options.pop(key) for key in ("max_steps", "max_tokens") if key in options}
    agent = create_agent(model, tools=list(tools), name=name, middleware=[DurabilityMiddleware(**options)])
    durable_graph(agent, registry=registry, output=lambda state: state["messages"][-1].text, **given)


def telling(name: str, **arguments: Any) -> Callable[[Conversation], Reply]:
    """A model that calls a tool, and says what it was told."""

    def script(conversation: Conversation) -> Reply:
        return Calls(Call(name, arguments)) if conversation.turn == 0 else Says(conversation.results[0])

    return script


def test_a_rate_limit_is_waited_for_without_a_slot(serve: Serve, registry: Registry, local: LocalAgents) -> None:
    def script(conversation: Conversation) -> Reply:
        if conversation.times == 1:
            return Refuses(status=429, headers={"retry-after": "600"})
        return Refuses(status=503) if conversation.times == 2 else Says("at last")

    makers: dict[str, Callable[..., Any]] = {"openai": openai, "anthropic": anthropic}
    for protocol, make in makers.items():
        server = serve(model=script)
        durable(make(server), registry, name=protocol)
        execution = local.start(protocol, "Go.").run()
        assert execution.state is AgentState.WAITING, protocol
        (waiting,) = execution.summary().waits
        assert waiting.wake_at is not None
        assert timedelta(minutes=10) <= waiting.wake_at - waiting.asked_at < timedelta(minutes=11), protocol
        local.advance(timedelta(minutes=15))
        assert execution.wait() == "at last", protocol
        assert len(server.requests) == 3, protocol


def test_a_pause_among_parallel_calls_leaves_the_others_recorded(
    serve: Serve, registry: Registry, local: LocalAgents, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[str] = []

    @tool
    def flaky(name: str) -> str:
        """Fails at first."""
        made.append(name)
        if name == "bad" and made.count("bad") == 1:
            raise ConnectionError("away")
        return name

    def script(conversation: Conversation) -> Reply:
        if conversation.turn == 0:
            return Calls(*(Call("flaky", {"name": name}) for name in ("one", "bad", "two")))
        return Says(" ".join(conversation.results))

    options = StepOptions(retry=Retry(retries=1, first_delay=timedelta(hours=1), max_delay=timedelta(hours=1)))
    durable(openai(serve(model=script)), registry, flaky, tool=options)
    execution = local.start("agent", "Go.").run()
    assert execution.state is AgentState.WAITING
    local.advance(timedelta(hours=2))
    assert execution.wait() == "one bad two"
    assert sorted(made) == ["bad", "bad", "one", "two"]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_an_error_that_stays_one_is_itself_also_on_a_replay(
    serve: Serve, registry: Registry, local: LocalAgents
) -> None:
    server = serve(model=lambda _: Refuses(status=400, message="too long", code="context_length_exceeded"))
    agent = create_agent(openai(server), middleware=[DurabilityMiddleware()])
    caught: list[openai_client.BadRequestError] = []

    @make_agent(registry=registry)
    async def careful(run: AsyncRun, input: str) -> str:
        try:
            await agent.ainvoke({"messages": [HumanMessage(input)]})
        except openai_client.BadRequestError as error:
            caught.append(error)
        await run.step("after", int)
        return "handled"

    local.crash_at("after", When.BEFORE_CHECKPOINT)
    assert local.start("careful", "Go.").run().wait() == "handled"
    first, replayed = caught
    assert type(first).__mro__[1:] == type(replayed).__mro__[1:]
    assert (first.status_code, first.code) == (replayed.status_code, replayed.code) == (400, "context_length_exceeded")
    assert len(server.requests) == 1


def test_a_fallback_takes_over_and_does_so_again(serve: Serve, registry: Registry, local: LocalAgents) -> None:
    server = serve(down=lambda _: Refuses(status=400, message="no"), up=[Says("from the other one")])
    fallback = ModelFallbackMiddleware(openai(server, "up"))
    agent = create_agent(openai(server, "down"), name="robust", middleware=[fallback, DurabilityMiddleware()])
    durable_graph(agent, registry=registry, output=lambda state: state["messages"][-1].text)
    local.crash_at("robust model#2", When.AFTER_CHECKPOINT)
    assert local.start("robust", "Go.").run().wait() == "from the other one"
    assert [request.conversation.model for request in server.requests] == ["down", "up"]


def test_a_tool_that_fails_fails_the_execution_as_langchain_has_it(
    serve: Serve, registry: Registry, local: LocalAgents
) -> None:
    @tool
    def broken(a: int) -> str:
        """Fails."""
        raise LookupError("nothing there")

    durable(openai(serve(model=telling("broken", a=1))), registry, broken)
    error = local.start("agent", "Go.").run().summary().error
    assert error is not None
    assert (error.type, error.message) == ("builtins:LookupError", "nothing there")

    durable(openai(serve(model=telling("broken", a="no number"))), registry, broken, name="wrong")
    assert "Error invoking tool 'broken'" in local.start("wrong", "Go.").run().wait()


def test_what_the_model_is_told_of_calls_without_a_result(serve: Serve, registry: Registry, local: LocalAgents) -> None:
    made: list[str] = []

    @tool
    def dump() -> str:
        """Is large."""
        return "x" * 20_000_000

    @tool(response_format="content_and_artifact")
    def connect() -> tuple[str, object]:
        """Returns what nothing can keep."""
        return "connected", object()

    @tool(extras={"celery": {"timeout": timedelta(seconds=0.05)}})
    async def hang() -> str:
        """Hangs."""
        await asyncio.sleep(60)
        return "never"

    @tool
    def pay() -> str:
        """Pays."""
        made.append("paid")
        raise Crash

    told = {
        "dump": "cannot be kept",
        "connect": "no JSON carries it",
        "hang": "Timed out after 0.05 seconds",
        "pay": "whether it took effect is not known",
    }
    for one in (dump, connect, hang, pay):
        seen: list[Any] = []
        agent = create_agent(
            openai(serve(model=telling(one.name))),
            tools=[one],
            middleware=[DurabilityMiddleware(tools={"pay": StepOptions(on_crash="fail")})],
        )
        durable_graph(agent, name=one.name, registry=registry, output=lambda state: seen.extend(state["messages"]))  # noqa: B023
        local.start(one.name, "Go.").run().wait()
        (message,) = [message for message in seen if isinstance(message, ToolMessage)]
        assert told[one.name] in message.text, one.name
        assert message.status == "error", one.name
    assert made == ["paid"]


def test_a_person_is_asked_about_the_tool_that_was_interrupted(
    serve: Serve, registry: Registry, local: LocalAgents
) -> None:
    made: list[int] = []

    @tool(extras={"celery": {"on_crash": "ask"}})
    def pay(amount: int) -> str:
        """Pays."""
        made.append(amount)
        raise Crash

    durable(openai(serve(model=telling("pay", amount=7))), registry, pay)
    execution = local.start("agent", "Go.").run().run()
    (waiting,) = execution.summary().waits
    assert "'pay'" in waiting.prompt["question"]
    assert waiting.prompt["input"] == {"amount": 7}
    execution.resume({"output": {"returned": None}}, key=waiting.key)
    assert execution.state is AgentState.WAITING_FOR_INPUT
    assert made == [7]


def test_a_limit_of_the_execution_is_nothing_that_a_model_is_told(
    serve: Serve, registry: Registry, local: LocalAgents
) -> None:
    @tool
    def more(n: int) -> int:
        """Counts."""
        return n + 1

    server = serve(model=lambda conversation: Calls(Call("more", {"n": conversation.turn})))
    durable(openai(server), registry, more, max_steps=6)
    execution = local.start("agent", "Go.").run()
    error = execution.summary().error
    assert error is not None
    assert error.type.endswith("MaxStepsExceeded")
    assert len(execution.steps()) == 6


def test_tokens_and_prices_count_exactly_across_crashes(serve: Serve, registry: Registry) -> None:
    def script(conversation: Conversation) -> Reply:
        return Calls(Call("more", {"n": conversation.turn})) if conversation.turn < 2 else Says("enough")

    # A name that has a price.
    server = serve(**{"gpt-4o": script})
    inner = openai(server, "gpt-4o")

    @tool
    async def more(n: int) -> str:
        """Asks a model itself, which counts too."""
        return (await inner.ainvoke([HumanMessage("inner"), *([HumanMessage("x")] * n)])).text

    agent = create_agent(openai(server, "gpt-4o"), tools=[more], name="spender", middleware=[DurabilityMiddleware()])

    @make_agent(registry=registry)
    async def counted(run: AsyncRun, input: str) -> dict[str, float]:
        state = await agent.ainvoke({"messages": [HumanMessage(input)]})
        used = (getattr(message, "usage_metadata", None) for message in state["messages"])
        return {**run.spent, "used": sum(one["total_tokens"] for one in used if one)}

    undisturbed = LocalAgents(registry=registry).start("counted", "Go.").run().wait()
    with LocalAgents(registry=registry) as local:
        for step in ("spender model", "spender model#2", "spender model#3"):
            local.crash_at(step, When.AFTER_CHECKPOINT)
        execution = local.start("counted", "Go.")
        while not execution.run().state.is_over:
            pass
        disturbed = execution.wait()
    assert disturbed == undisturbed
    assert disturbed["tokens"] > disturbed["used"] > 0
    assert sum(step.spent["tokens"] for step in execution.steps()) == disturbed["tokens"], "of models and tools alike"
    assert disturbed["cost"] > 0

    durable_graph(agent, registry=registry, max_tokens=30)
    error = LocalAgents(registry=registry).start("spender", "Go.").run().summary().error
    assert error is not None
    assert error.type.endswith("BudgetExceeded")


def test_options_that_there_are_not_are_named(serve: Serve, registry: Registry, local: LocalAgents) -> None:
    @tool(extras={"celery": {"on_crash": "ask", "unknown": 1}})
    def slow() -> str:
        """Is slow."""
        return "ok"

    durable(openai(serve(model=telling("slow"))), registry, slow)
    error = local.start("agent", "Go.").run().summary().error
    assert error is not None
    assert "unknown" in error.message
    with pytest.raises(RegistrationError, match="calls of tools"):
        DurabilityMiddleware(model=StepOptions(requires_approval=True))


def test_an_agent_of_ours_pauses_from_within(serve: Serve, registry: Registry, local: LocalAgents) -> None:
    def script(conversation: Conversation) -> Reply:
        return Refuses(status=429, headers={"retry-after": "600"}) if conversation.times == 1 else Says("at last")

    agent = create_agent(openai(serve(model=script)), middleware=[DurabilityMiddleware()])
    caught: list[BaseException] = []

    @make_agent(registry=registry)
    async def ours(run: AsyncRun, input: str) -> str:
        try:
            return str((await agent.ainvoke({"messages": [HumanMessage(input)]}))["messages"][-1].text)
        except Exception as error:
            caught.append(error)  # LangGraph's, for a task that was ended: it is not heeded
            raise

    execution = local.start("ours", "Go.").run()
    assert execution.state is AgentState.WAITING
    assert all(type(error).__name__ == "NodeCancelledError" for error in caught)
    local.advance(timedelta(minutes=15))
    assert execution.wait() == "at last"
