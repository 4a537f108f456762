"""`StoreSaver`: the published conformance package, and what it does not ask for."""

import asyncio
import operator
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt

from agent_statestore import MemoryStore, Store
from agent_statestore.errors import InvalidRecord, ValueTooLarge
from celery_agents.integrations.langgraph import StoreSaver
from tests.integrations.langgraph.stores import CELLS, counted, store_of

# How many tests version 0.0.2 has for each capability. Its own level is "FULL" also for what has none of some.
TESTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}
HOSTILE = [
    "",
    " ",
    "-",
    "~",
    "%",
    "a b",
    "a/b",
    "a\x00b",
    "a\x1fb\x01c",
    "line\nline",
    "é🙂",
    "\ud800",
    "x" * 3000,
    "🙂" * 300,
    "A",
    "a",
    "a ",
    "%41",
    "~~",
    "\x7f",
]
# LangGraph's serializer takes no lone surrogate, in no channel's name or value.
CHANNELS = ["c", *(text for text in HOSTILE if "\ud800" not in text)]


@pytest.fixture(params=CELLS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with store_of(request.param, request, tmp_path) as store:
        yield store


@pytest.fixture
def saver() -> StoreSaver:
    return StoreSaver(MemoryStore())


class InSync(StoreSaver):
    """Its async methods are its sync ones."""

    async def aget_tuple(self, *args: Any, **kwargs: Any) -> Any:
        return self.get_tuple(*args, **kwargs)

    async def alist(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for each in self.list(*args, **kwargs):
            yield each

    async def aput(self, *args: Any, **kwargs: Any) -> Any:
        return self.put(*args, **kwargs)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> None:
        self.put_writes(*args, **kwargs)

    async def adelete_thread(self, *args: Any, **kwargs: Any) -> None:
        self.delete_thread(*args, **kwargs)

    async def adelete_for_runs(self, *args: Any, **kwargs: Any) -> None:
        self.delete_for_runs(*args, **kwargs)

    async def acopy_thread(self, *args: Any, **kwargs: Any) -> None:
        self.copy_thread(*args, **kwargs)

    async def aprune(self, *args: Any, **kwargs: Any) -> None:
        self.prune(*args, **kwargs)


@pytest.mark.parametrize("kind", [StoreSaver, InSync])
def test_every_capability_passes_the_published_suite(store: Store, kind: type[StoreSaver]) -> None:
    @checkpointer_test(name=kind.__name__)
    async def made() -> AsyncIterator[StoreSaver]:
        yield kind(store)

    report = asyncio.run(validate(made))
    assert {name: result.failures for name, result in report.results.items() if result.failures} == {}
    assert {name: (result.tests_passed, result.tests_failed) for name, result in report.results.items()} == {
        name: (tests, 0) for name, tests in TESTS.items()
    }


# -- as LangGraph's own --------------------------------------------------------------------------------------------


def config_of(thread_id: Any, checkpoint_ns: str = "", checkpoint_id: str | None = None) -> RunnableConfig:
    named = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    return {"configurable": named if checkpoint_id is None else {**named, "checkpoint_id": checkpoint_id}}


def put(
    saver: BaseCheckpointSaver[Any], config: RunnableConfig, checkpoint_id: str, values: dict[str, Any], **metadata: Any
) -> RunnableConfig:
    versions = {name: f"{checkpoint_id}.{name}" for name in values}
    checkpoint = {**empty_checkpoint(), "id": checkpoint_id, "channel_values": values, "channel_versions": versions}
    return saver.put(config, checkpoint, {"source": "loop", **metadata}, versions)  # type: ignore[arg-type,typeddict-item]


def as_data(found: Any) -> Any:
    return None if found is None else found._replace(checkpoint={**found.checkpoint, "ts": ""})


def test_it_answers_as_the_saver_in_memory_does(store: Store) -> None:
    """The same calls, drawn at random, on texts that no name of a document may be: every answer is the same."""
    dice = random.Random(13)
    theirs, ours = InMemorySaver(), StoreSaver(store)
    threads, namespaces = ["t", *HOSTILE], ["", "child:1", *HOSTILE[1:8]]
    stored: list[tuple[str, str, str]] = []
    for number in range(60):
        thread, namespace = dice.choice(threads), dice.choice(namespaces)
        before = [each for each in stored if each[:2] == (thread, namespace)]
        parent = dice.choice(before)[2] if before and dice.random() < 0.8 else None
        checkpoint_id = str(uuid.UUID(int=(number << 64) + dice.getrandbits(32)))
        values = {dice.choice(CHANNELS): [number, b"x", None] for _ in range(3)}
        metadata = {"step": dice.choice([1, 1.0, True, 2, None]), "text": dice.choice(["a", "a\nb", "x" * 500])}
        writes = [(dice.choice(["__error__", "__interrupt__", *CHANNELS]), dice.random()) for _ in range(4)]
        tasks = [(dice.choice(["task", *HOSTILE]), dice.choice(["", "~path", *HOSTILE])) for _ in range(2)]
        for saver in (theirs, ours):
            config = put(saver, config_of(thread, namespace, parent), checkpoint_id, values, **metadata)
            for task_id, path in (*tasks, *tasks):
                saver.put_writes(config, writes, task_id, path)
                saver.put_writes(config, [(name, "again") for name, _ in writes[:2]], task_id, path)
        stored.append((thread, namespace, checkpoint_id))
    for thread, namespace, checkpoint_id in stored:
        for config in (config_of(thread, namespace), config_of(thread, namespace, checkpoint_id)):
            assert as_data(ours.get_tuple(config)) == as_data(theirs.get_tuple(config))
        config = config_of(thread, namespace, checkpoint_id)
        history = theirs.get_delta_channel_history(config=config, channels=["c", "-", ""])
        assert ours.get_delta_channel_history(config=config, channels=["c", "-", ""]) == history
        for filter in ({"step": 1}, {"text": "a\nb", "step": True}, {"text": "x" * 500}, {"no": None}, None):  # noqa: A001
            for namespaced in (config_of(thread, namespace), {"configurable": {"thread_id": thread}}):
                asked: Any = {"config": namespaced, "filter": filter, "before": config}
                expected = sorted(theirs.list(**asked), key=lambda each: each.checkpoint["id"], reverse=True)
                assert list(map(as_data, ours.list(**asked))) == list(map(as_data, expected))
    everything = [each.config["configurable"] for each in ours.list(None, filter={"step": 1})]
    expected_ids = [each.config["configurable"] for each in theirs.list(None, filter={"step": 1})]
    key = operator.itemgetter("checkpoint_id")
    assert everything == sorted(expected_ids, key=key, reverse=True)
    assert len(everything) > 10
    assert len(list(ours.list(None, limit=7))) == 7


def test_an_id_that_has_no_place_in_the_order_is_refused_and_never_found(saver: StoreSaver) -> None:
    for hostile in ("a b", "x" * 81, "a\nb", "é"):
        with pytest.raises(InvalidRecord, match="checkpoint_id"):
            put(saver, config_of("t"), hostile, {})
        assert saver.get_tuple(config_of("t", "", hostile)) is None


def test_threads_with_similar_names_are_apart(saver: StoreSaver) -> None:
    for thread in HOSTILE:
        put(saver, config_of(thread), "1", {"of": repr(thread)})
    saver.delete_thread("a")
    for thread in HOSTILE:
        found = saver.get_tuple(config_of(thread))
        assert (found and found.checkpoint["channel_values"]) == (None if thread == "a" else {"of": repr(thread)})
    assert {each.config["configurable"]["thread_id"] for each in saver.list(None)} == {*HOSTILE} - {"a"}


def test_a_number_is_the_id_of_a_thread_as_its_text_is(saver: StoreSaver) -> None:
    put(saver, config_of(7), "1", {"a": 1})
    assert saver.get_tuple(config_of("7")) is not None


# -- round trips and sizes -------------------------------------------------------------------------------------------


def test_round_trips_are_counted(store: Store) -> None:
    saver = StoreSaver(store)
    last = config_of("t")
    for number in range(30):
        with counted(store) as trips:
            last = put(saver, last, f"{number:04}", dict.fromkeys("abcdef", f"{number:1000}"))
        assert trips == {"apply": 1}
        with counted(store) as trips:
            saver.put_writes(last, [("delta", number)] * 5, "task")
        assert trips == {"apply": 1}
    for config in (last, {"configurable": {"thread_id": "t"}}):
        with counted(store) as trips:
            assert saver.get_tuple(config)
        assert trips == {"read_range": 1, "read": 1}, config
    put(saver, last, "0030", {})
    with counted(store) as trips:
        assert saver.get_tuple(config_of("t"))
    assert trips.total() <= 2
    with counted(store) as trips:
        history = saver.get_delta_channel_history(config=config_of("t"), channels=["delta"])
    assert [value for _, _, value in history["delta"]["writes"]] == [number for number in range(30) for _ in range(5)]
    assert trips == {"read_range": 1}  # and one more for the values of a channel that has versions
    with counted(store) as trips:
        assert len(list(saver.list(config_of("t")))) == 31
    assert trips.total() <= 3


def test_what_does_not_change_is_stored_once(store: Store) -> None:
    saver = StoreSaver(store)
    graph = StateGraph(Chat).add_node("say", lambda _: {"last": "x"}).add_edge(START, "say").compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    graph.invoke({"first": "y" * 100_000, "last": ""}, config)
    before = _bytes(store)
    graph.invoke({"last": ""}, config)
    assert _bytes(store) - before < 10_000


def test_a_value_over_the_limit_is_refused_by_its_channel(saver: StoreSaver) -> None:
    saver.threads.documents.max_document_bytes = 1000
    noise = random.Random(1).randbytes(2000)
    with pytest.raises(ValueTooLarge, match="channel 'big'"):
        put(saver, config_of("t"), "1", {"small": 1, "big": noise})
    assert saver.get_tuple(config_of("t")) is None
    config = put(saver, config_of("t"), "1", {})
    with pytest.raises(ValueTooLarge, match="write to channel 'big'"):
        saver.put_writes(config, [("big", noise)], "task")


def test_more_than_one_write_holds_is_stored(saver: StoreSaver) -> None:
    large = {f"channel-{at}": [at] for at in range(1500)}
    config = put(saver, config_of("t"), "1", large)
    saver.put_writes(config, [("c", at) for at in range(2500)], "task")
    found = saver.get_tuple(config_of("t"))
    assert found is not None
    assert found.checkpoint["channel_values"] == large
    assert [value for _, _, value in found.pending_writes or ()] == list(range(2500))


def test_writes_of_one_task_are_those_of_its_first_call_for_each_number(store: Store) -> None:
    """As `put_writes` stores those of a call together, calls of other lengths meet when they are read."""
    theirs, ours = InMemorySaver(), StoreSaver(store)
    big = "x" * 70_000
    for saver in (theirs, ours):
        config = put(saver, config_of("t"), "1", {})
        for call in (["b"], ["a", "b"], ["c", big, "d"], [big, big, big, "e"], ["a"]):
            saver.put_writes(config, [("c", value) for value in call], "task")
            saver.put_writes(config, [("__error__", len(call)), ("c", call[-1])], "other")
    found, expected = ours.get_tuple(config), theirs.get_tuple(config)
    assert found is not None
    assert expected is not None
    assert found.pending_writes == expected.pending_writes


def _bytes(store: Store) -> int:
    from agent_statestore.documents.contract import Selection
    from agent_statestore.documents.places import Range

    found = store.documents.read_range(Selection(namespace=(), places=Range("", None), limit=100_000))
    return sum(len(each.content or b"") for each in found)


# -- graphs ----------------------------------------------------------------------------------------------------------


class Chat(TypedDict, total=False):
    first: str
    last: str
    said: Annotated[list[str], operator.add]


def extend(said: list[str], more: list[list[str]]) -> list[str]:
    return [*said, *(one for each in more for one in each)]


class Kept(TypedDict, total=False):
    said: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=3)]
    only: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=2)]


class Long(TypedDict, total=False):
    said: Annotated[list[str], DeltaChannel(extend)]


def keeping(saver: BaseCheckpointSaver[Any]) -> Any:
    graph = StateGraph(Kept)
    graph.add_node("one", lambda state: {"said": [f"one {len(state['said'])}"], "only": ["one"]})
    graph.add_node("two", lambda state: {"said": [f"two {len(state['said'])}"]})
    graph.add_edge(START, "one").add_edge("one", "two")
    return graph.compile(checkpointer=saver)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_delta_channels_lose_nothing_to_pruning(store: Store, durability: Any) -> None:
    saver, theirs = StoreSaver(store), InMemorySaver()
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    for turn in range(5):
        for each in (saver, theirs):
            keeping(each).invoke({"said": [f"turn {turn}"]}, config, durability=durability)
        before = keeping(theirs).get_state(config).values
        assert keeping(saver).get_state(config).values == before
        saver.prune(["t"])
        assert keeping(saver).get_state(config).values == before
    assert len(list(saver.list(config))) < len(list(theirs.list(config))) / 2
    saver.copy_thread("t", "copy")
    saver.prune(["t"], strategy="delete")
    assert saver.get_tuple(config) is None
    assert keeping(saver).get_state({"configurable": {"thread_id": "copy"}}).values == before


def test_delta_channels_lose_nothing_to_the_deletion_of_runs(store: Store) -> None:
    saver = StoreSaver(store)
    graph: Any = StateGraph(Long).add_node("say", lambda _: {"said": ["answer"]}).add_edge(START, "say")
    graph = graph.compile(checkpointer=saver)
    runs = [str(uuid.uuid4()) for _ in range(3)]
    for run_id in runs:
        config: RunnableConfig = {"configurable": {"thread_id": "t"}, "metadata": {"run_id": run_id}}
        graph.invoke({"said": ["turn"]}, config)
    before = graph.get_state(config).values
    assert len(before["said"]) == 6
    saver.delete_for_runs(runs[:2])
    assert graph.get_state(config).values == before


def test_a_graph_waits_forks_and_goes_on(store: Store) -> None:
    def ask(state: Chat) -> Chat:
        return {"said": [interrupt("which?")]}

    def said(saver: BaseCheckpointSaver[Any]) -> list[Any]:
        graph: Any = StateGraph(Chat).add_node("ask", ask).add_edge(START, "ask").compile(checkpointer=saver)
        graph.invoke({"first": "a"}, config)
        asked = [task.interrupts[0].value for task in graph.get_state(config).tasks]
        waiting = graph.get_state(config).config
        answers = [graph.invoke(Command(resume="this"), config), graph.invoke({"first": "b"}, waiting)["first"]]
        answers.append(graph.invoke(Command(resume="that"), config))
        graph.update_state(config, {"said": ["more"]}, as_node="ask")
        history = [(state.values, state.next, state.metadata["step"]) for state in graph.get_state_history(config)]
        return [asked, answers, history]

    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    saver = StoreSaver(store)
    found = said(saver)
    assert found == said(InMemorySaver())
    assert found[0] == ["which?"]
    last = found[2][0][0]
    saver.prune(["t"])
    (kept,) = saver.list(config)
    assert kept.checkpoint["channel_values"].items() >= last.items()


@dataclass
class Secret:
    """A class that a strict serializer does not revive."""

    word: str


def test_a_strict_serializer_is_obeyed(store: Store) -> None:
    strict = JsonPlusSerializer(allowed_msgpack_modules=None)
    saver = StoreSaver(store, serde=strict)
    put(saver, config_of("t"), "1", {"a": Secret("w")})
    found = saver.get_tuple(config_of("t"))
    allowed = saver.with_allowlist([(Secret.__module__, "Secret")]).get_tuple(config_of("t"))
    assert found is not None
    assert allowed is not None
    assert found.checkpoint["channel_values"]["a"] != Secret("w")
    assert allowed.checkpoint["channel_values"]["a"] == Secret("w")
