"""`HybridStore`: writes to what is archived, removing and restoring."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from agent_statestore import (
    AgentState,
    AuditEvent,
    Checkpoint,
    ExecutionNotFound,
    ExecutionOver,
    IdempotencyKeyTaken,
    LeaseLost,
    ManualClock,
    MemoryStore,
    Store,
)
from agent_statestore.hybrid import HybridStore
from agent_statestore.testing.contract.removing import filled
from agent_statestore.testing.kit.builders import (
    INSTANT,
    TTL,
    YEAR,
    answer,
    cancel,
    claim,
    claimed,
    create,
    done,
    due_ids,
    event,
    move,
    summary_of,
)
from tests.agent_statestore.hybrid.hybrid_life import (
    KINDS,
    Reached,
    die,
    digest_of,
    ended,
    found,
    hybrid_of,
    where,
)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[HybridStore]:
    with hybrid_of(request.param, request, clock) as store:
        yield store


# -- writes to what is archived ----------------------------------------------------------------------------------------


def test_a_write_to_an_archived_execution_is_refused_as_if_it_were_hot(store: HybridStore, clock: ManualClock) -> None:
    execution_id, lease = claimed(store)
    sent, change = event(), Checkpoint(state=AgentState.COMPLETED, steps=(done(1),))
    store.send(execution_id, sent)
    applied = store.checkpoint(execution_id, change, lease)
    before = digest_of(store.cold, execution_id)
    assert where(store, execution_id) == ["cold"]
    assert store.claim(execution_id, "host:2", TTL) is None
    assert store.renew([lease], TTL).lost == {execution_id}
    assert store.release(lease) is False
    assert store.checkpoint(execution_id, change, lease) == store.checkpoint(execution_id, change) == applied
    with pytest.raises(LeaseLost):
        store.checkpoint(execution_id, Checkpoint(), lease)
    for late in (Checkpoint(), Checkpoint(state=AgentState.IDLE), Checkpoint(state=AgentState.THINKING)):
        with pytest.raises(ExecutionOver):
            store.checkpoint(execution_id, late)
    for late_signal in (answer(), event(), cancel()):
        with pytest.raises(ExecutionOver):
            store.send(execution_id, late_signal)
    assert store.send(execution_id, sent).woke is False
    store.settle(execution_id)
    store.mark_rung([(execution_id, 1)], TTL, TTL)
    assert due_ids(store) == []
    assert digest_of(store.cold, execution_id) == before
    assert where(store, execution_id) == ["cold"]
    for write in (
        lambda: store.checkpoint("unknown", Checkpoint()),
        lambda: store.checkpoint("unknown", Checkpoint(state=AgentState.IDLE)),
        lambda: store.send("unknown", cancel()),
    ):
        with pytest.raises(ExecutionNotFound):
            write()


def test_a_failed_execution_comes_back_when_it_is_released(store: HybridStore, clock: ManualClock) -> None:
    execution_id = ended(store, AgentState.FAILED, idempotency_key="key")
    steps, trail = store.get_steps(execution_id), store.get_audit(execution_id)
    later = summary_of(store, execution_id).created_at + YEAR
    store.requeue(execution_id, by="ada", reason="mended")
    assert summary_of(store, execution_id).state is AgentState.IDLE
    assert store.get_steps(execution_id) == steps
    assert [entry.by for entry in store.get_audit(execution_id)[len(trail) :]] == ["ada"]
    assert due_ids(store) == [execution_id]
    assert create(store, input={"a": [1]}, idempotency_key="key") == execution_id
    # Its archived copy is older, and does not show.
    assert found(store, states=[AgentState.FAILED]) == []
    assert found(store) == found(store, states=[AgentState.IDLE]) == [execution_id]
    assert store.find_ended(later) == store.find_ended(later, states=[AgentState.FAILED]) == ()
    lease = claim(store, execution_id).lease
    assert lease.token == 2  # tokens grow for ever
    store.checkpoint(execution_id, Checkpoint(steps=(done(2),), state=AgentState.COMPLETED), lease)
    assert where(store, execution_id) == ["cold"]
    assert len(store.get_steps(execution_id)) == 2
    assert found(store, states=[AgentState.COMPLETED]) == [execution_id]
    assert found(store, states=[AgentState.FAILED]) == []


def test_stale_copies_in_front_do_not_hide_what_has_ended(store: HybridStore, clock: ManualClock) -> None:
    stale = [ended(store, AgentState.FAILED) for _ in range(5)]
    clock.advance(INSTANT)
    over = ended(store, AgentState.FAILED)
    for execution_id in stale:
        store.requeue(execution_id)
    later = summary_of(store, over).created_at + YEAR
    assert store.find_ended(later, limit=1) == store.find_ended(later, limit=2) == (over,)


def test_a_release_that_died_half_way_is_repeated(store: HybridStore, monkeypatch: pytest.MonkeyPatch) -> None:
    execution_id = ended(store, AgentState.FAILED)
    before = digest_of(store, execution_id)
    with monkeypatch.context() as patch:
        restore = store.hot.restore
        patch.setattr(store.hot, "restore", lambda exported: (restore(exported), die()))
        with pytest.raises(Reached):
            store.requeue(execution_id)
    assert where(store, execution_id) == ["hot", "cold"]
    assert found(store, states=[AgentState.FAILED]) == [execution_id]
    store.tidy()
    assert where(store, execution_id) == ["cold"]
    assert digest_of(store, execution_id) == before
    store.requeue(execution_id)
    assert summary_of(store, execution_id).state is AgentState.IDLE


def test_a_release_wins_over_an_archiver_that_comes_late(store: HybridStore, monkeypatch: pytest.MonkeyPatch) -> None:
    execution_id, lease = claimed(store)
    drop = store.hot.drop_archived

    def released_first(*args: Any) -> bool:
        store.hot.checkpoint(execution_id, Checkpoint(state=AgentState.IDLE))
        return drop(*args)

    with monkeypatch.context() as patch:
        patch.setattr(store.hot, "drop_archived", released_first)
        move(store, execution_id, AgentState.FAILED, lease)
    assert where(store, execution_id) == ["hot", "cold"]
    assert summary_of(store, execution_id).state is AgentState.IDLE
    assert found(store, states=[AgentState.FAILED]) == []
    store.tidy()
    assert where(store, execution_id) == ["hot", "cold"]
    move(store, execution_id, AgentState.CANCELLED)
    assert where(store, execution_id) == ["cold"]
    assert summary_of(store, execution_id).state is AgentState.CANCELLED


def test_a_release_goes_on_until_no_archiver_is_quicker(store: HybridStore, monkeypatch: pytest.MonkeyPatch) -> None:
    execution_id = ended(store, AgentState.FAILED)
    restore, rounds = store.hot.restore, [3]

    def archived_again(exported: Any) -> bool:
        was_restored = restore(exported)
        if rounds[0]:
            rounds[0] -= 1
            assert store.archive().archived == 1
        return was_restored

    monkeypatch.setattr(store.hot, "restore", archived_again)
    store.requeue(execution_id)
    assert rounds == [0]
    assert summary_of(store, execution_id).state is AgentState.IDLE


# -- idempotency keys --------------------------------------------------------------------------------------------------


def test_a_key_leads_to_the_archived_execution(store: HybridStore) -> None:
    execution_id = ended(store, idempotency_key="key")
    assert create(store, input={"a": [1]}, idempotency_key="key") == execution_id
    assert create(store, "another", idempotency_key="key") != execution_id
    assert found(store.hot, agent_id="agent") == []


@pytest.mark.parametrize("same", [{"idempotency_key": "key"}, {"execution_id": str(uuid4())}], ids=["key", "id"])
def test_a_key_whose_execution_is_archived_between_the_looks_creates_nothing(
    store: HybridStore, monkeypatch: pytest.MonkeyPatch, same: dict[str, Any]
) -> None:
    execution_id, lease = claimed(store, **same)
    make = store.hot.create

    def archived_first(new: Any) -> Any:
        monkeypatch.undo()
        move(store, execution_id, AgentState.COMPLETED, lease)
        return make(new)

    monkeypatch.setattr(store.hot, "create", archived_first)
    assert create(store, **same) == execution_id
    assert create(store, **same) == execution_id
    assert found(store) == [execution_id]
    assert found(store.hot) == []


def test_a_key_of_a_released_execution_leads_to_it_as_it_is_now(store: HybridStore) -> None:
    execution_id = ended(store, AgentState.FAILED, idempotency_key="key")
    store.requeue(execution_id)
    created = store.create_context("agent", {"a": [1]}, idempotency_key="key")
    assert (created.execution_id, created.state) == (execution_id, AgentState.IDLE)


# -- removing ----------------------------------------------------------------------------------------------------------


def test_a_deleted_execution_is_kept_in_the_cold_store_whole(store: HybridStore, clock: ManualClock) -> None:
    execution_id = filled(store, idempotency_key="key")
    exported = store.export(execution_id)
    assert exported is not None
    assert store.delete_context(execution_id, by="ada", reason="because") is True
    assert store.hot.get_audit(execution_id) == ()
    entry = store.get_audit(execution_id)[-1]
    # The lease is not taken along, so that nobody is named who held it.
    assert (entry.event, entry.by, entry.reason, entry.worker) == (AuditEvent.DELETED, "ada", "because", None)
    if isinstance(store.cold, MemoryStore):  # no store shows the contents of what is deleted
        _, kept = store.cold._deleted[execution_id]
        assert (tuple(kept.steps), tuple(kept.messages)) == (exported.steps, exported.messages)
    assert create(store, input={"a": [1]}, idempotency_key="key") != execution_id
    clock.advance(INSTANT)
    assert store.find_deleted(summary_of(store, create(store)).created_at) == (execution_id,)


@pytest.mark.parametrize(("part", "step"), [("cold", "restore"), ("cold", "delete_context"), ("hot", "purge")])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_deletion_that_died_half_way_is_repeated(
    store: HybridStore, monkeypatch: pytest.MonkeyPatch, part: str, step: str, when: str
) -> None:
    execution_id, _ = claimed(store, idempotency_key="key")
    owner = getattr(store, part)
    method = getattr(owner, step)

    def dying(*args: Any, **fields: Any) -> None:
        if when == "after":
            method(*args, **fields)
        raise Reached

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, dying)
        with pytest.raises(Reached):
            store.delete_context(execution_id)
    # As if nothing had happened, or deleted.
    assert found(store) in ([execution_id], [])
    store.delete_context(execution_id)
    assert (found(store), store.get_context(execution_id), where(store, execution_id)) == ([], None, [])
    assert [entry.event for entry in store.get_audit(execution_id)].count(AuditEvent.DELETED) == 1
    assert create(store, input={"a": [1]}, idempotency_key="key") != execution_id


def test_a_deletion_that_died_and_is_not_repeated_is_finished_at_the_end(
    store: HybridStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id, lease = claimed(store)
    with monkeypatch.context() as patch:
        patch.setattr(store.hot, "purge", die)
        with pytest.raises(Reached):
            store.delete_context(execution_id)
    move(store, execution_id, AgentState.COMPLETED, lease)
    assert store.get_context(execution_id) is None
    assert where(store, execution_id) == []
    assert store.get_audit(execution_id)[-1].event is AuditEvent.DELETED


def test_a_deletion_reaches_an_execution_that_comes_back_at_this_moment(
    store: HybridStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = ended(store, AgentState.FAILED)
    restore = store.hot.restore

    def deleted_first(exported: Any) -> bool:
        monkeypatch.undo()
        assert store.delete_context(execution_id) is True
        return restore(exported)

    monkeypatch.setattr(store.hot, "restore", deleted_first)
    with pytest.raises(ExecutionNotFound):
        store.requeue(execution_id)
    assert where(store, execution_id) == []


def test_one_whose_key_another_archived_one_has_can_be_deleted(store: HybridStore) -> None:
    ended(store, idempotency_key="key")
    twin = create(store.hot, idempotency_key="key")  # by a process that does not know of the cold store
    assert store.delete_context(twin) is True
    assert store.get_audit(twin)[-1].event is AuditEvent.DELETED


class ForgetfulStore(MemoryStore):
    """Keeps nothing that is deleted, as Redis."""

    keeps_deleted = False

    def delete_context(self, execution_id: str, **_: Any) -> bool:
        return self.purge(execution_id)

    def find_deleted(self, before: Any, limit: int = 100) -> tuple[str, ...]:
        return Store.find_deleted(self, before, limit)


@pytest.mark.parametrize("kind", [MemoryStore, ForgetfulStore])
def test_removing_reaches_both_stores(clock: ManualClock, kind: type[MemoryStore], monkeypatch: Any) -> None:
    store = HybridStore(ForgetfulStore(clock=clock), kind(clock=clock))
    assert store.keeps_deleted is kind.keeps_deleted

    def make(place: str) -> str:
        with monkeypatch.context() as patch:
            if place == "both":
                patch.setattr(store.hot, "drop_archived", lambda *_: False)
            return create(store) if place == "hot" else ended(store)

    for place in ("hot", "cold", "both"):
        deleted, purged = make(place), make(place)
        assert where(store, deleted) == ([place] if place != "both" else ["hot", "cold"])
        assert store.delete_context(deleted) is True
        assert store.purge(purged) is True
        assert where(store, deleted) == where(store, purged) == []
        assert bool(store.get_audit(deleted)) is store.keeps_deleted
        assert store.get_audit(purged) == ()
        assert store.purge(deleted) is store.keeps_deleted
        assert store.delete_context(purged) is False
    made = [make(place) for place in ("hot", "cold", "both")]
    store.delete_context(made[0])
    assert store.clear() == 2
    assert [where(store, each) for each in made] == [[], [], []]


def test_letting_go_of_what_another_store_has_reaches_both_stores(store: HybridStore, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store.hot, "drop_archived", lambda *_: False)
        in_both = ended(store)
    for execution_id in (in_both, ended(store)):
        exported = store.export(execution_id)
        assert exported is not None
        version, token, audited = exported.place
        assert store.drop_archived(execution_id, (version - 1, token, audited)) is False
        assert store.drop_archived(execution_id, exported.place) is True
        assert where(store, execution_id) == []
    released = ended(store, AgentState.FAILED)
    exported = store.export(released)
    assert exported is not None
    store.requeue(released)
    assert store.drop_archived(released, exported.place) is False
    assert where(store, released) == ["hot", "cold"]


# -- restoring ---------------------------------------------------------------------------------------------------------


def test_what_is_over_is_restored_into_the_cold_store(store: HybridStore, clock: ManualClock) -> None:
    other = MemoryStore(clock=clock)
    over, active = ended(other), create(other)
    for execution_id, part in ((over, "cold"), (active, "hot")):
        exported = other.export(execution_id)
        assert exported is not None
        assert store.restore(exported) is True
        assert store.restore(exported) is False
        assert where(store, execution_id) == [part]
        assert digest_of(store, execution_id) == exported.digest


def test_a_copy_that_has_not_come_further_than_the_archived_one_is_not_restored(store: HybridStore) -> None:
    execution_id, lease = claimed(store)
    early = store.export(execution_id)
    move(store, execution_id, AgentState.FAILED, lease)
    late = store.export(execution_id)
    assert early is not None
    assert late is not None
    assert store.restore(early) is False
    assert store.restore(late) is False
    assert where(store, execution_id) == ["cold"]
    store.requeue(execution_id)
    assert store.restore(late) is False
    assert summary_of(store, execution_id).state is AgentState.IDLE


def test_a_key_that_an_archived_execution_has_is_taken(store: HybridStore, clock: ManualClock) -> None:
    other = MemoryStore(clock=clock)
    ended(store, idempotency_key="key")
    for execution_id in (create(other, idempotency_key="key"),):
        exported = other.export(execution_id)
        assert exported is not None
        with pytest.raises(IdempotencyKeyTaken):
            store.restore(exported)
    create(store, idempotency_key="hot key")
    exported = other.export(ended(other, idempotency_key="hot key"))
    assert exported is not None
    with pytest.raises(IdempotencyKeyTaken):
        store.restore(exported)
