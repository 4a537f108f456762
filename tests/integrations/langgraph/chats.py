"""A chat whose threads are in a store, and what kills the process that works on it; imported by workers."""

import asyncio
import itertools
import operator
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph

from agent_statestore import open_store
from agent_statestore.documents.errors import NamespaceHeld
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import claimed
from celery_agents.integrations.langgraph import StoreSaver, durable_graph
from tests.integrations.killing import note

THREAD: Any = {"configurable": {"thread_id": "t"}}


class Talk(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


def _tell(what: str) -> None:
    if "LEDGER" in os.environ:  # of a worker
        note(what)


def hear(state: Talk) -> Talk:
    _tell(f"hear {state['said'][-1]}")
    return {"said": [f"heard {len(state['said'])}"]}


def say(state: Talk) -> Talk:
    _tell(f"say {state['said'][-2]}")
    while state["said"][-2] == "wait" and not Path(os.environ["LEDGER"]).with_name("gate").exists():
        time.sleep(0.02)
    return {"said": [f"said {len(state['said'])}"]}


def talking(saver: StoreSaver) -> Any:
    graph = StateGraph(Talk).add_node("hear", hear).add_node("say", say)
    return graph.add_edge(START, "hear").add_edge("hear", "say").compile(checkpointer=saver, name="chat")


if "AGENTS_IMPORTS" in os.environ:
    durable_graph(talking(StoreSaver()), output=lambda state: state["said"])


def run_until_killed(url: str, writes: int, *, is_after: bool) -> None:
    """Run the graph with a plain saver, and die before or after so many writes to the store."""
    store = open_store(url)
    apply, numbers = store.documents.apply, itertools.count(1)

    def dying(*args: Any) -> Any:
        is_last = next(numbers) == writes
        if is_last and not is_after:
            os.kill(os.getpid(), signal.SIGKILL)
        written = apply(*args)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    store.documents.apply = dying  # type: ignore[method-assign]
    talking(StoreSaver(store)).invoke({"said": ["hello"]}, THREAD, durability="sync")


def write_as_one_of_several(store: Store, member: int) -> list[str]:
    """Be an execution that talks on a thread, at the same time as others; return what is said there, or nothing."""
    _, lease = claimed(store)

    async def run() -> Any:
        saver = StoreSaver(store, lease=lease)
        return await talking(saver).ainvoke({"said": [f"member {member}"]}, THREAD)

    try:
        said: list[str] = asyncio.run(run())["said"]
    except NamespaceHeld:
        return []
    return said
