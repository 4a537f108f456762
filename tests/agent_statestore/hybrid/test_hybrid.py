"""`HybridStore`: what moves to the cold store, when, and what everybody sees meanwhile."""

import itertools
import logging
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent_statestore import (
    AgentState,
    Checkpoint,
    FormatTooNew,
    IdempotencyKeyTaken,
    InvalidRecord,
    ManualClock,
    MemoryStore,
    SchemaMismatch,
    StoreUnavailable,
    UnsupportedURL,
    open_store,
)
from agent_statestore.hybrid import HybridStore, outage
from agent_statestore.query import Query
from agent_statestore.states import ACTIVE, OVER
from agent_statestore.testing.contract.removing import filled
from agent_statestore.testing.kit.builders import (
    BOOM,
    GRACE,
    INSTANT,
    TTL,
    YEAR,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    done,
    due_ids,
    event,
    move,
    pause,
    summary_of,
)
from tests.agent_statestore.hybrid.hybrid_life import (
    HOUR,
    KINDS,
    Reached,
    away,
    die,
    digest_of,
    ended,
    found,
    hybrid_of,
    take_away,
    where,
)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[HybridStore]:
    with hybrid_of(request.param, request, clock) as store:
        yield store


# -- archiving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(OVER))
def test_a_settled_execution_moves_to_the_cold_store_as_it_is(store: HybridStore, state: AgentState) -> None:
    execution_id = filled(store, idempotency_key="key", user_id="u")
    store.send(execution_id, event())
    (lease,) = store.find_leases("")
    store.checkpoint(
        execution_id,
        Checkpoint(state=state, announce_within=GRACE, error=BOOM if state is AgentState.FAILED else None),
        lease,
    )
    assert where(store, execution_id) == ["hot"]
    before, context, trail = (
        digest_of(store, execution_id),
        context_of(store, execution_id),
        store.get_audit(execution_id),
    )
    store.settle(execution_id)
    assert where(store, execution_id) == ["cold"]
    assert digest_of(store, execution_id) == before
    assert context_of(store, execution_id) == replace(context, due_at=None)
    assert store.get_audit(execution_id) == trail
    assert store.get_steps(execution_id) == context.steps
    assert store.get_activity([execution_id])[execution_id].audit == trail
    assert found(store) == found(store, states=[state]) == found(store, user_id="u") == [execution_id]
    assert store.get_by_idempotency_key("agent", "key") == context_of(store, execution_id)


def test_an_end_that_needs_no_announcement_is_archived_with_the_write_itself(store: HybridStore) -> None:
    execution_id, lease = claimed(store)
    change = Checkpoint(state=AgentState.COMPLETED)
    applied = store.checkpoint(execution_id, change, lease)
    assert where(store, execution_id) == ["cold"]
    assert store.checkpoint(execution_id, change, lease) == applied  # repeated, after a lost answer


def test_what_is_not_over_and_settled_stays_hot(store: HybridStore, clock: ManualClock) -> None:
    idle, (leased, _), (paused, lease) = create(store), claimed(store), claimed(store)
    store.checkpoint(paused, pause(), lease)
    announcing, lease = claimed(store)
    store.checkpoint(announcing, Checkpoint(state=AgentState.COMPLETED, announce_within=GRACE), lease)
    clock.advance(YEAR)
    store.tidy()
    for execution_id in (idle, leased, paused):
        store.settle(execution_id)
    assert [where(store, each) for each in (idle, leased, paused, announcing)] == [["hot"]] * 4
    assert set(due_ids(store)) == {idle, leased, announcing}


def test_with_a_delay_executions_stay_hot_until_it_is_over(clock: ManualClock) -> None:
    store = HybridStore(MemoryStore(clock=clock), MemoryStore(clock=clock), archive_after=HOUR)
    execution_id = ended(store)
    store.settle(execution_id)
    clock.advance(HOUR)
    store.tidy()
    assert where(store, execution_id) == ["hot"]
    clock.advance(INSTANT)
    store.tidy()
    assert where(store, execution_id) == ["cold"]


def test_archiving_by_hand_goes_as_far_back_as_it_is_told(clock: ManualClock) -> None:
    store = HybridStore(MemoryStore(clock=clock), MemoryStore(clock=clock), archive_after=YEAR)
    old = ended(store)
    at = context_of(store, old).ended_at
    assert at is not None
    clock.advance(HOUR)
    young = ended(store)
    assert store.archive().archived == 0
    assert store.archive(before=at + INSTANT).archived == 1
    assert (where(store, old), where(store, young)) == (["cold"], ["hot"])
    assert store.archive(before=at + YEAR).archived == 1


def test_the_copy_is_committed_before_the_original_is_dropped(store: HybridStore, monkeypatch: Any) -> None:
    execution_id, lease = claimed(store)
    drop = store.hot.drop_archived

    def checking(*args: Any) -> bool:
        assert store.cold.get_summary(execution_id) is not None
        return drop(*args)

    monkeypatch.setattr(store.hot, "drop_archived", checking)
    move(store, execution_id, AgentState.COMPLETED, lease)
    assert where(store, execution_id) == ["cold"]


def test_archiving_twice_changes_nothing(store: HybridStore, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store.hot, "drop_archived", lambda *_: False)
        execution_id = ended(store)
    before = digest_of(store.cold, execution_id)
    assert where(store, execution_id) == ["hot", "cold"]
    assert found(store) == [execution_id]
    store.tidy()
    store.tidy()
    assert where(store, execution_id) == ["cold"]
    assert digest_of(store, execution_id) == before


@pytest.mark.parametrize("step", ["export", "restore", "drop_archived"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_an_archiver_that_died_left_the_next_sweep_finishes(
    store: HybridStore, monkeypatch: Any, step: str, when: str
) -> None:
    execution_id, lease = claimed(store)
    store.checkpoint(
        execution_id, Checkpoint(state=AgentState.COMPLETED, steps=(done(1),), announce_within=GRACE), lease
    )
    before = digest_of(store, execution_id)
    part = store.cold if step == "restore" else store.hot
    method = getattr(part, step)

    def dying(*args: Any) -> None:
        if when == "after":
            method(*args)
        raise Reached

    with monkeypatch.context() as patch:
        patch.setattr(part, step, dying)
        with pytest.raises(Reached):
            store.settle(execution_id)
    assert found(store) == [execution_id]
    assert digest_of(store, execution_id) == before
    store.tidy()
    assert where(store, execution_id) == ["cold"]
    assert digest_of(store, execution_id) == before


def test_several_sweepers_archive_each_execution_once(store: HybridStore, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store.hot, "drop_archived", lambda *_: False)
        patch.setattr(store.cold, "restore", away)
        patch.setattr(store.cold, "check", away)
        made = {ended(store): "" for _ in range(40)}
    made = {execution_id: digest_of(store, execution_id) for execution_id in made}
    sweepers = [HybridStore(store.hot, store.cold) for _ in range(4)]
    threads = [threading.Thread(target=sweeper.tidy) for sweeper in sweepers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {execution_id: digest_of(store.cold, execution_id) for execution_id in found(store, limit=99)} == made
    assert found(store.hot) == []


# -- a cold store that is away -----------------------------------------------------------------------------------------


def test_an_outage_of_the_cold_store_is_told_once_and_costs_no_execution_anything(
    store: HybridStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as patch:
        asked = take_away(patch, store)
        made = [ended(store) for _ in range(3)]
        for execution_id in made:
            store.settle(execution_id)
        assert store.tidy() == 0
        assert [context_of(store, execution_id).state for execution_id in made] == [AgentState.COMPLETED] * 3
        assert asked == ["restore", "check"]  # and not again at every execution: it might take a timeout each time
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert f"stay in {store.hot.url}" in caplog.text
    store.tidy()
    assert where(store, made[0]) == ["hot"]  # it is tried again after a while
    later = time.monotonic() + outage.RETRY_SECONDS + 1
    monkeypatch.setattr(outage, "time", SimpleNamespace(monotonic=lambda: later))
    store.tidy()
    assert [where(store, execution_id) for execution_id in made] == [["cold"]] * 3
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_what_is_asked_of_the_hot_store_alone_works_without_the_cold_one(
    store: HybridStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = create(store)
    take_away(monkeypatch, store)
    lease = claim(store, execution_id).lease
    assert store.renew([lease], TTL).lost == frozenset()
    store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
    assert store.get_steps(execution_id) == (done(1),)
    assert store.get_steps(execution_id, after=1) == ()
    store.send(execution_id, cancel())
    assert found(store, states=ACTIVE) == [execution_id]
    create(store)
    for ask in (store.find, lambda: store.get_context("unknown"), lambda: create(store, idempotency_key="k")):
        with pytest.raises(StoreUnavailable):
            ask()
    ended(store)
    with pytest.raises(StoreUnavailable):
        store.archive()


def test_a_cold_store_with_another_schema_is_an_outage(
    store: HybridStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def mismatch(*_: Any) -> None:
        raise SchemaMismatch("cold://", "1", "2")

    monkeypatch.setattr(store.cold, "restore", mismatch)
    for _ in range(2):
        ended(store)
    assert caplog.text.count("agents migrate") == 1
    with pytest.raises(SchemaMismatch):
        store.archive()


# -- an execution that cannot be archived ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [FormatTooNew("execution", 2, 1), IdempotencyKeyTaken("agent", "key"), StoreUnavailable("cold://", "too large")],
    ids=lambda error: type(error).__name__,
)
def test_one_that_cannot_be_archived_does_not_hold_up_the_others(
    store: HybridStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    bad = create(store)
    restore, tries = store.cold.restore, list[str]()

    def refusing(exported: Any) -> bool:
        tries.append(exported.execution_id)
        if exported.execution_id == bad:
            raise error
        return restore(exported)

    monkeypatch.setattr(store.cold, "restore", refusing)
    move(store, bad, AgentState.COMPLETED)
    good = ended(store)
    for _ in range(3):
        store.settle(bad)
        store.tidy()
    assert (where(store, bad), where(store, good)) == (["hot"], ["cold"])
    assert tries.count(bad) == 1
    assert [record.getMessage().count(bad) for record in caplog.records] == [1]
    monkeypatch.setattr(store.cold, "restore", restore)
    assert HybridStore(store.hot, store.cold).archive().archived == 1  # by a process that can


def test_many_that_cannot_be_archived_do_not_fill_the_batches(
    store: HybridStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        take_away(patch, store)
        bad = [ended(store) for _ in range(5)]
        clock.advance(INSTANT)
        good = [ended(store) for _ in range(5)]
    sweeper, restore = HybridStore(store.hot, store.cold), store.cold.restore

    def refusing(exported: Any) -> bool:
        if exported.execution_id in bad:
            raise IdempotencyKeyTaken("agent", "key")
        return restore(exported)

    monkeypatch.setattr(store.cold, "restore", refusing)
    for _ in range(6):
        sweeper.tidy(2)
    assert [where(store, execution_id) for execution_id in good] == [["cold"]] * 5
    assert [where(store, execution_id) for execution_id in bad] == [["hot"]] * 5


# -- one place under two names -----------------------------------------------------------------------------------------


def test_one_store_cannot_be_both(tmp_path: Path) -> None:
    memory = MemoryStore()
    with pytest.raises(UnsupportedURL, match="one and the same"):
        HybridStore(memory, memory)
    url = f"sqlite:///{tmp_path}/a.db"
    with open_store(url) as hot, open_store(url) as cold, pytest.raises(UnsupportedURL, match="one and the same"):
        HybridStore(hot, cold)


def test_one_place_under_two_names_loses_nothing(
    clock: ManualClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot, cold = MemoryStore(clock=clock), MemoryStore(clock=clock)
    for name in ("_executions", "_by_idempotency_key", "_deleted", "_changed"):
        setattr(cold, name, getattr(hot, name))
    store = HybridStore(hot, cold)
    made = [ended(store) for _ in range(3)]
    store.tidy()
    assert found(hot) == found(cold) == made[::-1]
    assert caplog.text.count("one and the same") == 1


# -- what everybody sees -----------------------------------------------------------------------------------------------


def test_an_execution_is_seen_exactly_once_while_it_moves_to_and_fro(store: HybridStore) -> None:
    execution_id = ended(store, AgentState.FAILED, idempotency_key="key")
    others = [create(store), ended(store)]
    stop, faults = threading.Event(), list[str]()

    def look() -> None:
        while not stop.is_set():
            reads: dict[str, Any] = {
                "context": store.get_context(execution_id),
                "summary": store.get_summary(execution_id),
                "export": store.export(execution_id),
                "steps": store.get_steps(execution_id),
                "audit": store.get_audit(execution_id),
                "key": store.get_by_idempotency_key("agent", "key"),
                "activity": store.get_activity([execution_id])[execution_id].audit,
            }
            faults.extend(name for name, value in reads.items() if not value)
            if create(store, input={"a": [1]}, idempotency_key="key") != execution_id:
                faults.append("created again")
            if sorted(found(store)) != sorted([execution_id, *others]):
                faults.append(f"found {found(store)}")

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        store.requeue(execution_id)
        move(store, execution_id, AgentState.FAILED)
        store.settle(execution_id)
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert where(store, execution_id) == ["cold"]


def test_pages_of_both_stores_are_one_list(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    store, dice = (
        HybridStore(MemoryStore(clock=clock), MemoryStore(clock=clock), archive_after=HOUR),
        random.Random(7),
    )
    states = dict[str, AgentState]()
    for _ in range(60):
        kind = dice.randrange(5)
        execution_id = create(store, session_id=f"s{dice.randrange(2)}")
        if kind:
            move(store, execution_id, (AgentState.FAILED, AgentState.COMPLETED)[dice.randrange(2)])
        with monkeypatch.context() as patch:
            if kind == 1:  # archived, and a crash left the original
                patch.setattr(store.hot, "drop_archived", lambda *_: False)
            if kind != 2:
                store.archive(before=summary_of(store, execution_id).created_at + YEAR)
        if kind == 3 and summary_of(store, execution_id).state is AgentState.FAILED:
            store.requeue(execution_id)  # the archived copy stays, and is stale
        states[execution_id] = summary_of(store, execution_id).state
        if dice.random() < 0.7:
            clock.advance(INSTANT)
    everything = {item.execution_id: item for item in (summary_of(store, each) for each in states)}
    order = sorted(everything, key=lambda each: (everything[each].created_at, each), reverse=True)
    assert len(found(store.hot, limit=99)) + len(found(store.cold, limit=99)) > len(order)  # some are in both

    def pages(limit: int, **filters: Any) -> list[str]:
        listed, cursor = list[str](), None
        while True:
            page = store.find(Query(limit=limit, cursor=cursor, **filters))
            assert all(item == everything[item.execution_id] for item in page.items)
            assert len(page.items) == limit or page.next_cursor is None
            listed += [item.execution_id for item in page.items]
            if page.next_cursor is None:
                return listed
            cursor = page.next_cursor

    for limit, wanted in itertools.product(
        (1, 2, 7, 60, 100), (None, [AgentState.FAILED], [AgentState.IDLE], [AgentState.IDLE, AgentState.COMPLETED], [])
    ):
        assert pages(limit, states=wanted) == [each for each in order if wanted is None or states[each] in wanted]
    in_session = [each for each in order if everything[each].session_id == "s1"]
    assert pages(3, session_id="s1") == in_session


def test_the_longest_over_is_found_first_in_both_stores(clock: ManualClock) -> None:
    store = HybridStore(MemoryStore(clock=clock), MemoryStore(clock=clock), archive_after=HOUR)
    made = []
    for _ in range(6):
        made.append(ended(store))
        clock.advance(HOUR)
    store.tidy()
    later = context_of(store, made[-1]).created_at + YEAR
    assert [where(store, each) for each in made] == [["cold"]] * 5 + [["hot"]]
    assert store.find_ended(later) == tuple(made)
    assert store.find_ended(later, limit=5) == tuple(made[:5])
    assert store.find_ended(later, limit=1) == tuple(made[:1])


# -- the two as one ----------------------------------------------------------------------------------------------------


def test_it_is_what_its_stores_are(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    hot, cold = MemoryStore(clock=clock, max_value_bytes=7), MemoryStore(clock=clock)
    closed = list[str]()
    for name, part in (("hot", hot), ("cold", cold)):
        monkeypatch.setattr(part, "url", f"{name}://")
        monkeypatch.setattr(part, "durability_warning", lambda name=name: f"{name} forgets.")
        monkeypatch.setattr(part, "close", lambda name=name: closed.append(name))
        monkeypatch.setattr(part, "is_shared", name == "hot")
    with HybridStore(hot, cold) as store:
        assert store.url == "hybrid of hot:// over cold://"
        assert store.durability_warning() == "hot forgets. cold forgets."
        assert (store.is_shared, store.max_value_bytes, store.has_transactions) == (False, 7, False)
        assert hot.holds_finished is cold.holds_finished is store.holds_finished is True
        store.check()
        for part in (hot, cold):
            with monkeypatch.context() as patch:
                patch.setattr(part, "check", away)
                with pytest.raises(StoreUnavailable):
                    store.check()
    assert closed == ["hot", "cold"]


def test_a_negative_delay_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="archive_after"):
        HybridStore(MemoryStore(), MemoryStore(), archive_after=timedelta(-1))


def test_a_watcher_is_woken_when_an_execution_is_archived(store: HybridStore) -> None:
    execution_id, lease = claimed(store)
    with store.watch(execution_id) as watch:
        move(store, execution_id, AgentState.COMPLETED, lease)
        assert watch.wait(10)
        assert summary_of(store, execution_id).state is AgentState.COMPLETED


# -- found by hostile reading ------------------------------------------------------------------------------------------


def test_the_activity_of_what_is_released_meanwhile_has_its_steps(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot, cold = MemoryStore(clock=clock), MemoryStore(clock=clock)
    store = HybridStore(hot, cold)
    execution_id = ended(store, AgentState.FAILED)
    before = store.get_activity([execution_id])[execution_id]
    assert before.steps
    get_steps = hot.get_steps

    def released_after(*given: Any) -> Any:
        steps = get_steps(*given)
        store.requeue(execution_id)
        return steps

    with monkeypatch.context() as patch:
        patch.setattr(hot, "get_steps", released_after)
        meanwhile = store.get_activity([execution_id])[execution_id]
    assert meanwhile.steps == before.steps
    assert meanwhile == store.get_activity([execution_id])[execution_id]


def test_what_a_death_left_of_comparing_the_stores_is_removed(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot, cold = MemoryStore(clock=clock), MemoryStore(clock=clock)

    def half_archived() -> str:
        execution_id = ended(hot)
        hot.settle(execution_id)
        exported = hot.export(execution_id)
        assert exported is not None
        cold.restore(exported)
        return execution_id

    first = half_archived()
    with monkeypatch.context() as patch:
        patch.setattr(hot, "purge", die)
        with pytest.raises(Reached):
            HybridStore(hot, cold).archive()
    assert len(found(hot)) == 2  # the execution, and what was made to compare
    clock.advance(HOUR)
    second = half_archived()
    HybridStore(hot, cold).archive()
    assert found(hot) == []
    assert sorted(found(cold)) == sorted([first, second])
