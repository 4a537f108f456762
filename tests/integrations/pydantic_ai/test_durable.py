"""`durable`: what an agent needs, what goes into the store, and what agents that run others make of them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, RunContext, ToolOutput
from pydantic_ai.exceptions import UserError

from agent_statestore import AgentState
from celery_agents import AsyncRun, InvalidInput, RegistrationError, Registry, Run, spend
from celery_agents import agent as make_agent
from celery_agents.engine.run import event_loop
from celery_agents.integrations.pydantic_ai import CeleryDurability, StepOptions, durable
from celery_agents.integrations.pydantic_ai.calls import as_recorded
from celery_agents.testing import LocalAgents, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Reply, Says
from tests.integrations.pydantic_ai.models import Models

Serve = Callable[..., ModelServer]


@dataclass
class Shop:
    """Dependencies, with something that no JSON carries."""

    name: str
    connection: Any


def selling(conversation: Conversation) -> Reply:
    return Calls(Call("sell", {})) if conversation.turn == 0 else Says(conversation.results[0])


def seller(models: Models, server: ModelServer, **options: Any) -> Agent[Shop, str]:
    agent = Agent(models.openai(server), name="seller", deps_type=Shop, capabilities=[CeleryDurability()], **options)

    @agent.tool
    def sell(context: RunContext[Shop]) -> str:
        return f"sold by {context.deps.name}"

    return agent


def test_deps_are_made_for_each_attempt_and_never_stored(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    made: list[str] = []

    def plain() -> Shop:
        made.append("plain")
        return Shop("plain", object())

    async def with_run(run: AsyncRun) -> Shop:
        made.append(run.execution_id)
        return Shop(run.metadata["shop"], object())

    durable(seller(models, serve(model=selling)), deps=plain, registry=registry, name="plain")
    durable(seller(models, serve(model=selling)), deps=with_run, registry=registry, name="with-run")
    local.crash_at("seller model#2", When.BEFORE_CHECKPOINT)
    assert local.start("plain", "Sell.").run().wait() == "sold by plain"
    assert made == ["plain", "plain"]
    execution = local.start("with-run", "Sell.", metadata={"shop": "Ada's"})
    assert execution.run().wait() == "sold by Ada's"
    assert made[2:] == [execution.id]
    for step in execution.steps():
        assert "object at" not in str(step)


def test_what_is_missing_is_said_when_the_agent_is_registered(serve: Serve, models: Models, registry: Registry) -> None:
    server = serve(model=selling)
    cases: dict[str, Callable[[], object]] = {
        "a name": lambda: durable(Agent(models.openai(server)), registry=registry),
        "CeleryDurability": lambda: durable(Agent(models.openai(server), name="bare"), registry=registry),
        "deps of Shop": lambda: durable(seller(models, server), registry=registry),
        "without arguments, or with the run": lambda: durable(seller(models, server), deps=Shop, registry=registry),
    }
    for missing, register in cases.items():
        with pytest.raises(RegistrationError, match=missing):
            register()
    with pytest.raises(UserError, match="name"):
        Agent(models.openai(server), capabilities=[CeleryDurability()])


class Order(BaseModel):
    number: int
    wish: str


def as_prompt(order: Order) -> str:
    return f"Order {order.number}: {order.wish}"


def test_the_input_may_be_of_a_type(serve: Serve, models: Models, registry: Registry, local: LocalAgents) -> None:
    server = serve(model=lambda conversation: Says(conversation.prompt))
    agent = Agent(models.openai(server), name="clerk", capabilities=[CeleryDurability()])
    clerk = durable(agent, prompt=as_prompt, registry=registry)
    assert local.start(clerk, Order(number=7, wish="soon")).run().wait() == "Order 7: soon"
    assert clerk.input_schema["required"] == ["number", "wish"]
    with pytest.raises(InvalidInput, match="number"):
        local.start(clerk, {"wish": "soon"})
    with pytest.raises(InvalidInput):
        local.start(durable(agent, name="plain", registry=registry), 7)


def test_outside_of_executions_the_agent_is_as_it_was(serve: Serve, models: Models) -> None:
    server = serve(model=selling)
    agent = seller(models, server)

    async def run() -> str:
        return (await agent.run("Sell.", deps=Shop("Bob's", None))).output

    assert event_loop.start(run()).result(30) == "sold by Bob's"
    assert len(server.requests) == 2


def bossing(conversation: Conversation) -> Reply:
    return Calls(Call("delegate", {"task": "add"})) if conversation.turn == 0 else Says(conversation.results[0])


def adding(conversation: Conversation) -> Reply:
    return Calls(Call("add", {"a": 1})) if conversation.turn == 0 else Says(f"sum {conversation.results[0]}")


def delegating(models: Models, server: ModelServer, registry: Registry, **metadata: Any) -> None:
    helper = Agent(models.openai(server, "helper"), name="helper", capabilities=[CeleryDurability()])
    helper.tool_plain(name="add")(lambda a: a + 1)
    boss = Agent(models.openai(server, "boss"), name="boss", capabilities=[CeleryDurability()])

    @boss.tool(metadata=metadata)
    async def delegate(context: RunContext[None], task: str) -> str:
        return (await helper.run(task, usage=context.usage)).output

    @make_agent(registry=registry, name="boss")
    async def counted(run: AsyncRun, input: str) -> list[Any]:
        result = await boss.run(input)
        return [result.output, result.usage.requests, run.spent["tokens"] == result.usage.total_tokens]


def test_requests_of_a_sub_agent_in_an_inline_tool_are_steps_of_their_own(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server = serve(boss=bossing, helper=adding)
    delegating(models, server, registry, celery=False)
    local.crash_at("helper model#2", When.BEFORE_CHECKPOINT)
    execution = local.start("boss", "Go.").run()
    assert execution.wait() == ["sum 2", 4, True]
    assert [request.conversation.model for request in server.requests] == ["boss", "helper", "helper", "helper", "boss"]
    names = [step.name.partition(" call_")[0] for step in execution.steps()]
    assert names == ["boss model", "helper model", "add", "helper model#2", "boss model#2"]


def bossing_three(conversation: Conversation) -> Reply:
    if conversation.turn == 0:
        return Calls(*(Call("delegate", {"task": str(number)}, f"d{number}") for number in range(3)))
    return Says(", ".join(conversation.results))


def counting_on(conversation: Conversation) -> Reply:
    if conversation.turn == 0:
        return Calls(Call("add", {"a": int(conversation.prompt) * 10}, "a"))
    return Says(f"{conversation.prompt}: {conversation.results[0]}")


def test_requests_of_sub_agents_in_groups_are_steps_in_the_steps_of_their_tools(
    serve: Serve, models: Models, registry: Registry
) -> None:
    server = serve(boss=bossing_three, helper=counting_on)
    delegating(models, server, registry, celery={"group": True})
    expected = ["0: 1, 1: 11, 2: 21", 8, True]
    crashes = [
        (key, when)
        for key in ("delegate d1#/helper model", "delegate d1#/add a", "delegate d1#/helper model#2", "delegate d1")
        for when in (When.BEFORE_CHECKPOINT, When.AFTER_CHECKPOINT)
    ]
    for key, when in [*crashes, ("boss model#2", When.BEFORE_CHECKPOINT)]:
        before = len(server.requests)
        with LocalAgents(registry=registry) as local:
            local.crash_at(key, when)
            execution = local.start("boss", "Go.").run()
            assert execution.wait() == expected, (key, when)
            steps = {step.name: step for step in execution.steps()}
        # Those of the helpers beside may have been in flight, too.
        assert 8 <= len(server.requests) - before <= 8 + 3, (key, when)
        inner = [f"delegate d{n}#/{name}" for n in range(3) for name in ("helper model", "add a", "helper model#2")]
        assert sorted(steps) == sorted(
            [*inner, "delegate d0", "delegate d1", "delegate d2", "boss model", "boss model#2"]
        )
        assert steps["delegate d1"].action.input == {"task": "1"}
        assert steps["delegate d1#/add a"].within == ("delegate d1",)
        assert {step.action.kind for step in steps.values() if step.spent} == {"model"}


@pytest.mark.parametrize("celery", [{}, {"group": True}], ids=["step", "group"])
def test_the_usage_that_a_tool_counts_is_there_when_its_step_is_replayed(
    serve: Serve, models: Models, registry: Registry, celery: dict[str, Any]
) -> None:
    server = serve(boss=bossing_three, helper=counting_on)
    delegating(models, server, registry, celery=celery)
    for key in ("delegate d0", "delegate d2", "boss model#2"):
        with LocalAgents(registry=registry) as local:
            local.crash_at(key, When.AFTER_CHECKPOINT)
            execution = local.start("boss", "Go.").run()
            assert execution.wait() == ["0: 1, 1: 11, 2: 21", 8, True], key
            spent = {step.name: step.spent for step in execution.steps() if step.spent}
        assert len(spent) == (5 if not celery else 8), spent


def test_groups_have_no_retries_and_are_an_option_of_one_tool(models: Models) -> None:
    with pytest.raises(RegistrationError, match="group is an option of one tool"):
        CeleryDurability(tool=StepOptions(group=True))
    with pytest.raises(RegistrationError, match="has no retry, timeout or on_crash"):
        StepOptions(group=True, on_crash="ask")


def test_what_was_recorded_without_its_usage_is_counted_as_it_was_then(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, monkeypatch: pytest.MonkeyPatch
) -> None:
    delegating(models, serve(boss=bossing, helper=adding), registry, celery=False)
    crash = local.crash_at("helper model#2", When.BEFORE_CHECKPOINT)

    def spend_after_the_crash(**used: float) -> None:
        if crash.happened:
            spend(**used)

    monkeypatch.setattr("celery_agents.integrations.steps.spend", spend_after_the_crash)
    execution = local.start("boss", "Go.").run()
    assert execution.wait() == ["sum 2", 4, True]
    assert [bool(step.spent) for step in execution.steps()] == [False, False, False, True, True]


def test_a_sub_agent_inside_a_step_is_a_part_of_it_and_a_warning_says_so(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(boss=bossing, helper=adding)
    delegating(models, server, registry)
    execution = local.start("boss", "Go.").run()
    assert execution.wait() == ["sum 2", 4, True]
    assert [step.action.kind for step in execution.steps()] == ["model", "tool", "model"]
    (warning,) = [record.message for record in caplog.records if "agent helper runs inside" in record.message]
    assert '{"celery": False}' in warning


def test_sub_agents_beside_each_other_get_each_their_own_answers(
    serve: Serve, models: Models, registry: Registry
) -> None:
    def counting(conversation: Conversation) -> Reply:
        if conversation.turn < 2:
            return Calls(Call("add", {"a": int(conversation.prompt) + conversation.turn}))
        return Says(f"{conversation.prompt}: {conversation.results[0]}")

    server = serve(helper=counting)
    helper = Agent(models.openai(server, "helper"), name="helper", capabilities=[CeleryDurability()])
    helper.tool_plain(name="add")(lambda a: a + 1)

    @make_agent(registry=registry)
    async def many(run: AsyncRun, input: int) -> list[str]:
        return [one.output for one in await asyncio.gather(*(helper.run(str(10 * n)) for n in range(input)))]

    for step in ("helper model#3", "helper model#6", "helper model#9"):
        with LocalAgents(registry=registry) as local:
            local.crash_at(step, When.AFTER_CHECKPOINT)
            execution = local.start("many", 4).run()
            assert execution.wait() == [f"{10 * n}: {10 * n + 2}" for n in range(4)], step
    requests = 3 * 4 * 3
    assert requests <= len(server.requests) <= requests + 3 * 3  # what was in flight beside the crash


def test_a_plain_agent_is_told_to_be_async(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    agent = seller(models, serve(model=selling))

    @make_agent(registry=registry)
    def plain(run: Run, input: str) -> str:
        return agent.run_sync(input, deps=Shop("x", None)).output

    execution = local.start("plain", "Go.").run()
    assert execution.state is AgentState.FAILED
    error = execution.summary().error
    assert error is not None
    assert "async def" in error.message


def test_the_ids_of_runs_stay_the_same(serve: Serve, models: Models, registry: Registry, local: LocalAgents) -> None:
    server, ids = serve(model=selling), []
    agent = seller(models, server)

    @make_agent(registry=registry)
    async def twice(run: AsyncRun, input: str) -> int:
        for _ in range(2):
            result = await agent.run(input, deps=Shop("x", None))
            ids.append((result.run_id, result.conversation_id))
        return await run.step("after", int)

    local.crash_at("after", When.BEFORE_CHECKPOINT)
    local.start("twice", "Go.").run().wait()
    assert ids[:2] == ids[2:]
    assert len(set(ids)) == 2


class City(BaseModel):
    name: str


@pytest.mark.parametrize(
    ("output_type", "given", "stored"),
    [
        (list[City], {"response": [{"name": "Łódź"}]}, [{"name": "Łódź"}]),
        (ToolOutput(City, name="city"), {"name": "Łódź"}, {"name": "Łódź"}),
        ([City, Shop], {"name": "Łódź"}, {"name": "Łódź"}),
        (dict[str, int], {"response": {"a": 1}}, {"a": 1}),
    ],
    ids=str,
)
def test_outputs_of_any_type_are_stored_as_json(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, output_type: Any, given: Any, stored: Any
) -> None:
    server = serve(model=lambda conversation: Calls(Call(next(iter(conversation.tools)), given)))
    agent = Agent(models.openai(server), name="any", output_type=output_type, capabilities=[CeleryDurability()])
    durable(agent, registry=registry)
    assert local.start("any", "Go.").run().wait() == stored


def test_arguments_are_recorded_alike_in_each_process() -> None:
    class Wish(BaseModel):
        tags: set[str]

    words = [f"word {number}" for number in range(50)]
    recorded = as_recorded({"tags": set(words), "wish": Wish(tags=set(words)), "raw": b"\xff", "far": float("inf")})
    assert recorded == {"tags": sorted(words), "wish": {"tags": sorted(words)}, "raw": "_w==", "far": "inf"}


def test_a_run_goes_on_with_the_conversation_of_its_session(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    """Also where a plain agent has said something, and after a crash."""

    def remembering(conversation: Conversation) -> Reply:
        return Says(f"{conversation.prompt} {len(conversation.turns)}")

    server = serve(model=remembering)
    agent = Agent(models.openai(server), name="chat", capabilities=[CeleryDurability()])
    chat = durable(agent, session=True, registry=registry)

    @make_agent(registry=registry)
    def noting(run: Run, text: str) -> None:
        run.session.say("user", text)

    assert local.start(chat, "One.", session_id="s").run().wait() == "One. 1"
    local.start(noting, "By the way.", session_id="s").run().wait()
    local.crash_at("chat model", When.AFTER_CHECKPOINT)
    assert local.start(chat, "Two.", session_id="s").run().wait() == "Two. 4"
    assert local.start(chat, "Alone.", session_id="t").run().wait() == "Alone. 1"
    assert local.start(chat, "No session.").run().wait() == "No session. 1"
    said = list(local.store.session("s").messages())
    assert [message.role for message in said] == ["user", "assistant", "user", "user", "assistant"]
    assert len(server.requests) == 4
