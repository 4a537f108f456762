"""An execution is the one writer of a thread: a second writer is refused before a branch is lost."""

import asyncio
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from agent_statestore import AgentState, ManualClock, MemoryStore, Store
from agent_statestore.documents.errors import NamespaceHeld
from agent_statestore.errors import LeaseLost
from agent_statestore.testing.kit.builders import TTL, claim, claimed, move
from celery_agents import AsyncRun, Registry, Run
from celery_agents import agent as make_agent
from celery_agents.integrations.langgraph import StoreSaver, ThreadChanged
from celery_agents.testing import LocalAgents
from tests.integrations.langgraph.stores import CELLS, counted, store_of

THREAD: Any = {"configurable": {"thread_id": "t"}}


class State(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


def saying(saver: BaseCheckpointSaver[Any], gate: asyncio.Barrier | None = None) -> Any:
    async def say(state: State) -> State:
        if gate is not None:
            await gate.wait()
        return {"said": ["answer"]}

    return StateGraph(State).add_node("say", say).add_edge(START, "say").compile(checkpointer=saver)


async def both(first: BaseCheckpointSaver[Any], second: BaseCheckpointSaver[Any], parties: int = 2) -> list[Any]:
    """What two runs on one thread come to that are in their nodes at the same moment."""
    gate = asyncio.Barrier(parties)
    runs = (saying(saver, gate).ainvoke({"said": [name]}, THREAD) for name, saver in (("a", first), ("b", second)))
    return await asyncio.gather(*runs, return_exceptions=True)


@pytest.fixture(params=CELLS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with store_of(request.param, request, tmp_path) as store:
        yield store


def test_two_writers_lose_a_branch_with_the_savers_of_others() -> None:
    """Why there is one writer: both return, and what one of them said is in no state that the thread goes on from."""
    saver = InMemorySaver()
    answers = asyncio.run(both(saver, saver))
    assert [answer["said"][0] for answer in answers] == ["a", "b"]
    assert len(saying(saver).get_state(THREAD).values["said"]) == 2


def test_of_two_executions_one_is_refused_and_nothing_is_lost(store: Store) -> None:
    (_, lease), (_, other) = claimed(store), claimed(store)
    first, second = StoreSaver(store, lease=lease), StoreSaver(store, lease=other)
    answers = asyncio.run(both(first, second, parties=1))
    refused = [answer for answer in answers if isinstance(answer, NamespaceHeld)]
    (answered,) = [answer for answer in answers if isinstance(answer, dict)]
    assert len(refused) == 1, answers
    assert saying(StoreSaver(store)).get_state(THREAD).values == answered


def test_an_execution_takes_hold_once(store: Store) -> None:
    _, lease = claimed(store)
    saver = StoreSaver(store, lease=lease)
    graph = StateGraph(State).add_node("say", lambda _: {"said": ["x"]}).add_edge(START, "say")
    graph.compile(checkpointer=saver).invoke({"said": []}, THREAD)
    config = saver.get_tuple(THREAD).config  # type: ignore[union-attr]
    with counted(store) as trips:
        saver.put_writes(config, [("said", ["y"])], "task")
    assert trips == {"apply": 1}


def test_of_an_execution_the_last_attempt_writes() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    execution_id, lease = claimed(store)
    zombie = StoreSaver(store, lease=lease)
    late = asyncio.run(saying(zombie).ainvoke({"said": ["first"]}, THREAD))
    clock.advance(TTL)
    saver_lease = claim(store, execution_id).lease
    saver = StoreSaver(store, lease=saver_lease)
    config = saver.get_tuple(THREAD).config  # type: ignore[union-attr]
    asyncio.run(saying(saver).ainvoke({"said": ["second"]}, THREAD))
    before = saying(saver).get_state(THREAD).values
    for call in (
        lambda: asyncio.run(saying(zombie).ainvoke({"said": ["late"]}, THREAD)),
        lambda: zombie.put_writes(config, [("said", ["late"])], "task"),
        lambda: zombie.prune(["t"]),
    ):
        with pytest.raises(LeaseLost):
            call()
    assert saying(saver).get_state(THREAD).values == before
    assert before["said"][:2] == late["said"]
    move(store, execution_id, AgentState.COMPLETED, saver_lease)
    next_id, other = claimed(store)
    asyncio.run(saying(StoreSaver(store, lease=other)).ainvoke({"said": ["third"]}, THREAD))
    move(store, next_id, AgentState.COMPLETED, other)
    with pytest.raises(LeaseLost):
        StoreSaver(store, lease=lease).put_writes(config, [("said", ["much later"])], "task")


def test_outside_of_executions_it_writes_unless_one_is_at_work(store: Store) -> None:
    saver = StoreSaver(store)
    asyncio.run(saying(saver).ainvoke({"said": ["before"]}, THREAD))
    execution_id, lease = claimed(store)
    asyncio.run(saying(StoreSaver(store, lease=lease)).ainvoke({"said": ["in it"]}, THREAD))
    kept = saying(saver).get_state(THREAD).values
    for call in (
        lambda: saying(saver).update_state(THREAD, {"said": ["beside"]}),
        lambda: saver.delete_thread("t"),
        lambda: saver.prune(["t"]),
        lambda: saver.prune(["t"], strategy="delete"),
        lambda: saver.copy_thread("other", "t"),
    ):
        with pytest.raises(NamespaceHeld) as refused:
            call()
        assert refused.value.execution_id == execution_id
    assert saying(saver).get_state(THREAD).values == kept
    saver.copy_thread("t", "copy")
    move(store, execution_id, AgentState.COMPLETED, lease)
    saying(saver).update_state(THREAD, {"said": ["after"]})
    with counted(store) as trips:
        saver.put_writes(saver.get_tuple(THREAD).config, [("said", ["x"])], "task")  # type: ignore[union-attr]
    assert trips["apply"] == 1
    saver.delete_thread("t")
    saver.delete_thread("copy")
    assert store.documents.namespaces(("thread",)) == ()


def test_what_was_written_between_reading_and_writing_is_not_hidden(store: Store) -> None:
    """The other execution is over by then, and holds nothing any more."""
    (_, lease), (over, other) = claimed(store), claimed(store)
    late = StoreSaver(store, lease=lease)
    assert late.get_tuple(THREAD) is None
    asyncio.run(saying(StoreSaver(store, lease=other)).ainvoke({"said": ["fast"]}, THREAD))
    move(store, over, AgentState.COMPLETED, other)
    with pytest.raises(ThreadChanged, match="thread 't' was written to"):
        late.put({"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, empty_checkpoint(), {}, {})
    assert saying(late).get_state(THREAD).values["said"] == ["fast", "answer"]
    asyncio.run(saying(late).ainvoke({"said": ["again"]}, THREAD))
    assert len(saying(late).get_state(THREAD).values["said"]) == 4


def test_agents_hold_their_threads_without_being_told(registry: Registry, local: LocalAgents) -> None:
    """In the agent's code, in its steps, and in the threads that LangGraph starts for it."""
    saver = StoreSaver(local.store)
    graph = saying(saver)

    def say(state: State) -> State:
        return {"said": ["in sync"]}

    sync = StateGraph(State).add_node("say", say).add_edge(START, "say").compile(checkpointer=saver)

    @make_agent(registry=registry)
    async def waits(run: AsyncRun, input: None) -> Any:
        async def turn() -> Any:
            return (await graph.ainvoke({"said": ["step"]}, THREAD))["said"]

        said = await run.step("turn", turn)
        await run.ask("go on?")
        return said

    @make_agent(registry=registry)
    def plain(run: Run, thread: str) -> Any:
        return sync.invoke({"said": ["plain"]}, {"configurable": {"thread_id": thread}})["said"]

    first = local.start(waits).run()
    second = local.start(plain, "t").run()
    failure = second.summary().error
    assert failure is not None
    assert "NamespaceHeld" in failure.type
    assert first.id in failure.message
    assert local.start(plain, "other").run().wait() == ["plain", "in sync"]
    first.resume("yes")
    assert first.run().wait() == ["step", "answer"]
    assert local.start(plain, "t").run().wait() == ["step", "answer", "plain", "in sync"]


def test_a_saver_on_another_store_than_the_execution_is_refused(registry: Registry, local: LocalAgents) -> None:
    """It could not tell which executions are active; without a store, it has that of the execution."""
    elsewhere = StateGraph(State).add_node("say", lambda _: {"said": ["x"]}).add_edge(START, "say")

    @make_agent(registry=registry)
    def plain(run: Run, is_own: bool) -> Any:
        saver = StoreSaver() if is_own else StoreSaver(MemoryStore(clock=ManualClock()))
        return elsewhere.compile(checkpointer=saver).invoke({"said": []}, THREAD)["said"]

    assert local.start(plain, True).run().wait() == ["x"]
    assert len(list(StoreSaver(local.store).list(THREAD))) == 3
    failure = local.start(plain, False).run().summary().error
    assert failure is not None
    assert "ConfigurationError" in failure.type


def test_a_lost_thread_ends_the_attempt_without_a_trace(registry: Registry, local: LocalAgents) -> None:
    """What the agent's code makes of the error does not matter: a later attempt has the thread, and the execution."""
    saver = StoreSaver(local.store)
    graph = saying(saver)
    caught: list[Exception] = []

    @make_agent(registry=registry)
    async def stubborn(run: AsyncRun, input: None) -> str:
        await graph.ainvoke({"said": ["first"]}, THREAD)
        later = {"execution_id": run.execution_id, "token": 99}
        local.store.documents.put(("thread", "t"), "holder", later)
        try:
            await graph.ainvoke({"said": ["late"]}, THREAD)
        except LeaseLost as error:
            caught.append(error)
        return "done"

    execution = local.start(stubborn).run()
    assert caught
    assert execution.summary().state is AgentState.THINKING
    assert graph.get_state(THREAD).values["said"] == ["first", "answer"]
