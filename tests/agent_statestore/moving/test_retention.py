"""`Retention`: what is purged, when, and what never is."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, MetaData, Table, create_engine

from agent_statestore import (
    AgentState,
    Checkpoint,
    FormatTooNew,
    InvalidRecord,
    ManualClock,
    MemoryStore,
    Store,
    StoreUnavailable,
    open_store,
)
from agent_statestore.clock import from_us
from agent_statestore.hybrid import HybridStore
from agent_statestore.moving.retention import Purged, Retention, purge_ended
from agent_statestore.sql import SQLStore, execution_id_type, metadata_of
from agent_statestore.states import OVER
from agent_statestore.testing.contract.purging import MANNERS, lived
from agent_statestore.testing.kit.builders import GRACE, INSTANT, claimed, context_of, create, move, pause
from tests.agent_statestore.hybrid.hybrid_life import KINDS, ended, found, hybrid_of

DAY = timedelta(days=1)


@pytest.fixture(params=["memory", "sqlite", "redis", "hybrid"])
def store(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[Store]:
    if request.param == "hybrid":
        with hybrid_of("memory", request, clock) as store:
            yield store
        return
    url = {"memory": "memory://", "sqlite": "sqlite:///{folder}/a.db", "redis": "{redis}?key_prefix={prefix}"}[
        request.param
    ]
    if request.param == "redis":
        url = url.format(redis=request.getfixturevalue("redis_url"), prefix=request.getfixturevalue("redis_prefix"))
    else:
        url = url.format(folder=request.getfixturevalue("tmp_path"))
    with open_store(url, clock=clock) as store:
        yield store
        store.clear()


# -- reading the setting -----------------------------------------------------------------------------------------------


def test_durations_are_read_with_their_units() -> None:
    read = Retention.parse(" completed=30d, failed = 12h,cancelled=15m,deleted=90s,")
    assert read == Retention(
        completed=30 * DAY, failed=DAY / 2, cancelled=timedelta(minutes=15), deleted=timedelta(seconds=90)
    )
    assert Retention.parse("failed=1d") == Retention(failed=DAY)


def test_nothing_set_keeps_all_for_ever() -> None:
    assert Retention.parse("") == Retention.parse(" , ") == Retention()
    assert not Retention()
    assert Retention(deleted=DAY)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("completed=30d,faild=9d", "'faild=9d'"),
        ("thinking=9d", "'thinking=9d'"),
        ("completed", "'completed'"),
        ("completed=", "'completed='"),
        ("completed=30", "'completed=30'"),
        ("completed=30w", "'completed=30w'"),
        ("completed=-3d", "'completed=-3d'"),
        ("completed=1.5d", "'completed=1.5d'"),
        ("completed=0d", "'completed=0d'"),
        ("completed=1d,completed=2d", "second time"),
        ("completed=1d;failed=2d", "'completed=1d;failed=2d'"),
    ],
)
def test_a_wrong_part_is_named(text: str, named: str) -> None:
    with pytest.raises(InvalidRecord, match="retention") as refused:
        Retention.parse(text)
    assert named in str(refused.value)


@pytest.mark.parametrize("duration", [timedelta(0), -DAY])
def test_a_duration_is_above_zero(duration: timedelta) -> None:
    with pytest.raises(InvalidRecord, match="cancelled"):
        Retention(cancelled=duration)


# -- purging -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(OVER))
def test_an_execution_is_kept_for_as_long_as_its_state_says(
    store: Store, clock: ManualClock, state: AgentState
) -> None:
    retention = Retention(**{state.value: DAY})
    execution_id = ended(store, state, idempotency_key="key")
    others = [ended(store, other) for other in sorted(OVER - {state})]
    clock.advance(DAY)
    assert retention.apply(store, clock=clock) == Purged()
    clock.advance(INSTANT)
    assert retention.apply(store, clock=clock) == Purged(**{state.value: 1})
    assert store.get_context(execution_id) is None
    assert store.get_audit(execution_id) == ()
    assert sorted(found(store)) == sorted(others)
    assert create(store, idempotency_key="key") != execution_id
    assert retention.apply(store, clock=clock) == Purged()


@pytest.mark.parametrize("manner", [manner for manner in MANNERS if manner != "over"])
def test_what_is_not_over_and_announced_is_never_purged(store: Store, clock: ManualClock, manner: str) -> None:
    execution_id, _, _ = lived(store, clock, manner)
    clock.advance(1000 * DAY)
    assert Retention.parse("completed=1s,failed=1s,cancelled=1s,deleted=1s").apply(store, clock=clock) == Purged()
    assert found(store) == [execution_id]


def test_a_released_execution_counts_from_its_new_end(store: Store, clock: ManualClock) -> None:
    execution_id = ended(store, AgentState.FAILED)
    clock.advance(2 * DAY)
    store.requeue(execution_id)
    assert Retention(failed=DAY).apply(store, clock=clock) == Purged()
    move(store, execution_id, AgentState.FAILED)
    assert Retention(failed=DAY).apply(store, clock=clock) == Purged()
    clock.advance(DAY + INSTANT)
    assert Retention(failed=DAY).apply(store, clock=clock) == Purged(failed=1)


def test_deleted_ones_are_kept_from_their_deletion_on(store: Store, clock: ManualClock) -> None:
    over, active = ended(store), create(store)
    clock.advance(10 * DAY)
    for execution_id in (over, active):
        store.delete_context(execution_id)
    retention = Retention(completed=DAY, deleted=DAY)
    assert retention.apply(store, clock=clock) == Purged(completed=0)
    clock.advance(DAY + INSTANT)
    assert retention.apply(store, clock=clock) == Purged(deleted=2 if store.keeps_deleted else 0)
    assert store.get_audit(over) == store.get_audit(active) == ()


def test_the_oldest_go_first_and_no_more_than_the_batch(store: Store, clock: ManualClock) -> None:
    made = []
    for _ in range(7):
        made.append(ended(store))
        clock.advance(INSTANT)
    clock.advance(DAY)
    for left in (4, 1, 0):
        Retention(completed=DAY).apply(store, batch=3, clock=clock)
        assert found(store) == made[::-1][:left]


def test_several_may_purge_at_once(store: Store, clock: ManualClock) -> None:
    for _ in range(30):
        ended(store)
    clock.advance(2 * DAY)

    def work() -> None:
        for _ in range(4):
            Retention(completed=DAY).apply(store, batch=10, clock=clock)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found(store) == []


def test_an_execution_that_is_released_at_this_moment_is_not_purged(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = ended(store, AgentState.FAILED)
    clock.advance(2 * DAY)
    drop = store.drop_archived

    def released_first(*args: Any) -> bool:
        store.requeue(execution_id)
        return drop(*args)

    monkeypatch.setattr(store, "drop_archived", released_first)
    assert Retention(failed=DAY).apply(store, clock=clock) == Purged(passed_over=1)
    assert context_of(store, execution_id).state is AgentState.IDLE


def test_one_that_cannot_be_read_does_not_keep_the_others(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [ended(store) for _ in range(4)]
    clock.advance(INSTANT)
    good = [ended(store) for _ in range(4)]
    clock.advance(2 * DAY)
    look = store.get_summary

    def refusing(execution_id: str) -> Any:
        if execution_id in bad:
            raise FormatTooNew(f"execution {execution_id}", 2, 1)
        return look(execution_id)

    monkeypatch.setattr(store, "get_summary", refusing)
    assert Retention(completed=DAY).apply(store, batch=2, clock=clock) == Purged(completed=2, passed_over=4)
    assert Retention(completed=DAY).apply(store, batch=9, clock=clock) == Purged(completed=2, passed_over=4)
    assert sorted(found(store)) == sorted(bad)
    assert f"execution {bad[0]} could not be purged" in caplog.text
    assert good


def test_a_store_that_is_away_is_told_of(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(clock=clock)
    ended(store)
    clock.advance(2 * DAY)

    def away(*_: Any) -> Any:
        raise StoreUnavailable("x://", "gone")

    monkeypatch.setattr(store, "drop_archived", away)
    with pytest.raises(StoreUnavailable):
        Retention(completed=DAY).apply(store, clock=clock)


# -- a hybrid store ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_archived_and_what_is_still_to_be_are_purged_by_age(
    request: pytest.FixtureRequest, clock: ManualClock, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hybrid_of(kind, request, clock) as store:
        archived = ended(store)
        with monkeypatch.context() as patch:
            patch.setattr(store.hot, "drop_archived", lambda *_: False)
            in_both = ended(store)
        stale = ended(store, AgentState.FAILED)
        store.requeue(stale)
        waiting, lease = claimed(store)
        store.checkpoint(waiting, pause(), lease)
        with monkeypatch.context() as patch:
            patch.setattr(HybridStore, "_archive_at_once", lambda *_: None)
            hot = ended(store)
        clock.advance(DAY + INSTANT)
        young = ended(store)
        assert Retention(completed=DAY, failed=DAY).apply(store, clock=clock) == Purged(completed=3)
        assert [store.get_context(each) for each in (archived, in_both, hot)] == [None] * 3
        assert sorted(found(store)) == sorted([stale, waiting, young])


def test_all_states_at_once_are_counted_together(store: Store, clock: ManualClock) -> None:
    made = [ended(store, state) for state in sorted(OVER)]
    announcing, lease = claimed(store)
    store.checkpoint(announcing, Checkpoint(state=AgentState.COMPLETED, announce_within=GRACE), lease)
    clock.advance(INSTANT)
    now = from_us(clock.now_us())
    assert purge_ended(store, now, states=OVER, limit=2) == (2, 0)
    assert purge_ended(store, now, states=OVER) == (1, 0)
    assert found(store) == [announcing]
    assert made


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("database", ["sqlite", "postgresql", "mariadb"])
def test_one_that_a_reference_holds_does_not_keep_the_others(
    request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path, database: str, deleted: bool
) -> None:
    """A relation of the user's without ON DELETE."""
    url = f"sqlite:///{tmp_path}/a.db"
    if database != "sqlite":
        url = request.getfixturevalue(f"{database}_database_url")
    with SQLStore(url, clock=clock) as store:
        store.migrate()
        metadata = MetaData()
        metadata_of(metadata=metadata, dialect=database)
        reference = execution_id_type(dialect=database)
        held_by = Table("tickets", metadata, Column("id", reference, ForeignKey("agent_contexts.execution_id")))
        engine = create_engine(store._settings.url)
        held_by.create(engine)
        ids = [ended(store) for _ in range(4)]
        with engine.begin() as connection:
            connection.execute(held_by.insert(), {"id": ids[0]})
        engine.dispose()
        for execution_id in ids:
            store.settle(execution_id)
            if deleted:
                store.delete_context(execution_id)
        clock.advance(2 * DAY)
        with pytest.raises(InvalidRecord, match="constraint"):
            store.purge(ids[0])
        retention = Retention(deleted=DAY) if deleted else Retention(completed=DAY)
        assert retention.apply(store, batch=2, clock=clock).total == 2
        assert retention.apply(store, batch=2, clock=clock).total == 1
        assert [bool(store.get_audit(each)) for each in ids] == [True, False, False, False]
