"""Graphs of LangGraph: each node is a step, whatever leads to it; after a crash what is recorded does not run again."""

import asyncio
import enum
import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeError
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, TimeoutPolicy
from pydantic import BaseModel

from agent_statestore import AgentState
from celery_agents import AsyncRun, InvalidInput, InvalidResult, RegistrationError, Registry, Retry, current_run
from celery_agents import agent as make_agent
from celery_agents.engine.run import event_loop
from celery_agents.integrations.langgraph import StepOptions, durable_graph, durable_nodes
from celery_agents.integrations.langgraph.values import decode, encode
from celery_agents.testing import Crash, LocalAgents, When
from tests.integrations.langgraph.savers import OtherSaver


class State(TypedDict, total=False):
    items: list[str]
    seen: Annotated[list[str], operator.add]


class Item(TypedDict):
    item: str


class Made:
    """The nodes of a graph, which count how often each was called."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def node(self, name: str, **update: Any) -> Callable[[Any], dict[str, Any]]:
        def call(state: Any) -> dict[str, Any]:
            self.calls[name] += 1
            return update or {"seen": [name]}

        return call

    def work(self, state: Item) -> dict[str, Any]:
        self.calls[f"work {state['item']}"] += 1
        return {"seen": [f"worked on {state['item']}"]}


def mapping(made: Made) -> Any:
    """Two branches beside each other, then a subgraph that sends out, twice."""

    def send(state: State) -> list[Send]:
        return [Send("work", {"item": item}) for item in state["items"]]

    inner = StateGraph(State)
    inner.add_node("plan", made.node("plan", items=["x", "y"]))
    inner.add_node("work", made.work)
    inner.add_node("sum", made.node("sum"))
    inner.add_edge(START, "plan")
    inner.add_conditional_edges("plan", send, ["work"])
    inner.add_edge("work", "sum")
    sub = inner.compile()

    async def go(state: State) -> Command[Literal["sub", "never"]]:
        made.calls["go"] += 1
        return Command(goto="sub", update={"seen": ["went"]})

    outer = StateGraph(State)
    for name in ("left", "right", "never"):
        outer.add_node(name, made.node(name))
    outer.add_node("go", go, defer=True)
    outer.add_node("sub", sub)
    outer.add_edge(START, "left")
    outer.add_edge(START, "right")
    outer.add_edge(["left", "right"], "go")
    outer.add_edge("sub", END)
    return outer.compile(name="mapper")


def test_a_crash_at_any_moment_repeats_no_recorded_node(registry: Registry) -> None:
    made = Made()
    durable_graph(mapping(made), registry=registry)
    undisturbed = LocalAgents(registry=registry).start("mapper", {"items": []}).run()
    seen = ["left", "right", "went", "left", "right", "went", "worked on x", "worked on y", "sum"]
    assert undisturbed.wait() == {"items": ["x", "y"], "seen": seen}
    names = [step.name for step in undisturbed.steps()]
    assert sorted(names) == ["go", "left", "right", "sub/plan", "sub/sum", "sub/work 0", "sub/work 1"]
    once = Counter(dict.fromkeys(("left", "right", "go", "plan", "work x", "work y", "sum"), 1))
    assert made.calls == once
    for name in names:
        for when in When:
            made.calls.clear()
            with LocalAgents(registry=registry) as local:
                local.crash_at(name, when)
                assert local.start("mapper", {"items": []}).run().wait()["seen"] == seen, (name, when)
            repeated = made.calls - once
            together = {"left": {"left", "right"}, "right": {"left", "right"}, "sub/work 0": {"work x", "work y"}}
            together["sub/work 1"] = together["sub/work 0"]
            may = together.get(name, {name.rpartition("/")[2]}) if when is not When.AFTER_CHECKPOINT else set()
            assert set(repeated) <= may | (together.get(name, set())), (name, when)
            assert sum(repeated.values()) <= 2, (name, when)


def test_a_command_for_the_parent_leaves_a_subgraph(registry: Registry) -> None:
    made = Made()

    def leave(state: State) -> Command[Any]:
        made.calls["leave"] += 1
        return Command(graph=Command.PARENT, goto="after", update={"seen": ["left it"]})

    inner = StateGraph(State).add_node("leave", leave).add_edge(START, "leave").compile()
    outer = StateGraph(State).add_node("sub", inner, destinations=("after",)).add_node("after", made.node("after"))
    durable_graph(outer.add_edge(START, "sub").compile(name="leaver"), registry=registry)
    for step in ("sub/leave", "after"):
        with LocalAgents(registry=registry) as local:
            local.crash_at(step, When.AFTER_CHECKPOINT)
            assert local.start("leaver", {}).run().wait() == {"seen": ["left it", "after"]}
    assert made.calls == Counter(leave=2, after=2)


class Color(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: int
    when: datetime


@dataclass
class Place:
    point: Point
    names: tuple[str, ...]


def test_any_data_comes_back_as_it_was() -> None:
    now = datetime.now(UTC)
    values: list[Any] = [
        None,
        {"a": [1, 2.5, "x", True]},
        {"__kind__": "mine", 3: "keys"},
        Place(Point(x=1, when=now), ("a", "b")),
        [Color.RED, {1, 2}, b"\x00\xff", now, timedelta(seconds=3)],
        Command(goto=[Send("n", Point(x=2, when=now))], update={"p": Place(Point(x=3, when=now), ())}),
        AIMessage("hi", id="1", tool_calls=[{"name": "t", "args": {"a": 1}, "id": "c", "type": "tool_call"}]),
        ToolMessage("ok", id="2", tool_call_id="c", artifact=Point(x=4, when=now), status="error"),
        float("inf"),
    ]
    for value in values:
        assert decode(encode(value)) == value, value
    assert decode(encode(HumanMessage("no id"))).id


def test_classes_that_cannot_be_found_again_are_refused() -> None:
    class Local(BaseModel):
        x: int

    with pytest.raises(InvalidResult, match="define it there"):
        encode(Local(x=1))
    with pytest.raises(InvalidResult, match="is not loaded here"):
        decode({"__kind__": "object", "class": "no.such:Thing", "fields": {}})
    with pytest.raises(InvalidResult, match="no class of data"):
        decode({"__kind__": "object", "class": "subprocess:Popen", "fields": {"args": ["true"]}})
    with pytest.raises(InvalidResult, match="no longer fits"):
        decode({"__kind__": "object", "class": f"{__name__}:Point", "fields": {"y": 1}})


def test_what_is_no_data_is_an_error_that_says_so(registry: Registry, local: LocalAgents) -> None:
    graph = StateGraph(State).add_node("open", lambda _: {"items": [object()]}).add_edge(START, "open")
    durable_graph(graph.compile(name="opener"), registry=registry)
    error = local.start("opener", {}).run().summary().error
    assert error is not None
    assert "no JSON carries it" in error.message


def test_messages_are_json_and_keep_their_ids(registry: Registry, local: LocalAgents) -> None:
    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("hello"), ToolMessage("told", tool_call_id="c")]}

    def forget(state: MessagesState) -> dict[str, Any]:
        return {"messages": [RemoveMessage(id=str(message.id)) for message in state["messages"][:2]]}

    graph = (
        StateGraph(MessagesState).add_node("answer", answer).add_node("forget", forget).add_node("end", lambda _: {})
    )
    graph.add_edge(START, "answer").add_edge("answer", "forget").add_edge("forget", "end")
    chat = durable_graph(graph.compile(), name="chat", registry=registry)
    local.crash_at("end", When.BEFORE_CHECKPOINT)
    (left,) = local.start(chat, "Hi.").run().wait()["messages"]
    assert (left["type"], left["content"], left["tool_call_id"]) == ("tool", "told", "c")
    said = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}]
    assert len(LocalAgents(registry=registry).start(chat, {"messages": said}).run().wait()["messages"]) == 2
    for wrong in ({"message": "Hi."}, {"messages": [{"content": "no role"}]}, 7):
        with pytest.raises(InvalidInput):
            local.start(chat, wrong)


def test_errors_of_nodes_are_recorded_and_handled_by_the_graph(registry: Registry, local: LocalAgents) -> None:
    made = Made()

    def fail(state: State) -> dict[str, Any]:
        made.calls["fail"] += 1
        raise LookupError("nothing there")

    def mend(state: State, error: NodeError) -> Command[Any]:
        return Command(goto="end", update={"seen": [f"{error.node}: {type(error.error).__name__}"]})

    graph = StateGraph(State).add_node("fail", fail, error_handler=mend).add_node("end", made.node("end"))
    graph.add_edge(START, "fail").add_edge("fail", "end")
    durable_graph(graph.compile(name="mended"), registry=registry)
    local.crash_at("end", When.BEFORE_CHECKPOINT)
    assert local.start("mended", {}).run().wait()["seen"][0] == "fail: LookupError"
    assert made.calls["fail"] == 1

    plain = StateGraph(State).add_node("fail", fail).add_edge(START, "fail")
    durable_graph(plain.compile(name="failing"), registry=registry)
    error = local.start("failing", {}).run().summary().error
    assert error is not None
    assert (error.type, error.message) == ("builtins:LookupError", "nothing there")


def test_a_retry_policy_and_a_timeout_are_the_step_s(registry: Registry, local: LocalAgents) -> None:
    made = Made()

    async def flaky(state: State) -> dict[str, Any]:
        made.calls["flaky"] += 1
        if made.calls["flaky"] < 3:
            raise ConnectionError("away")
        await asyncio.sleep(30)
        return {}

    policy = RetryPolicy(max_attempts=3, initial_interval=3600, max_interval=3600)
    graph = StateGraph(State).add_node("flaky", flaky, retry_policy=policy, timeout=0.05).add_edge(START, "flaky")
    durable_graph(graph.compile(name="patient"), registry=registry)
    execution = local.start("patient", {}).run()
    assert execution.state is AgentState.WAITING
    local.advance(timedelta(hours=3))
    error = execution.run().summary().error
    assert error is not None
    assert "StepTimeout" in error.type
    assert made.calls["flaky"] == 3

    options = {"flaky": StepOptions(retry=Retry(retries=0))}
    made.calls.clear()
    durable_graph(graph.compile(), name="impatient", nodes=options, registry=registry)
    assert local.start("impatient", {}).run().state is AgentState.FAILED
    assert made.calls["flaky"] == 1


def test_several_policies_are_langgraph_s_and_a_cache_is_left_out(registry: Registry, local: LocalAgents) -> None:
    made = Made()

    def flaky(state: State) -> dict[str, Any]:
        made.calls["flaky"] += 1
        if made.calls["flaky"] < 3:
            raise [ConnectionError, KeyError][made.calls["flaky"] - 1]("away")
        return {"seen": ["flaky"]}

    policies = [
        RetryPolicy(initial_interval=0.001, jitter=False, retry_on=kind) for kind in (ConnectionError, KeyError)
    ]
    graph = StateGraph(State).add_node("flaky", flaky, retry_policy=policies, cache_policy=CachePolicy())
    durable_graph(graph.add_edge(START, "flaky").compile(name="cached", cache=InMemoryCache()), registry=registry)
    for _ in range(2):
        execution = local.start("cached", {}).run()
        assert execution.wait() == {"seen": ["flaky"]}
    assert [step.name for step in execution.steps()] == ["flaky"]
    assert made.calls["flaky"] == 4


def test_a_node_may_say_what_a_crash_in_it_means(registry: Registry, local: LocalAgents) -> None:
    made = Made()

    def pay(state: State) -> dict[str, Any]:
        made.calls["pay"] += 1
        raise Crash

    graph = StateGraph(State).add_node("pay", pay).add_edge(START, "pay").compile(name="payer")
    durable_graph(graph, nodes={"pay": StepOptions(on_crash="fail")}, registry=registry)
    error = local.start("payer", {}).run().run().summary().error
    assert error is not None
    assert "StepInterrupted" in error.type
    assert made.calls["pay"] == 1


def test_an_inline_node_takes_steps_itself(registry: Registry, local: LocalAgents) -> None:
    made = Made()

    async def both(state: State) -> dict[str, Any]:
        run = current_run()
        assert isinstance(run, AsyncRun)
        await run.step("first", made.node("first"), state)
        await run.sleep(3600)
        await run.step("second", made.node("second"), state)
        return {"seen": ["both"]}

    graph = StateGraph(State).add_node("both", both).add_edge(START, "both").compile(name="inliner")
    durable_graph(graph, inline=["both"], registry=registry)
    execution = local.start("inliner", {}).run()
    assert execution.state is AgentState.WAITING
    local.advance(timedelta(hours=2))
    assert execution.wait() == {"seen": ["both"]}
    assert made.calls == Counter(first=1, second=1)


@dataclass
class Context:
    name: str


def test_a_context_is_made_for_each_attempt_and_never_stored(registry: Registry, local: LocalAgents) -> None:
    made: list[str] = []

    async def make(run: Any) -> Context:
        made.append(run.execution_id)
        return Context(run.metadata["shop"])

    def sell(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
        return {"seen": [runtime.context.name]}

    graph = (
        StateGraph(State, context_schema=Context).add_node("sell", sell).add_edge(START, "sell").compile(name="shop")
    )
    with pytest.raises(RegistrationError, match="context=factory"):
        durable_graph(graph, registry=registry)
    durable_graph(graph, context=make, registry=registry)
    local.crash_at("sell", When.BEFORE_CHECKPOINT)
    execution = local.start("shop", {}, metadata={"shop": "Ada's"}).run()
    assert execution.wait() == {"seen": ["Ada's"]}
    assert made == [execution.id] * 2


def test_a_graph_that_cannot_be_made_durable_is_refused_with_the_reason(registry: Registry) -> None:
    def graph() -> Any:
        return StateGraph(State).add_node("a", lambda _: {}).add_edge(START, "a")

    async def idle(state: State) -> dict[str, Any]:
        return {}

    @entrypoint()
    def flow(value: int) -> int:
        return value

    timed = StateGraph(State).add_node("a", idle, timeout=TimeoutPolicy(idle_timeout=1)).add_edge(START, "a")
    within = StateGraph(State).add_node("sub", graph().compile(checkpointer=OtherSaver())).add_edge(START, "sub")
    cases: dict[str, Callable[[], object]] = {
        "needs a name": lambda: durable_graph(graph().compile(), registry=registry),
        "compile it without one": lambda: durable_graph(graph().compile(checkpointer=OtherSaver(), name="a")),
        "OtherSaver": lambda: durable_graph(within.compile(name="b")),
        "no nodes": lambda: durable_graph(graph().compile(name="c"), inline=["b"]),
        "interrupt()": lambda: durable_graph(graph().compile(name="d"), node=StepOptions(requires_approval=True)),
        "entrypoint": lambda: durable_graph(flow, name="e"),  # type: ignore[arg-type]
        "idle_timeout": lambda: durable_graph(timed.compile(name="f")),
    }
    for said, register in cases.items():
        with pytest.raises(RegistrationError, match=said.replace("(", r"\(").replace(")", r"\)")):
            register()
    durable_graph(graph().compile(checkpointer=InMemorySaver(), name="g"), registry=registry)
    assert LocalAgents(registry=registry).start("g", {"items": ["x"]}).run().wait() == {"items": ["x"], "seen": []}


def test_a_durable_copy_may_be_awaited_in_an_agent_of_ours_and_elsewhere(
    registry: Registry, local: LocalAgents
) -> None:
    made = Made()
    graph = durable_nodes(mapping(made))

    @make_agent(registry=registry)
    async def twice(run: AsyncRun, input: str) -> int:
        return sum([len((await graph.ainvoke({"items": []}))["seen"]) for _ in range(2)])

    local.crash_at("left#2", When.AFTER_CHECKPOINT)
    assert local.start("twice", "Go.").run().wait() == 18
    assert made.calls["left"] == 2
    made.calls.clear()
    assert len(event_loop.start(graph.ainvoke({"items": []})).result(30)["seen"]) == 9
    assert made.calls["left"] == 1
