"""Every request to a model and every call of a tool is a step: made once, recorded, and replayed after a crash."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrailTripwireTriggered,
    RunConfig,
    RunContextWrapper,
    Runner,
    ToolOutputImage,
    ToolOutputText,
    function_tool,
    handoff,
    input_guardrail,
)
from pydantic import BaseModel

from agent_statestore import AgentState
from celery_agents import AsyncRun, MaxStepsExceeded, Registry
from celery_agents import agent as make_agent
from celery_agents.engine.journal.spending import spent_in
from celery_agents.engine.run import event_loop
from celery_agents.integrations.openai_agents import DurableRunner, durable
from celery_agents.integrations.step_options import StepOptions
from celery_agents.testing import Crash, LocalAgents, LocalExecution, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says
from tests.integrations.openai_agents.models import Models

Serve = Callable[..., ModelServer]
PATHS = {"responses": "/v1/responses", "chat": "/v1/chat/completions"}


def sums(conversation: Conversation) -> Says | Calls:
    """A model that has two sums made at once, and tells them."""
    if conversation.turn == 0:
        return Calls(Call("add", {"a": 1, "b": 2}), Call("add", {"a": 3, "b": 4}), text="Let me see.")
    return Says(f"They are {' and '.join(conversation.results)}.")


@function_tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def names(execution: LocalExecution) -> list[str]:
    """The names of its steps, without the ids of calls."""
    return [step.name.partition(" call_")[0] for step in execution.steps()]


@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_requests_and_calls_are_steps_and_a_crash_repeats_only_what_is_not_recorded(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, protocol: str, is_streamed: bool
) -> None:
    server, made, seen = serve(model=sums), [], []

    @function_tool
    async def add(a: int, b: int) -> int:
        made.append(a)
        if a == 3 and len(made) < 3:
            await asyncio.sleep(0.1)  # the other one is recorded by then
            raise Crash
        return a + b

    agent = Agent(name="calculator", model=getattr(models, protocol)(server), tools=[add])
    durable(agent, registry=registry, on_stream=(lambda event: seen.append(event.type)) if is_streamed else None)
    execution = local.start("calculator", "Sum it up.").run()
    assert execution.wait() == "They are 3 and 7."
    assert sorted(made) == [1, 3, 3]
    assert len(server.requests) == 2
    assert server.repeated() == []
    assert {request.path for request in server.requests} == {PATHS[protocol]}
    asked = [step for step in execution.steps() if step.action.kind == "model"]
    assert [(step.action.tool, step.action.title) for step in asked] == [
        ("model", "model, 1 item"),
        ("model", "model, 6 items"),
    ]
    called = [step for step in execution.steps() if step.action.kind == "tool"]
    assert sorted((step.action.tool, step.action.input["a"]) for step in called) == [("add", 1), ("add", 3)]
    assert (seen.count("raw_response_event") > 5) is is_streamed


@pytest.mark.parametrize("name", ["calculator", pytest.param("streamed", marks=pytest.mark.full)])
def test_each_moment_of_a_crash_ends_alike(serve: Serve, models: Models, registry: Registry, name: str) -> None:
    server = serve(model=sums)
    agent = Agent(name="calculator", model=models.responses(server), tools=[add])
    durable(agent, registry=registry)
    durable(agent, registry=registry, name="streamed", on_stream=lambda _: None)
    for when in When:
        for step in ("calculator model", "calculator model#2"):
            before, case = len(server.requests), (name, when, step)
            with LocalAgents(registry=registry) as local:
                local.crash_at(step, when)
                execution = local.start(name, f"Sum it up, {case}.").run()
                assert execution.wait() == "They are 3 and 7.", case
                # What was answered and not recorded is asked for again. Nothing else is.
                asked = len(server.requests) - before
                assert asked == 2 + (when is When.BEFORE_CHECKPOINT), case


class City(BaseModel):
    name: str
    people: int


def test_structured_output_comes_back_as_its_type(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server, city = serve(model=[Says('{"name": "Łódź", "people": 650000}')]), {"name": "Łódź", "people": 650_000}
    agent = Agent(name="city", model=models.responses(server), output_type=City)
    durable(agent, registry=registry)

    @make_agent(registry=registry)
    async def typed(run: AsyncRun, input: str) -> str:
        return type((await DurableRunner().run(agent, input)).final_output).__name__

    local.crash_at("city model", When.AFTER_CHECKPOINT)
    assert local.start("city", "Which one?").run().wait() == city
    assert local.start("typed", "Which one?").run().wait() == "City"


def test_handoffs_go_on_durably_in_the_other_agent(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    def boss(conversation: Conversation) -> Says | Calls:
        tool = "transfer_to_clerk" if "transfer_to_clerk" in conversation.tools else "to_the_expert"
        return Calls(Call(tool, {}))

    def clerk(conversation: Conversation) -> Says | Calls:
        return Calls(Call("transfer_to_boss", {})) if conversation.turn < 2 else Calls(Call("to_expert", {}))

    def expert(conversation: Conversation) -> Says | Calls:
        if conversation.turns[-1].role == "tool" and conversation.turns[-2].calls == ("add",):
            return Says(f"It is {conversation.results[0]}.")
        return Calls(Call("add", {"a": 1, "b": 2}))

    server, made = serve(boss=boss, clerk=clerk, expert=expert), []

    @function_tool
    def add(a: int, b: int) -> int:
        made.append(a)
        return a + b

    async def noted(context: RunContextWrapper[Any]) -> None:
        made.append("handed off")

    # By name, with a model of its own, with a handoff object; and in a circle.
    expert_agent = Agent(name="expert", model=models.chat(server, "expert"), tools=[add])
    clerk_agent = Agent(name="clerk", model="clerk")
    boss_agent = Agent(name="boss", model="boss", handoffs=[clerk_agent])
    clerk_agent.handoffs = [boss_agent, handoff(expert_agent, tool_name_override="to_expert", on_handoff=noted)]
    durable(boss_agent, registry=registry, run_config=models.config(server))
    local.crash_at("boss model#3", When.AFTER_CHECKPOINT)
    local.crash_at("boss model#6", When.BEFORE_CHECKPOINT)
    execution = local.start("boss", "Add.")
    while not execution.run().state.is_over:
        pass
    assert execution.wait() == "It is 3."
    asked = [request.conversation.model for request in server.requests]
    assert asked == ["boss", "clerk", "boss", "clerk", "expert", "expert", "expert"]
    assert len(server.repeated()) == 1
    assert made.count(1) == 1
    # What a handoff does by itself is code of the agent: it runs again on each replay.
    assert made.count("handed off") == 2
    assert (boss_agent.handoffs, expert_agent.tools) == ([clerk_agent], [add])


def bossing(conversation: Conversation) -> Says | Calls:
    if conversation.turn == 0:
        return Calls(Call("delegate", {"input": "one"}), Call("delegate", {"input": "two"}))
    return Says(" | ".join(conversation.results))


def adding(conversation: Conversation) -> Says | Calls:
    if conversation.turn == 0:
        return Calls(Call("add", {"a": 1 if conversation.prompt == "one" else 2, "b": 10}))
    return Says(f"{conversation.prompt}: {conversation.results[0]}")


@pytest.mark.parametrize("is_streamed", [False, pytest.param(True, marks=pytest.mark.full)])
def test_requests_of_agents_as_tools_are_steps_of_their_own(
    serve: Serve, models: Models, registry: Registry, is_streamed: bool
) -> None:
    server, made, seen = serve(boss=bossing, helper=adding), [], []

    @function_tool
    def add(a: int, b: int) -> int:
        made.append(a)
        return a + b

    helper = Agent(name="helper", model=models.responses(server, "helper"), tools=[add])
    tool = helper.as_tool("delegate", "Has it done.", on_stream=seen.append if is_streamed else None)
    boss = Agent(name="boss", model=models.responses(server, "boss"), tools=[tool])

    @make_agent(registry=registry, name="boss")
    async def counted(run: AsyncRun, input: str) -> list[Any]:
        result = await DurableRunner().run(boss, input)
        usage = result.context_wrapper.usage
        return [result.final_output, usage.requests, run.spent["tokens"] == usage.total_tokens]

    with LocalAgents(registry=registry) as local:
        execution = local.start("boss", "Go.").run()
        assert execution.wait() == ["one: 11 | two: 12", 6, True]
        helped = [step.name for step in execution.steps() if step.name.startswith("helper call_")]
    assert len(helped) == 4
    assert len({name.split("#")[0] for name in helped}) == 2  # each helper's steps are named by the call it serves
    for step in helped:
        before, done = len(server.requests), len(made)
        with LocalAgents(registry=registry) as local:
            local.crash_at(step, When.AFTER_CHECKPOINT)
            assert local.start("boss", "Go.").run().wait() == ["one: 11 | two: 12", 6, True], step
        # The request of the helper beside may have been in flight.
        assert 6 <= len(server.requests) - before <= 7, step
        assert 2 <= len(made) - done <= 3, step
    assert bool(seen) is is_streamed
    assert helper.tools == [add]


def test_an_agent_as_a_tool_can_be_a_group(serve: Serve, models: Models, registry: Registry) -> None:
    server = serve(boss=bossing, helper=adding)
    helper = Agent(name="helper", model=models.responses(server, "helper"), tools=[add])
    boss = Agent(
        name="boss", model=models.responses(server, "boss"), tools=[helper.as_tool("delegate", "Has it done.")]
    )
    durable(boss, registry=registry, runner=DurableRunner(tools={"delegate": StepOptions(group=True)}))
    with LocalAgents(registry=registry) as local:
        execution = local.start("boss", "Go.").run()
        assert execution.wait() == "one: 11 | two: 12"
        steps = execution.steps()
    groups = [step for step in steps if step.name.startswith("delegate") and not step.within]
    assert [step.action.kind for step in groups] == ["tool", "tool"]
    assert len([step for step in steps if step.within]) == 6
    for step in (groups[0].name, next(step.name for step in steps if step.name.endswith("model#2") and step.within)):
        before = len(server.requests)
        with LocalAgents(registry=registry) as local:
            local.crash_at(step, When.AFTER_CHECKPOINT)
            assert local.start("boss", "Go.").run().wait() == "one: 11 | two: 12", step
        assert 6 <= len(server.requests) - before <= 7, step


def test_a_run_inside_a_step_is_a_part_of_it_and_a_warning_says_so(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(boss=bossing, helper=adding)
    helper = Agent(name="helper", model=models.responses(server, "helper"), tools=[add])

    @function_tool
    async def delegate(input: str) -> str:
        return str((await Runner.run(helper, input)).final_output)

    boss = Agent(name="boss", model=models.responses(server, "boss"), tools=[delegate])
    durable(boss, registry=registry)
    durable(boss, name="inline", registry=registry, runner=DurableRunner(tools={"delegate": False}))
    execution = local.start("boss", "Go.").run()
    assert execution.wait() == "one: 11 | two: 12"
    assert [step.action.kind for step in execution.steps()] == ["model", "tool", "tool", "model"]
    inline = local.start("inline", "Go.").run()
    assert inline.wait() == "one: 11 | two: 12"
    assert spent_in(execution.context())["tokens"] == spent_in(inline.context())["tokens"]
    assert all(step.spent["tokens"] > 0 for step in execution.steps())
    (warning,) = [record.message for record in caplog.records if "agent helper runs inside" in record.message]
    assert "as_tool" in warning
    inline = local.start("inline", "Go.").run()
    assert inline.wait() == "one: 11 | two: 12"
    assert len(inline.steps()) == 2 + 2 * 3


def test_guardrails_run_again_and_their_agents_are_not_asked_again(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server = serve(model=[Says("done")], guard=lambda one: Says("bad" if "bomb" in one.prompt else "good"))
    guard, looked = Agent(name="guard", model=models.responses(server, "guard")), []

    @input_guardrail
    async def peaceful(context: RunContextWrapper[Any], agent: Agent[Any], given: Any) -> GuardrailFunctionOutput:
        looked.append(given)
        said = (await Runner.run(guard, given, context=context.context)).final_output
        return GuardrailFunctionOutput(output_info=said, tripwire_triggered=said == "bad")

    agent = Agent(name="guarded", model=models.responses(server), input_guardrails=[peaceful])
    durable(agent, registry=registry)

    @make_agent(registry=registry)
    async def after(run: AsyncRun, input: str) -> str:
        said: str = (await DurableRunner().run(agent, input)).final_output
        return await run.step("after", lambda: said)

    local.crash_at("after", When.BEFORE_CHECKPOINT)
    execution = local.start("after", "Hello.").run()
    assert execution.wait() == "done"
    assert looked == ["Hello.", "Hello."]
    assert sorted(names(execution)) == ["after", "guard model", "guarded model"]
    assert len(server.requests) == 2
    failed = local.start("guarded", "A bomb.").run()
    error = failed.summary().error
    assert error is not None
    assert error.type.endswith(InputGuardrailTripwireTriggered.__name__)


def test_results_of_all_kinds_are_what_the_model_sees_without_us(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    values: list[Any] = [
        "text",
        7,
        None,
        [1, "two"],
        (1, 2),
        {"a": 1.5},
        {1: 2},
        City(name="X", people=1),
        ToolOutputText(text="hello"),
        [ToolOutputText(text="see"), ToolOutputImage(image_url="data:image/png;base64,AAAA")],
        float("inf"),
    ]

    def script(conversation: Conversation) -> Says | Calls:
        if conversation.turn:
            return Says("ok")
        return Calls(*(Call("give", {"n": n}, f"c{n}") for n in range(len(values))))

    server = serve(model=script)

    @function_tool
    def give(n: int) -> Any:
        return values[n]

    agent = Agent(name="giver", model=models.responses(server), tools=[give])
    seen: list[Any] = []

    @make_agent(registry=registry)
    async def look(run: AsyncRun, input: str) -> str:
        result = await DurableRunner().run(agent, input)
        seen.append([item.raw_item for item in result.new_items if item.type == "tool_call_output_item"])
        return await run.step("after", str)

    plain = event_loop.start(Runner.run(agent, "Give.", run_config=RunConfig(tracing_disabled=True))).result(30)
    expected = [item.raw_item for item in plain.new_items if item.type == "tool_call_output_item"]
    local.crash_at("after", When.BEFORE_CHECKPOINT)
    local.start("look", "Give.").run().wait()
    assert seen == [expected, expected]


def test_max_steps_ends_the_execution_and_is_nothing_that_a_model_is_told(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server = serve(model=lambda conversation: Calls(Call("add", {"a": conversation.turn, "b": 1})))
    agent = Agent(name="endless", model=models.responses(server), tools=[add])
    durable(agent, registry=registry, max_steps=5, max_turns=100)
    execution = local.start("endless", "Go.").run()
    assert execution.state is AgentState.FAILED
    error = execution.summary().error
    assert error is not None
    assert error.type.endswith(MaxStepsExceeded.__name__)
    assert len(execution.steps()) == 5


def test_names_of_any_length_and_kind_are_legal(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server = serve(model=[Calls(Call("t" * 60, {})), Says("done")])
    tool = function_tool(lambda: "ok", name_override="t" * 60, description_override="x")
    agent = Agent(name="#agent " + "x" * 250, model=models.responses(server), tools=[tool])
    durable(agent, registry=registry, name="long")
    assert local.start("long", "Go.").run().wait() == "done"
