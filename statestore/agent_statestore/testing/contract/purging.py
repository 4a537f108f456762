"""What deletion hides, and what `purge` and `clear` leave: nothing. And stores that keep deleted executions."""

import pytest

from agent_statestore.checkpoint import Checkpoint, Via
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.errors import ExecutionNotFound, InvalidRecord
from agent_statestore.query import Query
from agent_statestore.records import AuditEntry, AuditEvent, Lease
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.contract.auditing import TEXTS
from agent_statestore.testing.contract.creating import UNKNOWN_IDS
from agent_statestore.testing.contract.removing import filled
from agent_statestore.testing.kit.builders import (
    GRACE,
    INSTANT,
    TTL,
    YEAR,
    answer,
    cancel,
    claim,
    context_of,
    create,
    due_ids,
    event,
    message,
    move,
    pause,
    summary_of,
)
from agent_statestore.testing.kit.suite import Suite

# The situations of an execution when it is removed.
MANNERS = ["leased", "abandoned", "paused", "over", "announcing"]
every_manner = pytest.mark.parametrize("manner", MANNERS)


def lived(store: Store, clock: ManualClock, manner: str) -> tuple[str, Lease, ExportedExecution]:
    """Return an execution with something in every part and every index, the last lease on it, and an export of it."""
    execution_id = filled(store, idempotency_key="key", user_id="u")
    (lease,) = store.find_leases("")
    if manner == "abandoned":
        clock.advance(TTL)
    elif manner == "paused":
        store.checkpoint(execution_id, pause(), lease)
        store.send(execution_id, answer())
    elif manner == "over":
        move(store, execution_id, AgentState.FAILED, lease)
    elif manner == "announcing":
        store.checkpoint(execution_id, Checkpoint(state=AgentState.COMPLETED, announce_within=GRACE), lease)
    exported = store.export(execution_id)
    assert exported is not None
    return execution_id, lease, exported


def assert_hidden(
    store: Store, clock: ManualClock, execution_id: str, lease: Lease, place: tuple[int, int, int]
) -> None:
    """Check that no read and no write finds the execution, of which the store holds no other."""
    later = from_us(clock.now_us()) + YEAR
    assert store.get_context(execution_id) is None
    assert store.get_summary(execution_id) is None
    assert store.get_steps(execution_id) == ()
    assert store.find().items == store.find(Query(session_id="s", user_id="u", agent_id="agent")).items == ()
    assert store.find(Query(states=AgentState)).items == ()
    assert store.get_by_idempotency_key("agent", "key") is None
    assert store.find_ended(later) == ()
    assert store.find_leases("") == ()
    assert store.export(execution_id) is None
    assert store.claim(execution_id, "host:2", TTL) is None
    assert store.renew([lease], TTL).lost == {execution_id}
    assert store.release(lease) is False
    assert store.release(lease, crashed=True) is False
    for change in (Checkpoint(), Checkpoint(messages=(message("x"),)), Checkpoint(state=AgentState.IDLE)):
        with pytest.raises(ExecutionNotFound):
            store.checkpoint(execution_id, change, lease)
        with pytest.raises(ExecutionNotFound):
            store.checkpoint(execution_id, change)
    for sent in (answer(), event(), cancel()):
        with pytest.raises(ExecutionNotFound):
            store.send(execution_id, sent)
    store.mark_rung([(execution_id, lease.token)], TTL, TTL)
    store.settle(execution_id)
    assert store.drop_archived(execution_id, place) is False
    assert store.delete_context(execution_id) is False
    clock.advance(YEAR)
    assert due_ids(store) == []
    assert store.get_context(execution_id) is None


class PurgingConformance(Suite):
    """`delete_context`, `purge`, `clear`."""

    @every_manner
    def test_a_deleted_execution_is_hidden_from_every_read_and_write(
        self, store: Store, clock: ManualClock, manner: str
    ) -> None:
        execution_id, lease, exported = lived(store, clock, manner)
        assert store.delete_context(execution_id, by="ada", reason="because") is True
        assert_hidden(store, clock, execution_id, lease, exported.place)

    @every_manner
    @pytest.mark.parametrize("deleted", [False, True])
    def test_a_purged_execution_is_gone_for_good(
        self, store: Store, clock: ManualClock, manner: str, deleted: bool
    ) -> None:
        execution_id, lease, exported = lived(store, clock, manner)
        assert store.delete_context(execution_id) is True if deleted else store.purge(execution_id) is True
        assert store.purge(execution_id) is (deleted and store.keeps_deleted)
        assert store.purge(execution_id) is False
        assert_hidden(store, clock, execution_id, lease, exported.place)
        assert store.get_audit(execution_id) == ()
        assert store.find_deleted(from_us(clock.now_us())) == ()

    def test_nothing_of_a_purged_execution_comes_up_again_when_its_id_does(self, store: Store) -> None:
        bare = store.export(create(store))
        assert bare is not None
        store.checkpoint(bare.execution_id, Checkpoint(messages=(message("x"),), facts=(1,), working_memory={"a": 1}))
        store.send(bare.execution_id, event())
        store.purge(bare.execution_id)
        assert store.restore(bare) is True
        assert store.export(bare.execution_id) == bare
        context = context_of(store, bare.execution_id)
        assert (context.memory.conversation_history, context.memory.facts, context.signals) == ((), (), ())
        assert context.memory.working_memory == {}

    @pytest.mark.parametrize("execution_id", UNKNOWN_IDS)
    def test_purging_an_unknown_execution_does_nothing(self, store: Store, execution_id: str) -> None:
        kept = create(store)
        assert store.purge(execution_id) is False
        assert store.delete_context(execution_id, by="ada", reason="because") is False
        assert [item.execution_id for item in store.find().items] == [kept]

    def test_purging_touches_no_other_execution(self, store: Store) -> None:
        purged, kept = filled(store, user_id="u"), filled(store, user_id="u")
        before, trail = context_of(store, kept), store.get_audit(kept)
        store.purge(purged)
        assert context_of(store, kept) == before
        assert store.get_audit(kept) == trail
        assert [item.execution_id for item in store.find(Query(session_id="s")).items] == [kept]
        assert [lease.execution_id for lease in store.find_leases("")] == [kept]

    def test_an_idempotency_key_is_free_after_a_purge(self, store: Store) -> None:
        first = create(store, idempotency_key="key")
        store.purge(first)
        second = create(store, idempotency_key="key")
        assert second != first

    def test_purging_what_was_deleted_leaves_the_key_to_its_new_owner(self, store: Store) -> None:
        first = create(store, idempotency_key="key")
        store.delete_context(first)
        second = create(store, idempotency_key="key")
        store.purge(first)
        assert create(store, idempotency_key="key") == second

    def test_an_execution_is_kept_after_its_deletion_exactly_if_the_store_says_so(
        self, store: Store, clock: ManualClock
    ) -> None:
        execution_id = create(store)
        store.delete_context(execution_id)
        clock.advance(INSTANT)
        assert bool(store.find_deleted(from_us(clock.now_us()))) is store.keeps_deleted
        assert bool(store.get_audit(execution_id)) is store.keeps_deleted
        assert store.purge(execution_id) is store.keeps_deleted

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_below_one_is_refused_when_deleted_ones_are_looked_for(
        self, store: Store, clock: ManualClock, limit: int
    ) -> None:
        with pytest.raises(InvalidRecord, match="limit"):
            store.find_deleted(from_us(clock.now_us()), limit)

    def test_clearing_leaves_nothing(self, store: Store, clock: ManualClock) -> None:
        made = [filled(store, idempotency_key=str(number)) for number in range(4)]
        for lease in store.find_leases("")[:2]:
            move(store, lease.execution_id, AgentState.COMPLETED, lease)
        deleted = create(store, idempotency_key="deleted")
        store.delete_context(deleted)
        assert store.clear() == 4
        later = from_us(clock.now_us()) + YEAR
        assert [store.get_audit(execution_id) for execution_id in (*made, deleted)] == [()] * 5
        assert [store.export(execution_id) for execution_id in made] == [None] * 4
        assert store.find_ended(later) == store.find_deleted(later) == ()
        assert store.get_by_idempotency_key("agent", "0") is None
        assert [store.purge(execution_id) for execution_id in (*made, deleted)] == [False] * 5
        assert store.clear() == 0


class KeepsDeletedConformance(Suite):
    """A deleted execution is kept until it is purged. For a store with `keeps_deleted`."""

    @every_manner
    def test_the_trail_of_a_deleted_execution_stays_readable_and_says_who_deleted_it(
        self, store: Store, clock: ManualClock, manner: str
    ) -> None:
        execution_id, lease, _ = lived(store, clock, manner)
        before, state = store.get_audit(execution_id), summary_of(store, execution_id).state
        clock.advance(INSTANT)
        store.delete_context(execution_id, by="ada", reason="because", via=Via(channel="http", os_user="Jörg 🙂"))
        entry = AuditEntry(
            position=len(before) + 1,
            at=from_us(clock.now_us()),
            event=AuditEvent.DELETED,
            from_state=state,
            attempt=1,
            worker=lease.owner if manner == "leased" else None,
            by="ada",
            reason="because",
            channel="http",
            os_user="Jörg 🙂",
        )
        assert store.get_audit(execution_id) == (*before, entry)
        clock.advance(YEAR)
        assert store.delete_context(execution_id, by="bob") is False
        assert store.get_audit(execution_id) == (*before, entry)

    @pytest.mark.parametrize("text", [None, *TEXTS], ids=lambda text: repr(text and text[:10]))
    def test_any_text_says_who_deleted_it_and_why(self, store: Store, text: str | None) -> None:
        execution_id = create(store)
        store.delete_context(execution_id, by=text, reason=text)
        entry = store.get_audit(execution_id)[-1]
        assert (entry.event, entry.by, entry.reason) == (AuditEvent.DELETED, text, text)

    def test_refused_writes_leave_the_trail_of_a_deleted_execution_alone(
        self, store: Store, clock: ManualClock
    ) -> None:
        execution_id, lease, exported = lived(store, clock, "leased")
        store.delete_context(execution_id)
        before = store.get_audit(execution_id)
        assert_hidden(store, clock, execution_id, lease, exported.place)
        assert store.get_audit(execution_id) == before

    def test_the_first_deleted_is_found_first(self, store: Store, clock: ManualClock) -> None:
        made = [create(store) for _ in range(6)]
        in_order = made[3:] + made[:3][::-1]
        for execution_id in in_order:
            store.delete_context(execution_id)
            clock.advance(INSTANT)
        now = from_us(clock.now_us())
        assert store.find_deleted(now) == store.find_deleted(now, 1000) == tuple(in_order)
        assert store.find_deleted(now, 1) == tuple(in_order[:1])
        assert store.find_deleted(now, 4) == tuple(in_order[:4])

    def test_before_is_exclusive_when_deleted_ones_are_looked_for(self, store: Store, clock: ManualClock) -> None:
        execution_id, at = create(store), from_us(clock.now_us())
        assert store.find_deleted(at + YEAR) == ()
        store.delete_context(execution_id)
        assert store.find_deleted(at) == ()
        assert store.find_deleted(at + INSTANT) == (execution_id,)

    def test_what_was_purged_is_not_found_among_the_deleted(self, store: Store, clock: ManualClock) -> None:
        deleted, purged = create(store), create(store)
        later = from_us(clock.now_us()) + YEAR
        store.purge(purged)
        store.delete_context(deleted)
        assert store.find_deleted(later) == (deleted,)
        assert store.purge(deleted) is True
        assert store.find_deleted(later) == ()
        assert store.get_audit(deleted) == ()
        assert store.purge(deleted) is False

    def test_a_deleted_execution_is_restored_only_after_it_was_purged(self, store: Store, clock: ManualClock) -> None:
        execution_id, _, exported = lived(store, clock, "over")
        store.delete_context(execution_id)
        trail = store.get_audit(execution_id)
        assert store.restore(exported) is False
        assert store.get_context(execution_id) is None
        assert store.get_by_idempotency_key("agent", "key") is None
        assert store.get_audit(execution_id) == trail
        store.purge(execution_id)
        assert store.restore(exported) is True
        assert store.export(execution_id) == exported

    def test_several_deleted_executions_may_have_had_one_idempotency_key(
        self, store: Store, clock: ManualClock
    ) -> None:
        made = []
        for _ in range(3):
            made.append(create(store, idempotency_key="key"))
            store.delete_context(made[-1])
            clock.advance(INSTANT)
        assert store.find_deleted(from_us(clock.now_us())) == tuple(made)
        kept = create(store, idempotency_key="key")
        for execution_id in made:
            assert store.purge(execution_id) is True
        assert create(store, idempotency_key="key") == kept
        claim(store, kept)

    def test_clearing_purges_what_was_deleted_without_counting_it(self, store: Store, clock: ManualClock) -> None:
        deleted, _ = create(store), create(store)
        store.delete_context(deleted)
        assert store.clear() == 1
        clock.advance(INSTANT)
        assert store.find_deleted(from_us(clock.now_us())) == ()
        assert store.get_audit(deleted) == ()
        assert store.purge(deleted) is False
