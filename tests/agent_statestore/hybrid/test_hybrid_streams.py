"""`HybridStore`: the streams of executions before, while and after they are archived."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent_statestore import AgentState, Checkpoint, ManualClock
from agent_statestore.hybrid import HybridStore
from agent_statestore.testing.contract.streams import append, page_of, part_of, values_of
from agent_statestore.testing.kit.builders import claim, claimed, done, move
from tests.agent_statestore.hybrid.hybrid_life import KINDS, away, hybrid_of, where


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[HybridStore]:
    with hybrid_of(request.param, request, clock) as store:
        yield store


def told(store: HybridStore, state: AgentState) -> str:
    """Return an execution with a stream that is over."""
    execution_id, lease = claimed(store)
    append(store, lease, 1, *"abc")
    store.checkpoint(execution_id, Checkpoint(steps=(done(1),), stream=part_of(lease, 4, "d")), lease)
    store.checkpoint(execution_id, Checkpoint(state=state, stream=part_of(lease, 5, "end")), lease)
    return execution_id


def test_a_reader_goes_on_where_it_was_when_the_execution_is_archived(store: HybridStore) -> None:
    execution_id, lease = claimed(store)
    append(store, lease, 1, *"ab")
    before = page_of(store, execution_id)
    move(store, execution_id, AgentState.COMPLETED, lease)
    assert where(store, execution_id) == ["cold"]
    assert not append(store, lease, 3, "c")
    after = page_of(store, execution_id)
    assert after.events[:2] == before.events
    assert after.is_over
    assert page_of(store, execution_id, before.last).events == after.events[2:]


def test_active_streams_are_read_without_the_archive(store: HybridStore, monkeypatch: pytest.MonkeyPatch) -> None:
    execution_id, lease = claimed(store)
    append(store, lease, 1, "a")
    archived = told(store, AgentState.COMPLETED)
    both = store.read_streams({execution_id: 0, archived: 0}, 10)
    assert {name: len(stream.events) for name, stream in both.items()} == {execution_id: 1, archived: 5}
    asked: list[Any] = []
    read = store.cold.read_streams
    monkeypatch.setattr(
        store.cold, "read_streams", lambda cursors, limit: asked.append(cursors) or read(cursors, limit)
    )
    store.read_streams({execution_id: 0, archived: 0}, 10)
    assert asked == [{archived: 0}]
    for name in ("read_streams", "trim_stream"):
        monkeypatch.setattr(store.cold, name, away)
    assert values_of(store, execution_id) == ["a"]
    assert store.trim_stream(execution_id, 0) == 1
    assert append(store, lease, 2, "b")


def test_a_stream_comes_back_with_its_execution_and_goes_on(store: HybridStore) -> None:
    execution_id = told(store, AgentState.FAILED)
    assert where(store, execution_id) == ["cold"]
    archived = page_of(store, execution_id)
    store.requeue(execution_id)
    lease = claim(store, execution_id).lease
    assert append(store, lease, 1, "again")
    assert values_of(store, execution_id) == [*"abcd", "end", "again"]
    assert page_of(store, execution_id).events[:5] == archived.events
    assert page_of(store, execution_id).last > archived.last
    move(store, execution_id, AgentState.COMPLETED, lease)
    assert values_of(store.cold, execution_id) == [*"abcd", "end", "again"]


@pytest.mark.parametrize("keep", [2, 0])
def test_what_is_trimmed_does_not_come_back(store: HybridStore, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    execution_id = told(store, AgentState.COMPLETED)
    # As on Redis, which keeps its copy for some time.
    copy = store.cold.export(execution_id)
    assert copy is not None
    assert store.hot.restore(copy)
    assert where(store, execution_id) == ["hot", "cold"]
    assert store.trim_stream(execution_id, keep) == 5 - keep
    assert store.trim_stream(execution_id, keep) == 0
    trimmed = page_of(store, execution_id)
    assert len(trimmed.events) == keep
    assert trimmed.trimmed_to
    store.hot.purge(execution_id)
    assert page_of(store, execution_id) == trimmed


def test_a_listener_hears_the_end_of_what_is_archived_at_once(store: HybridStore) -> None:
    execution_id, lease = claimed(store)
    listener = store.listen_streams()
    try:
        listener.follow([execution_id])
        writes: list[Callable[[], object]] = [
            lambda: append(store, lease, 1, "a"),
            lambda: move(store, execution_id, AgentState.COMPLETED, lease),
        ]
        for write in writes:
            store.read_events(execution_id)
            listener.wait(0.05)
            write()
            store.tell_readers([execution_id])
            assert any(execution_id in listener.wait(0.2) for _ in range(50))
        assert page_of(store, execution_id).is_over
    finally:
        listener.close()
