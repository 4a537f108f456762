"""Errors of models and tools: which are tried again, which are the model's to know, and which stay what they are."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import openai
import pytest
from agents import Agent, MaxTurnsExceeded, function_tool

from agent_statestore import AgentState
from celery_agents import AsyncRun, Registry, Retry
from celery_agents import agent as make_agent
from celery_agents.integrations.openai_agents import DurableRunner, StepOptions, durable
from celery_agents.testing import Crash, LocalAgents, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Refuses, Reply, Says
from tests.integrations.openai_agents.models import Models

Serve = Callable[..., ModelServer]


def calling(tool: str) -> Callable[[Conversation], Reply]:
    """A model that calls the tool once, and says what came of it."""
    return lambda conversation: Says(conversation.results[0]) if conversation.turn else Calls(Call(tool, {}))


@pytest.mark.parametrize("is_streamed", [False, pytest.param(True, marks=pytest.mark.full)])
def test_a_rate_limit_is_waited_for_without_a_slot(
    serve: Serve,
    models: Models,
    registry: Registry,
    local: LocalAgents,
    caplog: pytest.LogCaptureFixture,
    is_streamed: bool,
) -> None:
    def script(conversation: Conversation) -> Reply:
        if conversation.times == 1:
            return Refuses(status=429, headers={"retry-after": "600"})
        return Refuses(status=503) if conversation.times == 2 else Says("at last")

    for protocol in ("responses", "chat"):
        server = serve(**{f"model-{protocol}": script})
        agent = Agent(name=protocol, model=getattr(models, protocol)(server, f"model-{protocol}"))
        durable(agent, registry=registry, on_stream=(lambda _: None) if is_streamed else None)
        execution = local.start(protocol, "Go.").run()
        assert execution.state is AgentState.WAITING, protocol
        (waiting,) = execution.summary().waits
        assert waiting.wake_at is not None
        assert timedelta(minutes=10) <= waiting.wake_at - waiting.asked_at < timedelta(minutes=11), protocol
        local.advance(timedelta(minutes=15))
        assert execution.wait() == "at last", protocol
        assert len(server.requests) == 3, protocol
    # The SDK's own lines about the requests that failed, and nothing about what the engine unwound.
    errors = {record.message for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")}
    assert errors <= {"Error getting response", "Error streaming response"}


def test_an_error_that_stays_one_is_itself_also_on_a_replay(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server = serve(model=lambda _: Refuses(status=400, message="too long", code="context_length_exceeded"))
    agent = Agent(name="talker", model=models.responses(server))
    caught: list[Any] = []

    @make_agent(registry=registry)
    async def careful(run: AsyncRun, input: str) -> str:
        try:
            await DurableRunner().run(agent, input)
        except openai.BadRequestError as error:
            caught.append((error.code, str(error)))
        await run.step("after", int)
        return "handled"

    local.crash_at("after", When.BEFORE_CHECKPOINT)
    assert local.start("careful", "Go.").run().wait() == "handled"
    first, replayed = caught
    assert first == replayed
    assert first[0] == "context_length_exceeded"
    assert len(server.requests) == 1


def test_errors_of_tools_are_told_as_the_sdk_tells_them_and_recorded(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    def script(conversation: Conversation) -> Reply:
        if conversation.turn == 0:
            return Calls(Call("broken", {}), Call("explained", {}))
        return Says(" | ".join(conversation.results))

    made: list[str] = []

    @function_tool
    def broken() -> str:
        made.append("broken")
        raise ValueError("no paper")

    @function_tool(failure_error_function=lambda _, error: f"Sorry: {error}")
    def explained() -> str:
        made.append("explained")
        raise ValueError("no ink")

    @function_tool(failure_error_function=None)
    def fatal() -> str:
        made.append("fatal")
        raise ValueError("no printer")

    server = serve(model=script, other=calling("fatal"))
    durable(Agent(name="printer", model=models.responses(server), tools=[broken, explained]), registry=registry)
    durable(Agent(name="lost", model=models.responses(server, "other"), tools=[fatal]), registry=registry)
    local.crash_at("printer model#2", When.BEFORE_CHECKPOINT)
    told = local.start("printer", "Go.").run().wait()
    assert "An error occurred while running the tool." in told
    assert "Sorry: no ink" in told
    assert sorted(made) == ["broken", "explained"]
    failed = local.start("lost", "Go.").run()
    error = failed.summary().error
    assert error is not None
    assert "no printer" in str(error)


def test_a_tool_that_tells_no_errors_may_be_tried_again(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    made: list[int] = []

    @function_tool(failure_error_function=None)
    def flaky() -> str:
        made.append(1)
        if len(made) < 3:
            raise ConnectionError("try again")
        return "worked"

    server = serve(model=calling("flaky"))
    runner = DurableRunner(tools={"flaky": StepOptions(retry=Retry(retries=5))})
    durable(Agent(name="trier", model=models.responses(server), tools=[flaky]), registry=registry, runner=runner)
    execution = local.start("trier", "Go.").run()
    local.advance(timedelta(minutes=5))
    assert execution.wait() == "worked"
    assert len(made) == 3


def test_what_comes_of_a_call_instead_of_a_result_is_told_to_the_model(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    made: list[str] = []

    @function_tool
    def dump() -> str:
        return "x" * 20_000_000

    @function_tool
    def pay() -> str:
        made.append("paid")
        raise Crash

    @function_tool(timeout=0.05)
    async def hang() -> str:
        await asyncio.sleep(60)
        return "never"

    @function_tool(timeout=0.05, timeout_error_function=lambda _, error: f"Too slow: {type(error).__name__}")
    async def hang_politely() -> str:
        await asyncio.sleep(60)
        return "never"

    runner = DurableRunner(tools={"pay": StepOptions(on_crash="fail")})
    for tool, expected in (
        (dump, "cannot be kept"),
        (pay, "whether it took effect is not known"),
        (hang, "timed out after 0.05 seconds"),
        (hang_politely, "Too slow: ToolTimeoutError"),
    ):
        server = serve(model=calling(tool.name))
        agent = Agent(name=tool.name, model=models.responses(server), tools=[tool])
        durable(agent, registry=registry, runner=runner)
        local.crash_at(f"{tool.name} model#2", When.BEFORE_CHECKPOINT)
        execution = local.start(tool.name, "Go.")
        while not execution.run().state.is_over:
            pass
        assert expected in execution.wait(), tool.name
    assert made == ["paid"]


def test_a_person_is_asked_about_the_tool_that_was_interrupted(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server, made = serve(model=[Calls(Call("pay", {"amount": 7})), Says("done")]), []

    @function_tool
    def pay(amount: int) -> str:
        made.append(amount)
        raise Crash

    runner = DurableRunner(tool=StepOptions(on_crash="ask"))
    durable(Agent(name="payer", model=models.responses(server), tools=[pay]), registry=registry, runner=runner)
    execution = local.start("payer", "Go.").run().run()
    (waiting,) = execution.summary().waits
    assert "'pay'" in waiting.prompt["question"]
    assert waiting.prompt["input"] == {"amount": 7}
    execution.resume({"output": "paid by hand"}, key=waiting.key)
    assert execution.wait() == "done"
    assert made == [7]


def test_the_sdk_s_own_limits_stay_what_they_are(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    @function_tool
    def more() -> str:
        return "more"

    server = serve(model=lambda _: Calls(Call("more", {})))
    agent = Agent(name="endless", model=models.responses(server), tools=[more])
    durable(agent, registry=registry, max_turns=3)
    failed = local.start("endless", "Go.").run()
    error = failed.summary().error
    assert error is not None
    assert error.type.endswith(MaxTurnsExceeded.__name__)
    assert len(server.requests) == 3


def test_tokens_and_prices_count_exactly_across_crashes(serve: Serve, models: Models, registry: Registry) -> None:
    def script(conversation: Conversation) -> Reply:
        return Calls(Call("more", {"n": conversation.turn})) if conversation.turn < 3 else Says("enough")

    @function_tool
    def more(n: int) -> int:
        return n + 1

    # A name that has a price.
    server = serve(**{"gpt-4o": script})
    agent = Agent(name="spender", model=models.responses(server, "gpt-4o"), tools=[more])
    for name, on_stream in (("whole", None), ("streamed", lambda _: None)):

        @make_agent(registry=registry, name=name)
        async def counted(run: AsyncRun, input: str) -> dict[str, float]:
            streaming = (lambda _: None) if run.agent_id == "streamed" else None
            result = await DurableRunner().run(agent, input, on_stream=streaming)
            return {**run.spent, "used": result.context_wrapper.usage.total_tokens}

        undisturbed = LocalAgents(registry=registry).start(name, "Go.").run().wait()
        with LocalAgents(registry=registry) as local:
            for step in ("spender model", "spender model#3"):
                local.crash_at(step, When.AFTER_CHECKPOINT)
            execution = local.start(name, "Go.")
            while not execution.run().state.is_over:
                pass
            disturbed = execution.wait()
        assert disturbed == undisturbed, on_stream
        assert disturbed["tokens"] == disturbed["used"] > 0
        assert sum(step.spent.get("tokens", 0) for step in execution.steps()) == disturbed["tokens"]
        assert disturbed["cost"] > 0
    durable(agent, registry=registry, name="limited", max_tokens=60)
    failed = LocalAgents(registry=registry).start("limited", "Go.").run()
    error = failed.summary().error
    assert error is not None
    assert error.type.endswith("BudgetExceeded")
