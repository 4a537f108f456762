"""Errors of models and tools: which are tried again, which are the model's to know, and which stay what they are."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.fallback import FallbackModel

from agent_statestore import AgentState
from celery_agents import AsyncRun, Registry
from celery_agents import agent as make_agent
from celery_agents.integrations.pydantic_ai import CeleryDurability, durable
from celery_agents.testing import Crash, LocalAgents, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Refuses, Reply, Says
from tests.integrations.pydantic_ai.models import Models

Serve = Callable[..., ModelServer]


def test_a_rate_limit_is_waited_for_without_a_slot(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    def script(conversation: Conversation) -> Reply:
        if conversation.times == 1:
            return Refuses(status=429, headers={"retry-after": "600"})
        return Refuses(status=503) if conversation.times == 2 else Says("at last")

    for protocol in ("openai", "anthropic"):
        server = serve(**{f"model-{protocol}": script})
        model = getattr(models, protocol)(server, f"model-{protocol}")
        durable(Agent(model, name=protocol, capabilities=[CeleryDurability()]), registry=registry)
        execution = local.start(protocol, "Go.").run()
        assert execution.state is AgentState.WAITING, protocol
        (waiting,) = execution.summary().waits
        assert waiting.wake_at is not None
        assert timedelta(minutes=10) <= waiting.wake_at - waiting.asked_at < timedelta(minutes=11), protocol
        local.advance(timedelta(minutes=15))
        assert execution.wait() == "at last", protocol
        assert len(server.requests) == 3, protocol


def test_an_error_that_stays_one_is_itself_also_on_a_replay(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server = serve(model=lambda _: Refuses(status=400, message="too long", code="context_length_exceeded"))
    agent = Agent(models.openai(server), name="talker", capabilities=[CeleryDurability()])
    caught: list[ModelHTTPError] = []

    @make_agent(registry=registry)
    async def careful(run: AsyncRun, input: str) -> str:
        try:
            await agent.run(input)
        except ModelHTTPError as error:
            caught.append(error)
        await run.step("after", int)
        return "handled"

    local.crash_at("after", When.BEFORE_CHECKPOINT)
    assert local.start("careful", "Go.").run().wait() == "handled"
    first, replayed = caught
    assert type(first) is type(replayed)
    assert (first.status_code, replayed.status_code) == (400, 400)
    assert (first.body, replayed.provider_error_code) == (replayed.body, "context_length_exceeded")
    assert len(server.requests) == 1


def test_a_fallback_takes_over_and_does_so_again(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server = serve(down=lambda _: Refuses(status=400, message="no"), up=[Says("from the other one")])
    fallback = FallbackModel(models.openai(server, "down"), models.openai(server, "up"))
    durable(Agent(fallback, name="robust", capabilities=[CeleryDurability()]), registry=registry)
    local.crash_at("robust model", When.AFTER_CHECKPOINT)
    assert local.start("robust", "Go.").run().wait() == "from the other one"
    assert [request.conversation.model for request in server.requests] == ["down", "up"]


def test_a_result_that_is_too_large_is_told_to_the_model(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    def script(conversation: Conversation) -> Reply:
        return Calls(Call("dump", {})) if conversation.turn == 0 else Says(conversation.results[0])

    server = serve(model=script)
    agent = Agent(models.openai(server), name="dumper", capabilities=[CeleryDurability()])
    agent.tool_plain(name="dump")(lambda: "x" * 20_000_000)
    durable(agent, registry=registry)
    assert "cannot be kept" in local.start("dumper", "Go.").run().wait()


def test_a_call_that_was_interrupted_and_must_not_be_repeated_is_told_to_the_model(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    def script(conversation: Conversation) -> Reply:
        return Calls(Call("pay", {})) if conversation.turn == 0 else Says(conversation.results[0])

    server, made = serve(model=script), []
    agent = Agent(models.openai(server), name="payer", capabilities=[CeleryDurability()])

    @agent.tool_plain(metadata={"celery": {"on_crash": "fail"}})
    def pay() -> str:
        made.append(1)
        raise Crash

    durable(agent, registry=registry)
    assert "whether it took effect is not known" in local.start("payer", "Go.").run().wait()
    assert made == [1]


def test_a_person_is_asked_about_the_tool_that_was_interrupted(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server, made = serve(model=[Calls(Call("pay", {"amount": 7})), Says("done")]), []
    agent = Agent(models.openai(server), name="payer", capabilities=[CeleryDurability()])

    @agent.tool_plain(metadata={"celery": {"on_crash": "ask"}})
    def pay(amount: int) -> str:
        made.append(amount)
        raise Crash

    durable(agent, registry=registry)
    execution = local.start("payer", "Go.").run().run()
    (waiting,) = execution.summary().waits
    assert "'pay'" in waiting.prompt["question"]
    assert waiting.prompt["input"] == {"amount": 7}
    execution.resume({"output": {"kind": "tool_return", "result": "paid by hand"}}, key=waiting.key)
    assert execution.wait() == "done"
    assert made == [7]


def test_a_timeout_is_told_to_the_model(serve: Serve, models: Models, registry: Registry, local: LocalAgents) -> None:
    def script(conversation: Conversation) -> Reply:
        return Calls(Call("hang", {})) if conversation.turn == 0 else Says(conversation.results[0])

    server = serve(model=script)
    agent = Agent(models.openai(server), name="hanger", capabilities=[CeleryDurability()])

    @agent.tool_plain(metadata={"celery": {"timeout": timedelta(seconds=0.05)}})
    async def hang() -> str:
        await asyncio.sleep(60)
        return "never"

    durable(agent, registry=registry)
    assert "Timed out after 0.05 seconds" in local.start("hanger", "Go.").run().wait()


def test_a_limit_of_the_execution_is_nothing_that_a_model_is_told(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server = serve(model=lambda conversation: Calls(Call("more", {"n": conversation.turn})))
    agent = Agent(models.openai(server), name="endless", capabilities=[CeleryDurability()])
    agent.tool_plain(name="more")(lambda n: n + 1)
    durable(agent, registry=registry, max_steps=6)
    execution = local.start("endless", "Go.").run()
    assert execution.state is AgentState.FAILED
    error = execution.summary().error
    assert error is not None
    assert error.type.endswith("MaxStepsExceeded")
    assert len(execution.steps()) == 6


def test_tokens_and_prices_count_exactly_across_crashes(serve: Serve, models: Models, registry: Registry) -> None:
    def script(conversation: Conversation) -> Reply:
        return Calls(Call("more", {"n": conversation.turn})) if conversation.turn < 4 else Says("enough")

    # A name that has a price.
    server = serve(**{"gpt-4o": script})
    agent = Agent(models.openai(server, "gpt-4o"), name="spender", capabilities=[CeleryDurability()])
    agent.tool_plain(name="more")(lambda n: n + 1)

    @make_agent(registry=registry)
    async def counted(run: AsyncRun, input: str) -> dict[str, float]:
        result = await agent.run(input)
        return {**run.spent, "used": result.usage.total_tokens}

    undisturbed = LocalAgents(registry=registry).start("counted", "Go.").run().wait()
    with LocalAgents(registry=registry) as local:
        for step in ("spender model", "spender model#3", "spender model#5"):
            local.crash_at(step, When.AFTER_CHECKPOINT)
        execution = local.start("counted", "Go.")
        while not execution.run().state.is_over:
            pass
        disturbed = execution.wait()
    assert disturbed == undisturbed
    assert disturbed["tokens"] == disturbed["used"] > 0
    assert disturbed["cost"] > 0

    durable(agent, registry=registry, name="limited", max_tokens=60)
    failed = LocalAgents(registry=registry).start("limited", "Go.").run()
    error = failed.summary().error
    assert error is not None
    assert error.type.endswith("BudgetExceeded")
