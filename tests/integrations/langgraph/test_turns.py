"""Threads of `durable_graph`: an execution goes on from where the one before ended, and is stored once."""

import operator
from collections import Counter
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.channels import DeltaChannel
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from agent_statestore import MemoryStore
from agent_statestore.clock import ManualClock
from agent_statestore.documents.errors import NamespaceHeld
from celery_agents import RegistrationError, Registry
from celery_agents.integrations.langgraph import StoreSaver, durable_graph, durable_nodes
from celery_agents.lifecycle.erase import THREADS
from celery_agents.testing import Crash, LocalAgents, When

SESSION: Any = {"configurable": {"thread_id": "s-1"}}


class Talk:
    """A chat whose answers count what it has heard, and its calls."""

    def __init__(self, saver: StoreSaver | None) -> None:
        self.calls: Counter[str] = Counter()
        graph = StateGraph(MessagesState).add_node("hear", self.hear).add_node("say", self.say)
        self.graph: Any = graph.add_edge(START, "hear").add_edge("hear", "say").compile(checkpointer=saver, name="talk")

    def hear(self, state: MessagesState) -> dict[str, Any]:
        self.calls["hear"] += 1
        if state["messages"][-1].content == "fail":
            raise ValueError("as asked")
        if state["messages"][-1].content == "ask":
            return {"messages": [AIMessage(interrupt("what?"))]}
        return {}

    def say(self, state: MessagesState) -> dict[str, Any]:
        self.calls["say"] += 1
        return {"messages": [AIMessage(f"heard {len(state['messages'])}")]}


def output(state: Any) -> list[str]:
    return [message.content for message in state["messages"]]


def contents(saver: StoreSaver, graph: Any, config: Any = SESSION) -> list[str]:
    return output(graph.get_state(config).values or {"messages": []})


def test_a_second_execution_remembers_the_first(registry: Registry, local: LocalAgents) -> None:
    saver = StoreSaver(local.store)
    talk = Talk(saver)
    chat = durable_graph(talk.graph, output=output, registry=registry)
    assert local.start(chat, "a", session_id="s-1").run().wait() == ["a", "heard 1"]
    assert local.start(chat, "b", session_id="s-1").run().wait() == ["a", "heard 1", "b", "heard 3"]
    assert local.start(chat, "c", session_id="s-2").run().wait() == ["c", "heard 1"]
    alone = local.start(chat, "d").run()
    assert alone.wait() == ["d", "heard 1"]
    assert contents(saver, talk.graph) == ["a", "heard 1", "b", "heard 3"]
    assert contents(saver, talk.graph, {"configurable": {"thread_id": alone.id}}) == ["d", "heard 1"]
    states = list(talk.graph.get_state_history(SESSION))
    assert [len(state.values["messages"]) for state in states] == [4, 2]
    assert [state.next for state in states] == [(), ()]
    failed = local.start(chat, "fail", session_id="s-1").run()
    assert failed.summary().error is not None
    assert contents(saver, talk.graph) == ["a", "heard 1", "b", "heard 3"]
    saver.delete_for_runs([states[0].metadata["run_id"]])
    assert contents(saver, talk.graph) == ["a", "heard 1"]
    # What comes from outside goes on from there, and what comes in executions then goes on from that.
    talk.graph.invoke({"messages": ["by hand"]}, SESSION)
    assert local.start(chat, "e", session_id="s-1").run().wait()[2:] == ["by hand", "heard 3", "e", "heard 5"]


def test_a_turn_is_stored_once_whenever_it_crashes(registry: Registry) -> None:
    undisturbed = LocalAgents(registry=registry)
    chat = durable_graph(Talk(StoreSaver(undisturbed.store)).graph, output=output, registry=registry)
    first = undisturbed.start(chat, "a", session_id="s-1").run()
    names = [step.name for step in first.steps()]
    assert names == ["thread", "hear", "say"]
    for name in names:
        for when in When:
            again = Registry()
            with LocalAgents(registry=again) as local:
                saver = StoreSaver(local.store)
                talk = Talk(saver)
                agent = durable_graph(talk.graph, output=output, registry=again)
                local.start(agent, "a", session_id="s-1").run()
                local.crash_at(name, when, execution=(second := local.start(agent, "b", session_id="s-1")))
                assert second.run().wait() == ["a", "heard 1", "b", "heard 3"], (name, when)
                assert len(list(saver.list(SESSION))) == 2, (name, when)
                assert contents(saver, talk.graph) == ["a", "heard 1", "b", "heard 3"], (name, when)


def test_a_turn_that_was_stored_before_a_crash_is_not_stored_again(registry: Registry, local: LocalAgents) -> None:
    """Between the thread's write and the execution's end."""
    saver = StoreSaver(local.store)
    talk = Talk(saver)
    dying = [True]

    def last(state: Any) -> list[str]:
        if dying:
            dying.clear()
            raise Crash
        return output(state)

    chat = durable_graph(talk.graph, output=last, registry=registry)
    execution = local.start(chat, "a", session_id="s-1").run().run()
    assert not dying
    assert execution.summary().attempt == 2
    assert execution.wait() == ["a", "heard 1"]
    assert len(list(saver.list(SESSION))) == 1
    assert talk.calls == {"hear": 1, "say": 1}


def test_a_second_execution_is_refused_before_a_node_is_called(registry: Registry, local: LocalAgents) -> None:
    saver = StoreSaver(local.store)
    talk = Talk(saver)
    chat = durable_graph(talk.graph, output=output, registry=registry)
    first = local.start(chat, "ask", session_id="s-1").run()
    before = talk.calls.copy()
    second = local.start(chat, "b", session_id="s-1").run()
    failure = second.summary().error
    assert failure is not None
    assert "NamespaceHeld" in failure.type
    assert first.id in failure.message
    assert talk.calls == before
    with pytest.raises(NamespaceHeld):
        talk.graph.update_state(SESSION, {"messages": ["beside"]})
    first.resume("that")
    assert first.run().wait() == ["ask", "that", "heard 2"]
    assert local.start(chat, "c", session_id="s-1").run().wait()[-1] == "heard 4"


class Kept(TypedDict, total=False):
    said: Annotated[list[str], DeltaChannel(lambda said, more: [*said, *(one for each in more for one in each)])]
    count: Annotated[int, operator.add]


def test_delta_channels_last(registry: Registry, local: LocalAgents) -> None:
    saver = StoreSaver(local.store)
    graph: Any = StateGraph(Kept).add_node("say", lambda state: {"said": [str(len(state["said"]))], "count": 1})
    graph = graph.add_edge(START, "say").compile(checkpointer=saver, name="kept")
    agent = durable_graph(graph, registry=registry)
    graph.invoke({"said": ["by hand"]}, SESSION)
    for turn in range(3):
        output = local.start(agent, {"said": [f"turn {turn}"]}, session_id="s-1").run().wait()
    assert output == {"said": ["by hand", "1", "turn 0", "3", "turn 1", "5", "turn 2", "7"], "count": 4}
    assert graph.get_state(SESSION).values == output
    saver.prune(["s-1"])
    assert graph.get_state(SESSION).values == output


def test_a_thread_is_what_the_graph_says_and_ends_where_sessions_are_erased(
    registry: Registry, local: LocalAgents
) -> None:
    saver = StoreSaver(local.store)
    talk = Talk(saver)
    chat = durable_graph(talk.graph, output=output, thread=lambda run: f"{run.user_id}\n%", registry=registry)
    local.start(chat, "a", user_id="u").run()
    assert local.start(chat, "b", user_id="u").run().wait()[-1] == "heard 3"
    assert [each.config["configurable"]["thread_id"] for each in saver.list(None, limit=1)] == ["u\n%"]
    assert local.store.documents.remove_under((THREADS, "u%0A%25")) > 0
    assert saver.get_tuple({"configurable": {"thread_id": "u\n%"}}) is None


def test_the_ids_of_turns_are_in_order_whatever_the_clocks_say(registry: Registry, local: LocalAgents) -> None:
    saver = StoreSaver(local.store)
    talk = Talk(saver)
    chat = durable_graph(talk.graph, output=output, registry=registry)
    local.start(chat, "a", session_id="s-1").run()
    ahead: Any = saver.get_tuple(SESSION)
    late = {**ahead.checkpoint, "id": "ffffffff-0000-6000-8000-000000000000"}
    saver.put(ahead.config, late, ahead.metadata, {})
    assert local.start(chat, "b", session_id="s-1").run().wait()[-1] == "heard 3"
    assert contents(saver, talk.graph)[-1] == "heard 3"


def test_what_has_no_thread_is_refused(registry: Registry) -> None:
    saver = StoreSaver(MemoryStore(clock=ManualClock()))
    inner = StateGraph(MessagesState).add_node("x", lambda _: {}).add_edge(START, "x")
    outer: Any = StateGraph(MessagesState).add_node("inner", inner.compile(checkpointer=True)).add_edge(START, "inner")
    for make, reason in (
        (lambda: durable_graph(Talk(None).graph, thread=str, registry=registry), "only a graph that is compiled"),
        (lambda: durable_graph(outer.compile(checkpointer=saver, name="o"), registry=registry), "a thread of its own"),
        (lambda: durable_nodes(Talk(saver).graph), "has a checkpointer of its own"),
    ):
        with pytest.raises(RegistrationError, match=reason):
            make()
