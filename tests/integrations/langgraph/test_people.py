"""Interrupts of graphs: the execution waits for people, and every answer comes to where it was asked for."""

import operator
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Send, interrupt
from typing_extensions import TypedDict

from agent_statestore import AgentState
from celery_agents import InvalidAnswer, Registry
from celery_agents.integrations.langgraph import durable_graph
from celery_agents.testing import LocalAgents, LocalExecution, When


class State(TypedDict, total=False):
    seen: Annotated[list[str], operator.add]


class Answer(TypedDict):
    yes: bool


def answer_all(execution: LocalExecution, answer: Callable[[Any], Any]) -> int:
    """Answers each question as it is asked; returns how many there were."""
    count = 0
    while execution.run().state is AgentState.WAITING_FOR_INPUT:
        wait = execution.summary().waits[0]
        execution.resume(answer(wait.prompt), key=wait.key)
        count += 1
    return count


def asking(calls: Counter[str], name: str, times: int) -> Callable[[State], dict[str, Any]]:
    def ask(state: State) -> dict[str, Any]:
        calls[name] += 1
        return {"seen": [interrupt(f"{name} {at}") for at in range(times)]}

    return ask


def asking_nothing(name: str) -> Callable[[State], dict[str, Any]]:
    return lambda _: {"seen": [name]}


def asker(calls: Counter[str], registry: Registry) -> None:
    """Questions beside each other, some of them several from one node, some in subgraphs that are sent to."""
    inner = StateGraph(State)
    inner.add_node("deep", asking(calls, "deep", 2))
    inner.add_node("close", lambda _: {"seen": ["closed"]})
    inner.add_edge(START, "deep").add_edge("deep", "close")
    outer = StateGraph(State)
    outer.add_node("one", asking(calls, "one", 1))
    outer.add_node("three", asking(calls, "three", 3))
    outer.add_node("sub", inner.compile())
    outer.add_node("end", lambda _: {"seen": ["end"]})
    outer.add_conditional_edges(START, lambda _: ["one", "three"], ["one", "three"])
    outer.add_conditional_edges("one", lambda _: [Send("sub", {}), Send("sub", {})], ["sub"])
    outer.add_edge("sub", "end")
    durable_graph(outer.compile(name="asker"), registry=registry)


def test_answers_come_to_where_they_were_asked_for(registry: Registry) -> None:
    calls: Counter[str] = Counter()
    asker(calls, registry)
    expected = sorted(
        ["<one 0>", *(f"<three {at}>" for at in range(3)), *("<deep 0>", "<deep 1>", "closed") * 2, "end"]
    )
    undisturbed = LocalAgents(registry=registry).start("asker", {})
    assert answer_all(undisturbed, lambda prompt: f"<{prompt}>") == 8
    assert sorted(undisturbed.wait()["seen"]) == expected
    steps = [step.name for step in undisturbed.steps()]
    assert {"one", "one#2", "three#4", "sub 0/deep", "sub 1/deep#3", "ask three#3", "ask sub 1/deep#2"} <= set(steps)
    for step in steps[5::9]:
        local = LocalAgents(registry=registry)
        local.crash_at(step, When.BEFORE_CHECKPOINT, required=False)
        execution = local.start("asker", {})
        while not execution.state.is_over:
            answer_all(execution, lambda prompt: f"<{prompt}>")
        assert sorted(execution.wait()["seen"]) == expected, step


def test_an_answer_that_does_not_fit_is_refused_where_it_is_given(registry: Registry, local: LocalAgents) -> None:
    def ask(state: State) -> dict[str, Any]:
        answer = interrupt({"question": "Sure?"}, response_schema=Answer)
        return {"seen": [str(answer["yes"])]}

    graph = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").compile(name="sure")
    durable_graph(graph, registry=registry)
    execution = local.start("sure", {}).run()
    (wait,) = execution.summary().waits
    assert wait.prompt == {"question": "Sure?"}
    with pytest.raises(InvalidAnswer, match="yes"):
        execution.resume({"yes": "perhaps"}, key=wait.key)
    execution.resume({"yes": True}, key=wait.key)
    assert execution.wait() == {"seen": ["True"]}


def test_silence_fails_the_execution_if_there_is_a_limit(registry: Registry, local: LocalAgents) -> None:
    graph = StateGraph(State).add_node("ask", asking(Counter(), "ask", 1)).add_edge(START, "ask")
    durable_graph(graph.compile(name="short"), registry=registry, answer_timeout=timedelta(days=1))
    execution = local.start("short", {}).run()
    local.advance(timedelta(days=2))
    error = execution.summary().error
    assert error is not None
    assert "AnswerTimeout" in error.type


def test_breakpoints_wait_for_somebody(registry: Registry, local: LocalAgents) -> None:
    graph = StateGraph(State)
    for name in ("a", "b", "c"):
        graph.add_node(name, asking_nothing(name))
    graph.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c")
    durable_graph(graph.compile(name="stepper", interrupt_before=["b"], interrupt_after=["b"]), registry=registry)
    execution = local.start("stepper", {})
    asked: list[Any] = []
    answer_all(execution, asked.append)
    assert execution.wait() == {"seen": ["a", "b", "c"]}
    assert asked == [{"next": ["b"]}, {"next": ["c"]}]


def test_a_graph_within_a_node_that_asks_is_refused_or_inline(registry: Registry, local: LocalAgents) -> None:
    inner = StateGraph(State).add_node("ask", asking(Counter(), "inner", 2)).add_edge(START, "ask").compile()

    async def call(state: State) -> dict[str, Any]:
        return {"seen": (await inner.ainvoke({}))["seen"]}

    graph = StateGraph(State).add_node("call", call).add_edge(START, "call").compile(name="caller")
    durable_graph(graph, registry=registry)
    error = local.start("caller", {}).run().summary().error
    assert error is not None
    assert "would begin anew with the answer" in error.message
    durable_graph(graph, name="inline", inline=["call"], registry=registry)
    execution = local.start("inline", {})
    assert answer_all(execution, lambda prompt: f"<{prompt}>") == 2
    assert execution.wait() == {"seen": ["<inner 0>", "<inner 1>"]}
