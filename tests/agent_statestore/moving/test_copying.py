"""`copy` and `verify`: everything arrives, once, and what cannot be copied is told of."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import (
    AgentState,
    FormatTooNew,
    IdempotencyKeyTaken,
    ManualClock,
    MemoryStore,
    Store,
    StoreUnavailable,
    UnsupportedURL,
    WaitKind,
    open_store,
)
from agent_statestore.moving import copying
from agent_statestore.moving.copying import Copied, CopyOutcome, copy, count, verify
from agent_statestore.testing.contract.purging import MANNERS, lived
from agent_statestore.testing.kit.builders import (
    INSTANT,
    TTL,
    answer,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    event,
    move,
    pause,
)
from tests.agent_statestore.hybrid.hybrid_life import digest_of, ended, found, hybrid_of

PLACES = ["memory", "sqlite", "redis", "postgresql", "hybrid"]


@pytest.fixture
def source(clock: ManualClock) -> Store:
    return MemoryStore(clock=clock)


@pytest.fixture
def target(clock: ManualClock) -> Store:
    return MemoryStore(clock=clock)


def counted(done: Copied) -> dict[str, int]:
    return {outcome.value: number for outcome, number in done.counts.items()}


def several(store: Store, clock: ManualClock, number: int) -> list[str]:
    """Executions of every manner, some at the same instant."""
    made = []
    for n in range(number):
        made.append(ended(store, (AgentState.COMPLETED, AgentState.FAILED)[n % 2]) if n % 3 else create(store))
        if n % 4:
            clock.advance(INSTANT)
    return made


def opened(place: str, request: pytest.FixtureRequest, clock: ManualClock, name: str) -> Any:
    if place == "hybrid":
        return hybrid_of("memory", request, clock)
    if place == "sqlite":
        return open_store(f"sqlite:///{request.getfixturevalue('tmp_path')}/{name}.db", clock=clock)
    if place == "redis":
        prefix = request.getfixturevalue("redis_prefix")
        return open_store(f"{request.getfixturevalue('redis_url')}?key_prefix={prefix}{name}:", clock=clock)
    if place == "postgresql":
        return open_store(request.getfixturevalue("postgresql_migrated_url"), clock=clock)
    return MemoryStore(clock=clock)


@pytest.fixture(params=[(one, other) for one in PLACES for other in PLACES if one != other], ids="->".join)
def pair(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[tuple[Store, Store]]:
    one, other = request.param
    with opened(one, request, clock, "source") as source, opened(other, request, clock, "target") as target:
        yield source, target
        source.clear()
        target.clear()


# -- copying -----------------------------------------------------------------------------------------------------------


def test_from_any_store_to_any_other_all_arrives_as_it_was(pair: tuple[Store, Store], clock: ManualClock) -> None:
    source, target = pair
    made = several(source, clock, 12)
    paused, lease = claimed(source, idempotency_key="key")
    source.checkpoint(paused, pause(), lease)
    source.send(paused, answer("ключ"))
    before = {execution_id: digest_of(source, execution_id) for execution_id in (*made, paused)}
    done = copy(source, target, threads=3)
    assert counted(done) == {"copied": 13}
    assert done.is_complete
    assert {execution_id: digest_of(target, execution_id) for execution_id in before} == before
    assert found(target) == found(source)
    assert create(target, idempotency_key="key") == paused
    assert counted(copy(source, target)) == {"present": 13}
    assert counted(verify(source, target)) == {"present": 13}
    assert {execution_id: digest_of(source, execution_id) for execution_id in before} == before
    clock.advance(TTL)
    assert claim(target, paused).context.signals == context_of(source, paused).signals  # it goes on there


@pytest.mark.parametrize("manner", [manner for manner in MANNERS if manner != "leased"])
def test_an_execution_is_copied_however_it_stands(
    source: Store, target: Store, clock: ManualClock, manner: str
) -> None:
    execution_id, _, exported = lived(source, clock, manner)
    assert counted(copy(source, target)) == {"copied": 1}
    assert target.export(execution_id) == target.export(execution_id)
    assert digest_of(target, execution_id) == exported.digest


def test_pages_are_walked_to_their_end(
    source: Store, target: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_PAGE", 3)
    monkeypatch.setattr(copying, "_COUNTING_PAGE", 3)
    made = several(source, clock, 20)
    seen = list[int]()
    assert counted(copy(source, target, on_progress=lambda so_far: seen.append(so_far.total))) == {"copied": 20}
    assert seen == [3, 6, 9, 12, 15, 18, 20]
    assert sorted(found(target)) == sorted(made)
    assert count(source) == 20
    assert count(source, [AgentState.IDLE]) == 7


def test_states_restrict_what_is_copied(source: Store, target: Store, clock: ManualClock) -> None:
    several(source, clock, 9)
    assert counted(copy(source, target, states=[AgentState.IDLE, AgentState.FAILED])) == {"copied": 6}
    assert {item.state for item in target.find().items} == {AgentState.IDLE, AgentState.FAILED}


def test_what_is_created_meanwhile_is_copied_too(source: Store, target: Store, clock: ManualClock) -> None:
    several(source, clock, 4)
    rounds = [create(source)]

    def more(_: Copied) -> None:
        if len(rounds) < 4:
            if len(rounds) % 2:
                clock.advance(INSTANT)
            rounds.append(create(source))

    assert counted(copy(source, target, on_progress=more)) == {"copied": 8}
    assert sorted(found(target)) == sorted(found(source))


def test_executions_that_come_without_an_end_do_not_keep_it_going(
    source: Store, target: Store, clock: ManualClock
) -> None:
    create(source)

    def more(_: Copied) -> None:
        clock.advance(INSTANT)
        create(source)

    assert copy(source, target, on_progress=more).total == 10
    assert copy(source, target).is_complete


def test_an_interrupted_copy_is_repeated(
    source: Store, target: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_PAGE", 4)
    made = several(source, clock, 12)

    def interrupt(so_far: Copied) -> None:
        if so_far.total == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(source, target, on_progress=interrupt)
    assert len(found(target)) == 8
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("copying")]
    assert counted(copy(source, target)) == {"present": 8, "copied": 4}
    assert sorted(found(target)) == sorted(made)


def test_what_has_come_further_since_replaces_its_copy(source: Store, target: Store, clock: ManualClock) -> None:
    on, kept = create(source), create(source)
    copy(source, target)
    source.checkpoint(on, pause(WaitKind.EVENT))
    assert counted(copy(source, target)) == {"copied": 1, "present": 1}
    for sent in (event(1, "other"), cancel(), event(2)):
        clock.advance(INSTANT)
        source.send(on, sent)
        assert counted(copy(source, target)) == {"copied": 1, "present": 1}
        assert counted(copy(source, target)) == {"present": 2}
    assert digest_of(target, on) == digest_of(source, on)
    assert digest_of(target, kept) == digest_of(source, kept)


def test_signals_that_the_target_alone_got_are_not_lost(source: Store, target: Store, clock: ManualClock) -> None:
    execution_id = create(source)
    copy(source, target)
    clock.advance(INSTANT)
    target.send(execution_id, replace(event("there"), sender=None))
    done = copy(source, target)
    assert counted(done) == {"different": 1}
    clock.advance(INSTANT)
    source.send(execution_id, replace(event("here"), sender=None))
    assert counted(copy(source, target)) == {"different": 1}
    assert [signal.payload for signal in context_of(target, execution_id).signals] == ["there"]


def test_an_event_of_a_named_sender_takes_the_target_further(source: Store, target: Store, clock: ManualClock) -> None:
    execution_id = create(source)
    copy(source, target)
    clock.advance(INSTANT)
    target.send(execution_id, event("there"))
    assert counted(copy(source, target)) == {"newer": 1}
    assert [signal.payload for signal in context_of(target, execution_id).signals] == ["there"]


def test_what_has_come_further_in_the_target_is_left_alone(source: Store, target: Store) -> None:
    execution_id = create(source)
    copy(source, target)
    move(target, execution_id, AgentState.COMPLETED)
    before = digest_of(target, execution_id)
    for done in (copy(source, target), verify(source, target)):
        assert counted(done) == {"newer": 1}
        assert done.is_complete
    assert digest_of(target, execution_id) == before


def test_what_workers_hold_is_skipped_and_told_of(source: Store, target: Store, clock: ManualClock) -> None:
    held, _ = claimed(source)
    free = create(source)
    for done in (copy(source, target), verify(source, target)):
        assert done.counts[CopyOutcome.LEASED] == 1
        assert not done.is_complete
        assert [(problem.execution_id, problem.outcome) for problem in done.problems] == [(held, CopyOutcome.LEASED)]
    assert found(target) == [free]
    clock.advance(TTL)
    assert counted(copy(source, target)) == {"copied": 1, "present": 1}


def test_an_older_copy_that_a_worker_holds_in_the_target_is_told_of(source: Store, target: Store) -> None:
    execution_id = create(source)
    copy(source, target)
    claim(target, execution_id)
    for _ in range(2):
        source.update_state(execution_id, AgentState.THINKING)
    done = copy(source, target)
    assert counted(done) == {"refused": 1}
    assert "holds an older copy" in done.problems[0].reason


def test_deleted_executions_are_not_copied_and_stay_deleted(source: Store, target: Store) -> None:
    deleted_there, deleted_here = ended(source), ended(source)
    copy(source, target)
    source.delete_context(deleted_here)
    target.delete_context(deleted_there)
    target.purge(deleted_here)
    for done in (copy(source, target), verify(source, target)):
        assert counted(done) == {"deleted": 1}
        assert done.is_complete
    assert found(target) == []


def test_what_is_removed_meanwhile_is_no_problem(source: Store, target: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = create(source)
    export = source.export

    def removed_first(execution_id: str) -> Any:
        source.purge(gone)
        return export(execution_id)

    monkeypatch.setattr(source, "export", removed_first)
    done = copy(source, target)
    assert (counted(done), done.is_complete) == ({"gone": 1}, True)


@pytest.mark.parametrize("error", [FormatTooNew("execution", 2, 1), IdempotencyKeyTaken("agent", "key")])
def test_one_that_cannot_be_copied_does_not_stop_the_others(
    source: Store, target: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    made = several(source, clock, 5)
    restore = target.restore

    def refusing(exported: Any) -> bool:
        if exported.execution_id == made[2]:
            raise error
        return restore(exported)

    monkeypatch.setattr(target, "restore", refusing)
    done = copy(source, target)
    assert counted(done) == {"copied": 4, "refused": 1}
    assert [(problem.execution_id, problem.reason) for problem in done.problems] == [(made[2], str(error))]
    assert not done.is_complete


def test_a_store_that_is_away_ends_it(source: Store, target: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create(source)

    def away(*_: Any) -> Any:
        raise StoreUnavailable("x://", "gone")

    monkeypatch.setattr(target, "restore", away)
    with pytest.raises(StoreUnavailable):
        copy(source, target)


def test_a_store_is_not_copied_to_itself(source: Store, tmp_path: Any) -> None:
    with pytest.raises(UnsupportedURL):
        copy(source, source)
    with open_store(f"sqlite:///{tmp_path}/a.db") as one, open_store(one.url) as other, pytest.raises(UnsupportedURL):
        copy(one, other)


# -- verifying ---------------------------------------------------------------------------------------------------------


def test_what_arrives_otherwise_than_it_left_is_told_of(
    source: Store, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:

    good, bad = ended(source), ended(source)
    restore = target.restore

    def losing(exported: Any) -> bool:
        return restore(replace(exported, facts=()) if exported.execution_id == bad else exported)

    monkeypatch.setattr(target, "restore", losing)
    done = copy(source, target)
    assert counted(done) == {"copied": 1, "different": 1}
    assert [problem.execution_id for problem in done.problems] == [bad]
    checked = verify(source, target)
    assert counted(checked) == {"present": 1, "different": 1}
    assert not checked.is_complete
    assert good


def test_what_is_missing_or_older_is_told_of_and_nothing_is_changed(source: Store, target: Store) -> None:
    on = create(source)
    copy(source, target)
    source.checkpoint(on, pause())
    missing = create(source)
    before = digest_of(target, on)
    done = verify(source, target)
    assert counted(done) == {"different": 1, "missing": 1}
    assert {problem.execution_id: problem.reason for problem in done.problems} == {
        on: "the target's copy is older",
        missing: "the target does not have it",
    }
    assert found(target) == [on]
    assert digest_of(target, on) == before


def test_problems_are_listed_up_to_a_hundred(source: Store, target: Store) -> None:
    for _ in range(101):
        create(source)
    done = verify(source, target)
    assert (done.total, len(done.problems)) == (101, 100)


def test_a_long_journal_is_copied_whole(source: Store, target: Store, clock: ManualClock) -> None:
    execution_id = create(source)
    for number in range(300):
        source.add_step(execution_id, f"step-{number}", duration=timedelta(0))
    copy(source, target)
    assert digest_of(target, execution_id) == digest_of(source, execution_id)


def test_verifying_tells_what_the_target_alone_has(source: Store, target: Store) -> None:
    kept, deleted, purged = (create(source) for _ in range(3))
    assert copy(source, target).is_complete
    source.delete_context(deleted)
    source.purge(purged)
    assert copy(source, target).is_complete
    done = verify(source, target)
    assert counted(done) == {"present": 1, "extra": 2}
    assert (done.total, done.is_complete) == (1, True)
    assert {problem.execution_id: problem.reason for problem in done.problems} == {
        deleted: "it is deleted in the source",
        purged: "the source does not have it",
    }
    assert found(target, states=None) == [purged, deleted, kept]
