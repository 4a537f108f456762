"""Every operation of Pydantic AI's extension point is a step: made once, recorded, and replayed after a crash."""

import asyncio
from collections.abc import AsyncIterable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, FunctionToolset, ModelRetry, RunContext
from pydantic_ai.capabilities import AbstractCapability, LocalWorkspace
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.toolsets import DynamicToolset

from agent_statestore import AgentState
from celery_agents import MaxStepsExceeded, Registry
from celery_agents.integrations.pydantic_ai import CeleryDurability, durable
from celery_agents.testing import Crash, LocalAgents, LocalExecution, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says
from tests.integrations.pydantic_ai.models import Models

Serve = Callable[..., ModelServer]
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


def sums(conversation: Conversation) -> Says | Calls:
    """A model that has two sums made at once, and tells them."""
    if conversation.turn == 0:
        return Calls(Call("add", {"a": 1, "b": 2}), Call("add", {"a": 3, "b": 4}), text="Let me see.")
    return Says(f"They are {' and '.join(conversation.results)}.")


def names(execution: LocalExecution) -> list[str]:
    """The names of its steps, without the ids of calls."""
    return sorted(step.name.partition(" call_")[0] for step in execution.steps())


@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_requests_and_calls_are_steps_and_a_crash_repeats_only_what_is_not_recorded(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, protocol: str, is_streamed: bool
) -> None:
    server, made, seen = serve(model=sums), [], []

    async def see(context: RunContext[None], events: AsyncIterable[Any]) -> None:
        seen.extend([type(event).__name__ async for event in events])

    durability = CeleryDurability(event_stream_handler=see) if is_streamed else CeleryDurability()
    agent = Agent(getattr(models, protocol)(server), name="calculator", capabilities=[durability])

    @agent.tool_plain
    async def add(a: int, b: int) -> int:
        made.append(a)
        if a == 3 and len(made) < 3:
            await asyncio.sleep(0.1)  # the other one is recorded by then
            raise Crash
        return a + b

    durable(agent, registry=registry)
    execution = local.start("calculator", "Sum it up.").run()
    assert execution.wait() == "They are 3 and 7."
    assert sorted(made) == [1, 3, 3]
    assert len(server.requests) == 2
    assert server.repeated() == []
    assert {request.path for request in server.requests} == {PATHS[protocol]}
    models = [step for step in execution.steps() if step.action.kind == "model"]
    assert [(step.action.tool, step.action.title) for step in models] == [
        ("model", "model, 1 message"),
        ("model", "model, 3 messages"),
    ]
    tools = [step for step in execution.steps() if step.action.kind == "tool"]
    assert sorted((step.action.tool, step.action.input["a"]) for step in tools) == [("add", 1), ("add", 3)]
    assert ("PartDeltaEvent" in seen) is is_streamed
    assert ("FunctionToolResultEvent" in seen) is is_streamed


def test_each_moment_of_a_crash_ends_alike(serve: Serve, models: Models, registry: Registry) -> None:
    server = serve(model=sums)
    agent = Agent(models.openai(server), name="calculator", capabilities=[CeleryDurability()])

    @agent.tool_plain
    def add(a: int, b: int) -> int:
        return a + b

    durable(agent, registry=registry)
    for when in When:
        for step in ("calculator model", "calculator model#2"):
            before = len(server.requests)
            with LocalAgents(registry=registry) as local:
                local.crash_at(step, when)
                execution = local.start("calculator", f"Sum it up, {when} {step}.").run()
                assert execution.wait() == "They are 3 and 7.", (when, step)
                # What was answered and not recorded is asked for again. Nothing else is.
                asked = len(server.requests) - before
                assert asked == 2 + (when is When.BEFORE_CHECKPOINT), (when, step)


def test_what_a_tool_tells_the_model_is_recorded_as_such(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    def script(conversation: Conversation) -> Says | Calls:
        if conversation.turn < 3:
            return Calls(Call("flaky", {"turn": conversation.turn}))
        return Says(" | ".join(turn.text for turn in conversation.turns if turn.role == "tool"))

    server, made = serve(model=script), []
    agent = Agent(models.openai(server), name="flaky-agent", retries=3, capabilities=[CeleryDurability()])

    @agent.tool_plain
    def flaky(turn: int) -> str:
        made.append(turn)
        if turn == 0:
            raise ModelRetry("not like this")
        if turn == 1:
            raise ToolFailed("broken for good")
        return "worked"

    durable(agent, registry=registry)
    local.crash_at("flaky-agent model#4", When.BEFORE_CHECKPOINT)
    told = local.start("flaky-agent", "Go.").run().wait()
    assert made == [0, 1, 2]
    first, second, third = told.split(" | ")
    assert "not like this" in first
    assert "broken for good" in second
    assert third == "worked"


def test_arguments_are_validated_once(serve: Serve, models: Models, registry: Registry, local: LocalAgents) -> None:
    server, checked = serve(model=[Calls(Call("pay", {"amount": 5})), Says("paid")]), []
    agent = Agent(models.openai(server), name="payer", capabilities=[CeleryDurability()])

    async def check(context: RunContext[None], amount: int) -> None:
        checked.append(amount)

    @agent.tool_plain(args_validator=check)
    def pay(amount: int) -> str:
        return "ok"

    durable(agent, registry=registry)
    local.crash_at("payer model#2", When.BEFORE_CHECKPOINT)
    execution = local.start("payer", "Pay.").run()
    assert execution.wait() == "paid"
    assert checked == [5]
    assert any("validate_args" in name for name in names(execution))


class City(BaseModel):
    name: str
    people: int


def test_structured_output_comes_back_as_its_type(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server = serve(model=[Calls(Call("final_result", {"name": "Łódź", "people": 650_000}))])
    agent = Agent(models.openai(server), name="city", output_type=City, capabilities=[CeleryDurability()])
    durable(agent, registry=registry)
    execution = local.start("city", "Which one?").run()
    assert execution.wait() == {"name": "Łódź", "people": 650_000}


def test_dynamic_toolsets_are_listed_once(serve: Serve, models: Models, registry: Registry, local: LocalAgents) -> None:
    server, listed, made = serve(model=[Calls(Call("greet", {"who": "Ada"})), Says("greeted")]), [], []

    def toolset(context: RunContext[None]) -> FunctionToolset[None]:
        listed.append(1)
        tools: FunctionToolset[None] = FunctionToolset(id="greetings")

        @tools.tool_plain
        def greet(who: str) -> str:
            made.append(who)
            return f"hello {who}"

        return tools

    agent = Agent(
        models.openai(server),
        name="greeter",
        toolsets=[DynamicToolset(toolset, id="dynamic", per_run_step=False)],
        capabilities=[CeleryDurability()],
    )
    durable(agent, registry=registry)
    local.crash_at("greeter model#2", When.BEFORE_CHECKPOINT)
    execution = local.start("greeter", "Greet.").run()
    assert execution.wait() == "greeted"
    assert made == ["Ada"]
    assert any(name.endswith(".get_tools") for name in names(execution))


def test_operations_of_capabilities_are_steps(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    from pydantic_ai.capabilities import durable_operation

    server, looked = serve(model=[Says("done")]), []

    class Weather(AbstractCapability[None]):
        @durable_operation(name="look")
        async def look(self, ctx: RunContext[None], *, city: str) -> str:
            assert ctx.run_id
            looked.append(city)
            return "rain"

        async def before_run(self, ctx: RunContext[None]) -> None:
            assert await self.look(ctx, city="Bergen") == "rain"

    weather = Weather()
    weather.id = "weather"
    agent = Agent(models.openai(server), name="meteorologist", capabilities=[weather, CeleryDurability()])
    durable(agent, registry=registry)
    local.crash_at("meteorologist model", When.BEFORE_CHECKPOINT)
    execution = local.start("meteorologist", "Well?").run()
    assert execution.wait() == "done"
    assert looked == ["Bergen"]
    assert any("capability__weather" in name for name in names(execution))


def test_handlers_of_events_do_not_eat_the_step_budget(serve: Serve, models: Models, registry: Registry) -> None:
    server = serve(model=sums)

    async def see(context: RunContext[None], events: AsyncIterable[Any]) -> None:
        async for _ in events:
            pass

    def made(name: str, **options: Any) -> None:
        agent = Agent(models.openai(server), name=name, capabilities=[CeleryDurability(event_stream_handler=see)])

        @agent.tool_plain
        def add(a: int, b: int) -> int:
            return a + b

        durable(agent, registry=registry, **options)

    made("enough", max_steps=4)
    made("too-few", max_steps=3)
    with LocalAgents(registry=registry) as local:
        local.crash_at("enough model#2", When.AFTER_CHECKPOINT)
        execution = local.start("enough", "Sum.").run()
        assert execution.wait() == "They are 3 and 7."
        assert len(execution.steps()) == 8
        failed = local.start("too-few", "Sum.").run()
        assert failed.state is AgentState.FAILED
        error = failed.summary().error
        assert error is not None
        assert error.type.endswith(MaxStepsExceeded.__name__)


def test_names_of_any_length_and_kind_are_legal(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    name = "#agent " + "x" * 180
    server = serve(model=[Calls(Call("t" * 60, {})), Says("done")])
    agent = Agent(models.openai(server), name=name, capabilities=[CeleryDurability()])
    agent.tool_plain(name="t" * 60)(lambda: "ok")
    durable(agent, registry=registry, name="long")
    assert local.start("long", "Go.").run().wait() == "done"


class Compacting(WrapperModel):
    """A model whose service can shorten a conversation, and forget a response that it is still making."""

    def __init__(self, wrapped: Model, done: list[str]) -> None:
        super().__init__(wrapped)
        self._done = done

    async def compact_messages(
        self, request_context: ModelRequestContext, *, instructions: str | None = None
    ) -> ModelResponse:
        self._done.append(f"compacted {len(request_context.messages)}: {instructions}")
        return ModelResponse(parts=[TextPart("in short")], model_name="model")

    async def cancel_suspended_response(self, response: ModelResponse) -> None:
        self._done.append(f"cancelled {response.text}")


def test_compaction_and_the_end_of_a_suspended_response_are_steps(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server, done = serve(model=[Says("done")]), []

    class Shorten(AbstractCapability[None]):
        async def before_model_request(
            self, ctx: RunContext[None], request_context: ModelRequestContext
        ) -> ModelRequestContext:
            assert ctx.run_id
            model = request_context.model
            short = await model.compact_messages(request_context, instructions="be brief")
            await model.cancel_suspended_response(short)
            return request_context

    model = Compacting(models.openai(server), done)
    agent = Agent(model, name="talker", capabilities=[CeleryDurability(), Shorten()])
    durable(agent, registry=registry)
    local.crash_at("talker model", When.BEFORE_CHECKPOINT)
    execution = local.start("talker", "Go.").run()
    assert execution.wait() == "done"
    assert done == ["compacted 1: be brief", "cancelled in short"]
    assert [step.name for step in execution.steps()][:2] == [
        "talker__model.compact_messages",
        "talker__model.cancel_suspended_response",
    ]


def test_a_workspace_is_worked_in_by_steps(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, tmp_path: Path
) -> None:
    server = serve(model=[Calls(Call("save", {"text": "hello"})), Says("saved")])
    agent = Agent(
        models.openai(server),
        name="writer",
        capabilities=[LocalWorkspace(tmp_path, id="desk"), CeleryDurability()],
    )

    @agent.tool(metadata={"celery": False})
    async def save(context: RunContext[None], text: str) -> str:
        await context.workspace.write_text("note.txt", text)
        return "ok"

    durable(agent, registry=registry)
    execution = local.start("writer", "Go.").run()
    assert execution.wait() == "saved"
    assert (tmp_path / "note.txt").read_text() == "hello"
    assert any("workspace" in step.name for step in execution.steps())
