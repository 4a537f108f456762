"""Each operation of an agent of LangChain is a step: made once, recorded, and after a crash what it was."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import AgentMiddleware, ExtendedModelResponse, SummarizationMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from pydantic import BaseModel

from celery_agents import AsyncRun, Registry, Run
from celery_agents import agent as make_agent
from celery_agents.engine.run import event_loop
from celery_agents.integrations.langchain import DurabilityMiddleware, durable_graph
from celery_agents.testing import LocalAgents, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Reply, Says
from tests.integrations.langchain.models import anthropic, openai

Serve = Callable[..., ModelServer]


class Total(BaseModel):
    """The structured answer."""

    total: int


def adding(made: list[int]) -> BaseTool:
    @tool
    def add(a: int) -> int:
        """Adds one."""
        made.append(a)
        return a + 1

    return add


def script(conversation: Conversation) -> Reply:
    if conversation.turn == 0:
        return Calls(Call("add", {"a": 1}), Call("add", {"a": 2}), text="Let me see.")
    return Says(" ".join(conversation.results))


def adder(model: Any, made: list[int], registry: Registry) -> None:
    agent = create_agent(model, tools=[adding(made)], name="adder", middleware=[DurabilityMiddleware()])
    durable_graph(agent, registry=registry, output=lambda state: state["messages"][-1].text)


def test_crashes_at_each_moment_repeat_nothing_that_was_recorded(serve: Serve, registry: Registry) -> None:
    server, made = serve(model=script), []
    adder(openai(server), made, registry)
    undisturbed = LocalAgents(registry=registry).start("adder", "Add.").run()
    assert undisturbed.wait() == "2 3"
    steps = undisturbed.steps()
    assert [step.action.kind for step in steps] == ["model", "tool", "tool", "model"]
    assert [step.action.tool for step in steps] == ["model", "add", "add", "model"]
    assert sorted(step.action.input["a"] for step in steps if step.action.kind == "tool") == [1, 2]
    assert steps[0].action.title == "model, 1 message"
    for step in steps:
        for when in When:
            asked, done, cell = len(server.requests), len(made), f"{step.name} {when}"
            with LocalAgents(registry=registry) as local:
                local.crash_at(step.name, when)
                assert local.start("adder", "Add.").run().wait() == "2 3", cell
            is_lost = when is When.BEFORE_CHECKPOINT
            assert len(server.requests) - asked == 2 + (is_lost and step.action.kind == "model"), cell
            # Of two calls beside each other, the other one may be in flight.
            assert 0 <= len(made) - done - 2 <= 2 * (step.action.kind == "tool"), cell


def test_both_protocols_whole_and_streamed(serve: Serve) -> None:
    makers: dict[str, Callable[..., Any]] = {"openai": openai, "anthropic": anthropic}
    for protocol, make in makers.items():
        for streaming in (False, True):
            server, registry = serve(model=script), Registry()
            adder(make(server, streaming=streaming), [], registry)
            with LocalAgents(registry=registry) as local:
                local.crash_at("adder model#2", When.AFTER_CHECKPOINT)
                execution = local.start("adder", "Add.").run()
                assert execution.wait() == "2 3", (protocol, streaming)
            assert len(server.requests) == 2, (protocol, streaming)


class Note(BaseModel):
    """What a tool keeps beside what it tells the model."""

    text: str


def test_what_comes_back_is_what_it_was(serve: Serve, registry: Registry) -> None:
    def noting(conversation: Conversation) -> Reply:
        if conversation.turn == 0:
            return Calls(Call("note", {"text": "tea"}), Call("move", {"where": "out"}))
        return Calls(Call("Total", {"total": 2}))

    @tool(response_format="content_and_artifact")
    def note(text: str) -> tuple[str, Note]:
        """Notes."""
        return f"noted {text}", Note(text=text)

    @tool
    def move(where: str, runtime: ToolRuntime) -> Command[Any]:
        """Moves."""
        told = ToolMessage(f"moved {where}", tool_call_id=runtime.tool_call_id)
        return Command(update={"place": where, "messages": [told]})

    class State(AgentState[Any]):
        place: str

    seen: list[dict[str, Any]] = []

    def output(state: dict[str, Any]) -> Any:
        seen.append(state)
        return state

    agent = create_agent(
        openai(serve(model=noting)),
        tools=[note, move],
        name="noter",
        state_schema=State,
        response_format=ToolStrategy(Total),
        middleware=[DurabilityMiddleware()],
    )
    durable_graph(agent, registry=registry, output=output)
    whole = LocalAgents(registry=registry).start("noter", "Note.").run().wait()
    with LocalAgents(registry=registry) as local:
        # All is recorded by then, and comes from the record.
        local.crash_at("noter model#2", When.AFTER_CHECKPOINT)
        execution = local.start("noter", {"messages": [{"role": "user", "content": "Note."}]}).run()
        disturbed = execution.wait()
    live, replayed = seen
    assert [type(message) for message in live["messages"]] == [type(message) for message in replayed["messages"]]
    asked, first, noted, moved, last, told = replayed["messages"]
    assert isinstance(first, AIMessage)
    assert (first.tool_calls, first.usage_metadata) == (
        live["messages"][1].tool_calls,
        live["messages"][1].usage_metadata,
    )
    assert noted.artifact == Note(text="tea")
    assert (moved.content, replayed["place"]) == ("moved out", "out")
    assert replayed["structured_response"] == Total(total=2)
    assert disturbed["structured_response"] == {"total": 2}
    assert [message["type"] for message in disturbed["messages"]] == ["human", "ai", "tool", "tool", "ai", "tool"]
    assert (asked.content, last.tool_calls[0]["name"], told.name) == ("Note.", "Total", "Total")
    assert (whole["place"], whole["structured_response"]) == ("out", {"total": 2})
    # What one execution has returned is an input of the next.
    again = LocalAgents(registry=registry).start("noter", {"messages": disturbed["messages"][:1]}).run()
    assert again.wait()["structured_response"] == {"total": 2}


def test_an_agent_with_the_middleware_is_an_agent_as_before_outside_of_executions(serve: Serve) -> None:
    made: list[int] = []
    server = serve(model=script)
    agent = create_agent(openai(server), tools=[adding(made)], middleware=[DurabilityMiddleware()])
    asked: Any = {"messages": [{"role": "user", "content": "Add."}]}

    async def run() -> Any:
        return await agent.ainvoke(asked)

    assert event_loop.start(run()).result(30)["messages"][-1].content == "2 3"
    assert agent.invoke(asked)["messages"][-1].content == "2 3"
    assert sorted(made) == [1, 1, 2, 2]


def test_calls_that_are_not_awaited_are_refused(serve: Serve, registry: Registry, local: LocalAgents) -> None:
    agent = create_agent(openai(serve(model=script)), tools=[adding([])], middleware=[DurabilityMiddleware()])
    asked: Any = {"messages": [{"role": "user", "content": "Add."}]}

    @make_agent(registry=registry)
    def plain(run: Run, input: str) -> None:
        agent.invoke(asked)

    @make_agent(registry=registry)
    async def holding(run: AsyncRun, input: str) -> None:
        agent.invoke(asked)

    for name, said in {"plain": "Make that agent an `async def`", "holding": "await `ainvoke`"}.items():
        error = local.start(name, "Go.").run().summary().error
        assert error is not None, name
        assert said in error.message, name


def test_an_agent_may_be_awaited_in_an_agent_of_ours(serve: Serve, registry: Registry, local: LocalAgents) -> None:
    server, made = serve(model=script), []
    agent = create_agent(openai(server), tools=[adding(made)], name="adder", middleware=[DurabilityMiddleware()])

    @make_agent(registry=registry)
    async def twice(run: AsyncRun, input: str) -> list[str]:
        asked: Any = {"messages": [{"role": "user", "content": input}]}
        return [(await agent.ainvoke(asked))["messages"][-1].content for _ in range(2)]

    local.crash_at("adder model#4", When.BEFORE_CHECKPOINT)
    assert local.start("twice", "Go.").run().wait() == ["2 3", "2 3"]
    assert (len(server.requests), len(made)) == (5, 4)


def bossing(conversation: Conversation) -> Reply:
    if conversation.turn == 0:
        return Calls(Call("delegate", {"task": "10"}), Call("delegate", {"task": "20"}))
    return Says(" | ".join(conversation.results))


def helping(conversation: Conversation) -> Reply:
    if conversation.turn < 2:
        return Calls(Call("add", {"a": int(conversation.prompt) + conversation.turn}))
    return Says(f"{conversation.prompt}: {conversation.results[0]}")


def delegating(server: ModelServer, registry: Registry, middleware: DurabilityMiddleware) -> None:
    helper = create_agent(
        openai(server, "helper"), tools=[adding([])], name="helper", middleware=[DurabilityMiddleware()]
    )

    @tool
    async def delegate(task: str) -> str:
        """Has somebody else do it."""
        state = await helper.ainvoke({"messages": [HumanMessage(task)]})
        return str(state["messages"][-1].content)

    boss = create_agent(openai(server, "boss"), tools=[delegate], name="boss", middleware=[middleware])
    durable_graph(boss, registry=registry, output=lambda state: state["messages"][-1].content)


def test_calls_of_a_helper_in_an_inline_tool_are_steps_of_their_own(serve: Serve, registry: Registry) -> None:
    server = serve(boss=bossing, helper=helping)
    delegating(server, registry, DurabilityMiddleware(tools={"delegate": False}))
    undisturbed = LocalAgents(registry=registry).start("boss", "Go.").run()
    assert undisturbed.wait() == "10: 12 | 20: 22"
    names = {step.name for step in undisturbed.steps()}
    assert len(names) == 2 + 2 * (3 + 2)
    assert sum("/helper model" in name for name in names) == 6
    for step in undisturbed.steps()[2::3]:
        asked = len(server.requests)
        with LocalAgents(registry=registry) as local:
            local.crash_at(step.name, When.BEFORE_CHECKPOINT)
            assert local.start("boss", "Go.").run().wait() == "10: 12 | 20: 22", step.name
        assert len(server.requests) - asked <= 2 + 6 + 2, step.name


def test_a_helper_inside_a_step_is_a_part_of_it_and_a_warning_says_so(
    serve: Serve, registry: Registry, local: LocalAgents, caplog: pytest.LogCaptureFixture
) -> None:
    delegating(serve(boss=bossing, helper=helping), registry, DurabilityMiddleware())
    execution = local.start("boss", "Go.").run()
    assert execution.wait() == "10: 12 | 20: 22"
    assert [step.action.kind for step in execution.steps()] == ["model", "tool", "tool", "model"]
    (warning,) = [record.message for record in caplog.records if "agent helper runs inside" in record.message]
    assert "{'TOOL': False}" in warning


def test_helpers_beside_each_other_get_each_their_own_answers(serve: Serve, registry: Registry) -> None:
    server = serve(helper=helping)
    helper = create_agent(
        openai(server, "helper"), tools=[adding([])], name="helper", middleware=[DurabilityMiddleware()]
    )

    @make_agent(registry=registry)
    async def many(run: AsyncRun, input: int) -> list[str]:
        asked = (helper.ainvoke({"messages": [HumanMessage(str(10 * n))]}) for n in range(input))
        return [str(state["messages"][-1].content) for state in await asyncio.gather(*asked)]

    for step in ("helper model#3", "helper model#6", "helper model#9"):
        with LocalAgents(registry=registry) as local:
            local.crash_at(step, When.AFTER_CHECKPOINT)
            assert local.start("many", 4).run().wait() == [f"{10 * n}: {10 * n + 2}" for n in range(4)], step


def test_other_middleware_with_a_model_of_its_own_is_recorded_too(
    serve: Serve, registry: Registry, local: LocalAgents
) -> None:
    def talking(conversation: Conversation) -> Reply:
        return Calls(Call("add", {"a": conversation.turn})) if len(conversation.results) == 0 else Says("done")

    server = serve(model=talking, summary=lambda _: Says("a summary"))
    summing = SummarizationMiddleware(openai(server, "summary"), trigger=("messages", 3), keep=("messages", 1))
    agent = create_agent(
        openai(server), tools=[adding([])], name="talker", middleware=[summing, DurabilityMiddleware()]
    )
    durable_graph(agent, registry=registry, output=lambda state: [message.text for message in state["messages"]])
    local.crash_at("talker model#2", When.AFTER_CHECKPOINT)
    texts = local.start("talker", "Add.").run().wait()
    assert "a summary" in texts[0]
    assert [request.conversation.model for request in server.requests].count("summary") == 1


def test_an_agent_may_be_a_node_of_a_graph(serve: Serve, registry: Registry) -> None:
    server, made = serve(model=script), []
    agent = create_agent(openai(server), tools=[adding(made)], name="adder", middleware=[DurabilityMiddleware()])

    def shout(state: AgentState[Any]) -> dict[str, Any]:
        return {"messages": [AIMessage(state["messages"][-1].text + "!")]}

    graph = StateGraph(AgentState).add_node("adder", agent).add_node("shout", shout)
    graph.add_edge(START, "adder").add_edge("adder", "shout")
    durable_graph(graph.compile(name="loud"), registry=registry, output=lambda state: state["messages"][-1].text)
    undisturbed = LocalAgents(registry=registry).start("loud", "Add.").run()
    assert undisturbed.wait() == "2 3!"
    kinds = [(step.name.partition(" call_")[0], step.action.kind) for step in undisturbed.steps()]
    assert kinds == [
        ("adder/adder model", "model"),
        ("adder/add", "tool"),
        ("adder/add", "tool"),
        ("adder/adder model#2", "model"),
        ("shout", "step"),
    ]
    asked = len(server.requests)
    with LocalAgents(registry=registry) as local:
        local.crash_at("shout", When.BEFORE_CHECKPOINT)
        assert local.start("loud", "Add.").run().wait() == "2 3!"
    assert len(server.requests) - asked == 2


class Placed(AgentState[Any]):
    place: str


class Placing(AgentMiddleware[Placed, Any, Any]):
    """Changes the state with each call of the model."""

    state_schema = Placed

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        """Say where the model was asked."""
        return ExtendedModelResponse(await handler(request), Command(update={"place": "here"}))


def test_durability_stands_last_among_the_middleware(serve: Serve, registry: Registry) -> None:
    orders = {"last": [Placing(), DurabilityMiddleware()], "first": [DurabilityMiddleware(), Placing()]}
    for name, middleware in orders.items():
        agent = create_agent(openai(serve(model=[Says("hi")])), name=name, middleware=middleware)
        durable_graph(agent, registry=registry, output=lambda state: state.get("place"))
        with LocalAgents(registry=registry) as local:
            local.crash_at(f"{name} model", When.AFTER_CHECKPOINT)
            assert local.start(name, "Go.").run().wait() == {"last": "here", "first": None}[name]
