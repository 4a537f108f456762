"""`GraphStore`, side by side with LangGraph's own store in memory."""

import asyncio
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp
from langgraph.store.memory import InMemoryStore

from agent_statestore import ManualClock, MemoryStore, Store
from agent_statestore.errors import NotSerialisable
from celery_agents.integrations.langgraph import GraphStore, StoreSaver
from tests.integrations.langgraph.stores import CELLS, counted, store_of
from tests.integrations.langgraph.test_saver import HOSTILE

LABELS = ["users", "docs", "v1", "%", "a/b", "*x", *(text for text in HOSTILE if len(text) < 2000)]


@pytest.fixture(params=CELLS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with store_of(request.param, request, tmp_path) as store:
        yield store


def embed(texts: list[str]) -> list[list[float]]:
    """A vector by the letters of a text, so that likeness is a matter of letters."""
    return [[1.0 + text.count(letter) for letter in "abcdefgh"] for text in texts]


def as_data(found: Any, *, in_order: bool = False) -> Any:
    """What is answered, without times, and without the order of a search that has no question."""
    if isinstance(found, list):
        items = [as_data(each) for each in found]
        return items if in_order else sorted(items, key=repr)
    if not hasattr(found, "dict"):
        return found
    data = {name: value for name, value in found.dict().items() if not name.endswith("_at")}
    if data.get("score") is not None:
        data["score"] = round(data["score"], 5)
    return data


def operations(dice: random.Random) -> list[Any]:
    """Some operations, on names that documents cannot have among others."""

    def namespace() -> tuple[str, ...]:
        return tuple(dice.choice(LABELS[: dice.choice([4, len(LABELS)])]) for _ in range(dice.randint(1, 3)))

    def key() -> str:
        return dice.choice(["k1", "k2", *HOSTILE])

    ops: list[Any] = []
    for _ in range(dice.randint(1, 4)):
        kind = dice.random()
        if kind < 0.6:
            value = {"text": dice.choice("abcdefgh") * 3, "n": dice.choice([1, 2.5, 3, True, None]), "in": {"x": [1]}}
            index: Any = dice.choice([None, None, False, ["text"], ["missing", "in.x[*]"]])
            ops.append(PutOp(namespace(), key(), value, index=index))
        elif kind < 0.7:
            ops.append(PutOp(namespace(), key(), None))
        elif kind < 0.85:
            ops.append(GetOp(namespace(), key()))
        else:
            conditions = [None, (MatchCondition("prefix", ("*", "docs")),), (MatchCondition("suffix", ("v1",)),)]
            conditions.append((MatchCondition("prefix", ("users",)), MatchCondition("suffix", ("*",))))
            ops.append(ListNamespacesOp(dice.choice(conditions), max_depth=dice.choice([None, 1, 2]), limit=1000))
    return ops


FILTERS: list[Any] = [
    None,
    {"n": 1},
    {"n": {"$ne": 1}},
    {"text": "aaa"},
    {"text": {"$eq": "bbb"}, "in": {"x": [1]}},
    {"in": {"x": [1, 2]}},
    {"missing": None},
]


def test_it_answers_as_the_store_in_memory_does(store: Store) -> None:
    dice = random.Random(13)
    index: Any = {"dims": 8, "embed": embed, "fields": ["text", "in.x[*]"]}
    ours, theirs = GraphStore(store, index=index), InMemoryStore(index=index)
    for _ in range(60):
        ops = operations(dice)
        puts = [op for op in ops if isinstance(op, PutOp)]
        # LangGraph's store in memory raises where two items of a batch have the same text; and it knows namespaces that
        # were only read, or hold nothing any more.
        batches = [[op] for op in ops] if len(puts) > 1 else [ops]
        for batch in batches:
            expected = [as_data(each) for each in theirs.batch(batch)]
            for labels in [labels for labels, items in theirs._data.items() if not items]:
                del theirs._data[labels]
            found = [as_data(each) for each in ours.batch(batch)]
            if not any(isinstance(op, ListNamespacesOp) for op in batch):
                assert found == expected, batch
    for prefix in [(), ("users",), ("docs",), ("users", "docs"), ("%",), ("nowhere",)]:
        for filter in FILTERS:  # noqa: A001
            asked: Any = {"filter": filter, "limit": 1000}
            assert as_data(ours.search(prefix, **asked)) == as_data(theirs.search(prefix, **asked)), (prefix, filter)
            found, expected = (each.search(prefix, query="aab", **asked) for each in (ours, theirs))
            assert as_data(found) == as_data(expected), (prefix, filter)
            scores = [item.score for item in found if item.score is not None]
            assert scores == sorted(scores, reverse=True)
            assert [item.score is None for item in found] == sorted(item.score is None for item in found)
    for depth in (None, 1, 2):
        assert ours.list_namespaces(max_depth=depth, limit=1000) == theirs.list_namespaces(max_depth=depth, limit=1000)
        assert ours.list_namespaces(suffix=("v1",)) == theirs.list_namespaces(suffix=("v1",))
        assert ours.list_namespaces(prefix=("users", "*")) == theirs.list_namespaces(prefix=("users", "*"))
    assert len(ours.list_namespaces(limit=3, offset=2)) == 3


def test_orders_and_operators(store: Store) -> None:
    ours, theirs = GraphStore(store), InMemoryStore()
    for each in (ours, theirs):
        for n in (1, 2, 3.5, "4"):
            each.put(("n",), str(n), {"n": n})
    for name in ("$gt", "$gte", "$lt", "$lte", "$eq", "$ne"):
        asked: Any = {"filter": {"n": {name: 2}}}
        assert as_data(ours.search(("n",), **asked)) == as_data(theirs.search(("n",), **asked)), name
    for wrong in ({"n": {"$no": 1}}, {"n": {"$gt": "x"}}):
        with pytest.raises(ValueError, match=r"Unsupported operator|could not convert"):
            ours.search(("n",), filter=wrong)
    assert [item.key for item in ours.search(("n",), limit=2, offset=1)] == ["2", "3.5"]


def test_async_and_sync_are_alike(store: Store) -> None:
    async def vectors(texts: list[str]) -> list[list[float]]:
        return embed(texts)

    ours = GraphStore(store, index={"dims": 8, "embed": vectors})

    async def use() -> Any:
        await ours.aput(("docs",), "1", {"text": "aaa"})
        await ours.aput(("docs",), "2", {"text": "bbb"})
        return await ours.asearch(("docs",), query="bb", limit=1)

    (found,) = asyncio.run(use())
    assert found.key == "2"


def test_a_batch_is_one_round_trip_for_each_root(store: Store) -> None:
    ours = GraphStore(store)
    with counted(store) as trips:
        ours.batch([PutOp(("memories", "u", str(at)), "k", {"at": at}) for at in range(50)])
    assert trips == {"apply": 1}
    with counted(store) as trips:
        ours.batch([GetOp(("memories", "u", str(at)), "k") for at in range(50)])
    assert trips == {"read": 1}
    with counted(store) as trips:
        assert len(ours.search(("memories",), limit=20)) == 20
    assert trips == {"read_range": 1}


def test_items_are_gone_in_time_unless_they_are_read() -> None:
    clock = ManualClock()
    ours = GraphStore(MemoryStore(clock=clock), ttl={"default_ttl": 10.0})
    ours.put(("a",), "default", {"x": 1})
    ours.put(("a",), "longer", {"x": 1}, ttl=20)
    ours.put(("a",), "ever", {"x": 1}, ttl=None)
    created = ours.get(("a",), "default", refresh_ttl=False)
    clock.advance(timedelta(minutes=8))
    assert ours.get(("a",), "default") == created
    clock.advance(timedelta(minutes=8))
    assert ours.get(("a",), "default", refresh_ttl=False) == created
    clock.advance(timedelta(minutes=8))
    assert [item.key for item in ours.search(("a",), refresh_ttl=True)] == ["ever"]
    assert ours.list_namespaces() == [("a",)]


def test_what_is_no_json_is_refused(store: Store) -> None:
    with pytest.raises(NotSerialisable):
        GraphStore(store).put(("a",), "k", {"x": object()})


def test_graphs_use_it_beside_their_threads(store: Store) -> None:
    def remember(state: dict[str, Any], runtime: Runtime[None]) -> dict[str, Any]:
        assert runtime.store is not None
        known = runtime.store.search(("memories", "u"))
        runtime.store.put(("memories", "u"), str(len(known)), {"said": len(known)})
        return {"known": len(known)}

    graph = StateGraph(dict[str, Any]).add_node("remember", remember).add_edge(START, "remember")
    compiled: Any = graph.compile(checkpointer=StoreSaver(store), store=GraphStore(store))
    for turn in range(3):
        config: Any = {"configurable": {"thread_id": f"t-{turn}"}}
        assert compiled.invoke({}, config) == {"known": turn}
    StoreSaver(store).delete_thread("t-0")
    assert len(GraphStore(store).search(())) == 3
