"""Races between removals, replacements by another copy, and writers."""

from collections.abc import Iterator
from functools import partial

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import ExecutionNotFound, ExecutionOver, IdempotencyKeyTaken, LeaseLost
from agent_statestore.query import Query
from agent_statestore.records import AgentContext, AuditEvent, Claim, Sent
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.contract.auditing import assert_chained
from agent_statestore.testing.contract.ending import ended
from agent_statestore.testing.contract.moving import assert_arrived
from agent_statestore.testing.kit.builders import (
    INSTANT,
    TTL,
    YEAR,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    done,
    event,
    message,
    stamped,
    summary_of,
)
from agent_statestore.testing.kit.stories import SITUATIONS, export_of
from agent_statestore.testing.kit.suite import Suite
from agent_statestore.testing.kit.together import all_succeeded, raised, together

THREADS = 4
ROUNDS = 10


def change(number: int) -> Checkpoint:
    """Return a write of which a half would show."""
    return Checkpoint(
        steps=(done(number),),
        messages=(message(number),),
        working_memory={"n": number},
        facts=(number,),
        state=(AgentState.THINKING, AgentState.USING_TOOL)[number % 2],
    )


def assert_no_trace(store: Store, clock: ManualClock, execution_id: str) -> None:
    """Check that no read finds anything of the execution, except a trail that ends with its deletion."""
    assert store.get_context(execution_id) is None
    assert store.get_steps(execution_id) == ()
    assert store.export(execution_id) is None
    assert store.find(Query(session_id="s")).items == ()
    assert store.find_ended(from_us(clock.now_us()) + YEAR) == ()
    assert store.find_leases("") == ()
    trail = store.get_audit(execution_id)
    assert bool(trail) is store.keeps_deleted
    assert_chained(trail)
    assert [entry.event is AuditEvent.DELETED for entry in trail] == [False] * (len(trail) - 1) + [True] * bool(trail)


def newer_copies(store: Store, other_store: Store, rounds: int = ROUNDS) -> Iterator[str]:
    """Yield executions of which `other_store` has a newer copy."""
    for _ in range(rounds):
        execution_id = create(store, session_id="s")
        other_store.restore(export_of(store, execution_id))
        for number in range(1, 5):
            other_store.checkpoint(execution_id, change(number))
        yield execution_id


class RemovalRaceConformance(Suite):
    """Threads that remove, restore and write."""

    def test_of_several_removals_exactly_one_counts(self, store: Store) -> None:
        for _ in range(ROUNDS):
            execution_id = create(store)
            outcomes = all_succeeded(together(*(partial(store.delete_context, execution_id) for _ in range(THREADS))))
            assert sorted(outcomes) == [False] * (THREADS - 1) + [True]
            assert [entry.event for entry in store.get_audit(execution_id)].count(AuditEvent.DELETED) <= 1
            execution_id = create(store)
            outcomes = all_succeeded(together(*(partial(store.purge, execution_id) for _ in range(THREADS))))
            assert sorted(outcomes) == [False] * (THREADS - 1) + [True]
            assert store.get_audit(execution_id) == ()

    def test_a_deletion_at_the_moment_of_other_writes_leaves_no_half(self, store: Store, clock: ManualClock) -> None:
        for number in range(ROUNDS):
            execution_id, lease = claimed(store, session_id="s")
            end = Checkpoint(state=AgentState.COMPLETED, steps=(done(1),), facts=(1,))
            outcomes = together(
                partial(store.delete_context, execution_id),
                partial(store.checkpoint, execution_id, (end, change(1))[number % 2], lease),
                partial(store.send, execution_id, cancel()),
            )
            assert outcomes[0] is True
            assert set(raised(outcomes)) <= {ExecutionNotFound, ExecutionOver}
            assert_no_trace(store, clock, execution_id)

    def test_a_purge_at_the_moment_of_other_writes_leaves_nothing(self, store: Store) -> None:
        for _ in range(ROUNDS):
            execution_id = create(store, session_id="s")
            outcomes = together(
                partial(store.purge, execution_id),
                partial(store.claim, execution_id, "host:1", TTL),
                partial(store.send, execution_id, cancel()),
            )
            assert outcomes[0] is True
            assert set(raised(outcomes)) <= {ExecutionNotFound}
            assert store.get_audit(execution_id) == ()
            assert store.get_context(execution_id) is None
            assert store.find_leases("") == ()
            assert store.purge(execution_id) is False

    def test_a_key_at_the_moment_of_the_deletion_leads_to_the_deleted_or_to_a_new_one(self, store: Store) -> None:
        for number in range(ROUNDS):
            execution_id = create(store, idempotency_key=str(number))
            deleted, made = together(
                partial(store.delete_context, execution_id),
                partial(store.create_context, "agent", idempotency_key=str(number)),
            )
            assert deleted is True
            assert isinstance(made, AgentContext)
            found = store.get_by_idempotency_key("agent", str(number))
            assert found == (None if made.execution_id == execution_id else made)

    # -- copies --------------------------------------------------------------------------------------------------------

    def test_of_several_restores_of_one_copy_exactly_one_counts(
        self, store: Store, other_store: Store, clock: ManualClock
    ) -> None:
        for situation in ("everything", "completed", "answered"):
            exported = export_of(other_store, SITUATIONS[situation](other_store, clock))
            outcomes = all_succeeded(together(*(partial(store.restore, exported) for _ in range(THREADS))))
            assert sorted(outcomes) == [False] * (THREADS - 1) + [True]
            assert_arrived(store, exported, other_store)
            store.clear()

    def test_of_an_older_and_a_newer_copy_the_newer_one_stays(self, store: Store, other_store: Store) -> None:
        for execution_id in newer_copies(store, other_store):
            older, newer = export_of(store, execution_id), export_of(other_store, execution_id)
            store.purge(execution_id)
            outcomes = all_succeeded(together(partial(store.restore, older), partial(store.restore, newer)))
            assert outcomes[1] is True
            assert export_of(store, execution_id) == newer

    def test_of_two_executions_with_one_key_exactly_one_is_restored(self, store: Store, other_store: Store) -> None:
        for number in range(ROUNDS):
            first = export_of(other_store, create(other_store, idempotency_key=str(number)))
            other_store.purge(first.execution_id)
            second = export_of(other_store, create(other_store, idempotency_key=str(number)))
            outcomes = together(partial(store.restore, first), partial(store.restore, second))
            assert raised(outcomes) == [IdempotencyKeyTaken]
            won = first if outcomes[0] is True else second
            found = store.get_by_idempotency_key("agent", str(number))
            assert found is not None
            assert found.execution_id == won.execution_id
        assert len(store.find(Query(limit=100)).items) == ROUNDS

    def test_of_a_claim_and_a_restore_the_later_sees_the_earlier(self, store: Store, other_store: Store) -> None:
        for execution_id in newer_copies(store, other_store):
            newer = export_of(other_store, execution_id)
            restored, claimed_now = together(
                partial(store.restore, newer), partial(store.claim, execution_id, "host:1", TTL)
            )
            assert isinstance(claimed_now, Claim)
            assert len(claimed_now.context.steps) == claimed_now.context.version == (4 if restored is True else 0)
            store.checkpoint(execution_id, Checkpoint(), claimed_now.lease)
            assert_chained(store.get_audit(execution_id))

    def test_a_write_at_the_moment_of_a_restore_is_whole_or_gone(self, store: Store, other_store: Store) -> None:
        for execution_id in newer_copies(store, other_store):
            newer = export_of(other_store, execution_id)
            restored, _ = together(
                partial(store.restore, newer),
                partial(store.checkpoint, execution_id, Checkpoint(messages=(message(0),), facts=(0,))),
            )
            assert restored is True
            context = context_of(store, execution_id)
            contents = [item.content for item in context.memory.conversation_history]
            assert contents == list(context.memory.facts)
            assert contents in ([1, 2, 3, 4], [1, 2, 3, 4, 0])
            assert context.version == len(contents)
            assert len(context.steps) == 4
            assert_chained(store.get_audit(execution_id))

    def test_an_export_at_the_moment_of_other_writes_is_whole(self, store: Store, other_store: Store) -> None:
        execution_id, lease = claimed(store)

        def write() -> None:
            for number in range(1, ROUNDS + 1):
                store.checkpoint(execution_id, change(number), lease)
                store.send(execution_id, event(number))
                store.send(execution_id, cancel())

        def read() -> None:
            for _ in range(ROUNDS):
                exported = export_of(store, execution_id)
                version = exported.header["version"]
                assert len(exported.steps) == len(exported.messages) == len(exported.facts) == version
                assert exported.working_memory == ((("n", str(version)),) if version else ())
                decided = [row for row in exported.audit if row.event == AuditEvent.DECIDED]
                cancels = [item for item in exported.signals if item.kind == "cancel"]
                assert len(decided) == len(cancels)
                assert bool(exported.header["cancel_requested"]) is bool(cancels)
                events = len(exported.signals) - len(cancels)
                assert version >= events >= len(cancels) >= version - 1
                other_store.purge(execution_id)
                assert other_store.restore(exported) is True

        all_succeeded(together(write, read))
        assert len(context_of(store, execution_id).signals) == 2 * ROUNDS

    def test_a_signal_at_the_moment_of_an_export_is_never_lost(self, store: Store, clock: ManualClock) -> None:
        for _ in range(ROUNDS):
            execution_id = create(store)
            sent = stamped(event(), clock)
            outcomes = together(partial(store.send, execution_id, sent), partial(export_of, store, execution_id))
            assert isinstance(outcomes[0], Sent)
            assert not isinstance(outcomes[1], Exception)
            assert context_of(store, execution_id).signals == (sent,)

    # -- archives ------------------------------------------------------------------------------------------------------

    def test_a_release_at_the_moment_it_is_let_go_of_is_refused_or_kept(self, store: Store) -> None:
        for _ in range(ROUNDS):
            execution_id = ended(store, AgentState.FAILED)
            place = export_of(store, execution_id).place
            dropped, released = together(
                partial(store.drop_archived, execution_id, place), partial(store.requeue, execution_id)
            )
            if isinstance(released, Exception):
                assert isinstance(released, ExecutionNotFound)
                assert dropped is True
                assert store.get_context(execution_id) is None
            else:
                assert summary_of(store, execution_id).state is AgentState.IDLE
                assert claim(store, execution_id).lease.token == 2
            store.purge(execution_id)

    def test_of_several_archivers_none_lets_go_of_what_it_has_no_copy_of(
        self, store: Store, other_store: Store, clock: ManualClock
    ) -> None:
        made = {ended(store) for _ in range(12)}
        clock.advance(INSTANT)
        now = from_us(clock.now_us())

        def archive() -> None:
            while batch := store.find_ended(now, limit=3):
                for execution_id in batch:
                    exported = store.export(execution_id)
                    if exported is not None:
                        other_store.restore(exported)
                        store.drop_archived(execution_id, exported.place)

        all_succeeded(together(*(archive for _ in range(THREADS))))
        assert store.find_ended(now) == ()
        assert set(other_store.find_ended(now)) == made

    def test_a_stale_worker_writes_nothing_while_a_copy_is_restored(
        self, store: Store, other_store: Store, clock: ManualClock
    ) -> None:
        for execution_id in newer_copies(store, other_store):
            lease = claim(store, execution_id).lease
            clock.advance(TTL)
            outcomes = together(
                partial(store.restore, export_of(other_store, execution_id)),
                partial(store.checkpoint, execution_id, Checkpoint(facts=("stale",)), lease),
            )
            assert outcomes[0] is True
            assert raised(outcomes) == [LeaseLost]
            assert context_of(store, execution_id).memory.facts == (1, 2, 3, 4)
