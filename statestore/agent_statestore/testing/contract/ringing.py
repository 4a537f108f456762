"""The bells of recovery: `take_due` and `mark_rung`."""

from datetime import timedelta

import pytest

from agent_statestore.checkpoint import NewExecution
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import Due, WaitKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    GRACE,
    INSTANT,
    TTL,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    due_ids,
    pause,
    summary_of,
)
from agent_statestore.testing.kit.suite import Suite

FIRST, MAXIMUM = timedelta(seconds=10), timedelta(seconds=60)
NEW = timedelta(seconds=10)  # the default grace of a new execution


class RingingConformance(Suite):
    """Sweeping."""

    def test_a_due_execution_carries_what_its_bell_needs(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store, "agent", queue="gpu", priority=3)
        clock.advance(NEW)
        assert store.take_due(10, GRACE) == (
            Due(
                execution_id=execution_id,
                agent_id="agent",
                queue="gpu",
                priority=3,
                token=0,
                rings=0,
                cancel_requested=False,
                over=False,
            ),
        )
        bare = create(store, "bare")
        store.send(bare, cancel())
        (due,) = store.take_due(10, GRACE)
        assert (due.execution_id, due.queue, due.priority, due.cancel_requested) == (bare, None, None, True)

    def test_taking_moves_it_on_by_the_grace(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        clock.advance(NEW)
        assert due_ids(store) == [execution_id]
        assert summary_of(store, execution_id).due_at == from_us(clock.now_us()) + GRACE
        clock.advance(GRACE - INSTANT)
        assert due_ids(store) == []
        clock.advance(INSTANT)
        assert due_ids(store) == [execution_id]

    def test_taking_changes_nothing_else(self, store: Store, clock: ManualClock) -> None:
        execution_id, _ = claimed(store)
        clock.advance(TTL)
        before = context_of(store, execution_id)
        store.take_due(10, GRACE)
        after = context_of(store, execution_id)
        assert (after.state, after.version, after.attempt, after.crashes, after.owner) == (
            before.state,
            before.version,
            before.attempt,
            before.crashes,
            before.owner,
        )

    def test_a_limit_leaves_the_rest_for_the_next_call(self, store: Store, clock: ManualClock) -> None:
        made = {create(store) for _ in range(7)}
        clock.advance(NEW)
        taken = [due_ids(store, limit=3) for _ in range(4)]
        assert [len(part) for part in taken] == [3, 3, 1, 0]
        assert {execution_id for part in taken for execution_id in part} == made

    def test_an_abandoned_claim_is_due_when_its_lease_ends(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        clock.advance(TTL - INSTANT)
        store.renew([lease], TTL)
        clock.advance(TTL - INSTANT)
        assert due_ids(store) == []
        clock.advance(INSTANT)
        (due,) = store.take_due(10, GRACE)
        assert (due.execution_id, due.token) == (execution_id, 1)

    def test_each_further_ring_waits_twice_as_long_up_to_the_maximum(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        waits = []
        for _ in range(5):
            store.mark_rung([(execution_id, 0)], FIRST, MAXIMUM)
            due_at = summary_of(store, execution_id).due_at
            assert due_at is not None
            waits.append((due_at - from_us(clock.now_us())).total_seconds())
            clock.advance(due_at - from_us(clock.now_us()))
            (due,) = store.take_due(1, GRACE)
            assert due.rings == len(waits)
        assert waits == [10, 20, 40, 60, 60]

    def test_one_that_is_created_as_rung_waits_as_if_it_were(self, store: Store, clock: ManualClock) -> None:
        new = NewExecution(agent_id="agent", first_ring=FIRST, rings=1)
        execution_id = store.create(new).execution_id
        assert due_ids(store) == []
        clock.advance(FIRST)
        (due,) = store.take_due(10, GRACE)
        assert (due.execution_id, due.rings) == (execution_id, 1)
        store.mark_rung([(execution_id, 0)], FIRST, MAXIMUM)
        assert summary_of(store, execution_id).due_at == from_us(clock.now_us()) + 2 * FIRST
        store.mark_rung([(execution_id, 0)], timedelta(0), timedelta(0))
        assert due_ids(store) == [execution_id]
        for rings in (-1, 2, True, "1", None):
            with pytest.raises(InvalidRecord):
                NewExecution(agent_id="agent", rings=rings)  # type: ignore[arg-type]

    def test_a_hundred_rings_still_wait_the_maximum(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        for _ in range(100):
            store.mark_rung([(execution_id, 0)], FIRST, MAXIMUM)
        assert summary_of(store, execution_id).due_at == from_us(clock.now_us()) + MAXIMUM

    def test_many_are_marked_at_once_and_unknown_ones_are_harmless(self, store: Store, clock: ManualClock) -> None:
        made = [create(store) for _ in range(5)]
        store.mark_rung(iter([("unknown", 0), *((execution_id, 0) for execution_id in made)]), MAXIMUM, MAXIMUM)
        store.mark_rung([], FIRST, MAXIMUM)
        clock.advance(MAXIMUM - INSTANT)
        assert due_ids(store) == []
        clock.advance(INSTANT)
        assert sorted(due_ids(store)) == sorted(made)

    def test_an_execution_that_was_claimed_meanwhile_is_not_marked(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        before = context_of(store, execution_id)
        store.mark_rung([(execution_id, 0)], FIRST, MAXIMUM)
        assert context_of(store, execution_id) == before
        store.release(lease)
        store.mark_rung([(execution_id, 0)], FIRST, MAXIMUM)
        (due,) = store.take_due(1, GRACE)
        assert (due.execution_id, due.token, due.rings) == (execution_id, 1, 0)
        store.mark_rung([(execution_id, 1)], FIRST, MAXIMUM)
        assert summary_of(store, execution_id).due_at == from_us(clock.now_us()) + FIRST

    def test_a_start_time_and_a_timer_are_not_moved_by_a_ring(self, store: Store, clock: ManualClock) -> None:
        later = from_us(clock.now_us()) + timedelta(hours=5)
        queued = create(store, start_at=later)
        paused, lease = claimed(store)
        store.checkpoint(paused, pause(kind=WaitKind.TIMER, wake_at=later), lease)
        store.mark_rung([(queued, 0), (paused, lease.token)], FIRST, MAXIMUM)
        assert [summary_of(store, execution_id).due_at for execution_id in (queued, paused)] == [later, later]

    def test_an_execution_under_a_living_lease_is_not_marked(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.mark_rung([(execution_id, lease.token)], FIRST, MAXIMUM)
        assert summary_of(store, execution_id).due_at == lease.expires_at

    @pytest.mark.parametrize("over", [False, True])
    def test_an_execution_that_is_not_due_for_anything_is_not_marked(self, store: Store, over: bool) -> None:
        execution_id, lease = claimed(store)
        if over:
            store.update_state(execution_id, AgentState.COMPLETED, lease=lease)
        else:
            store.checkpoint(execution_id, pause(WaitKind.EVENT), lease)
        store.mark_rung([(execution_id, lease.token)], FIRST, MAXIMUM)
        assert summary_of(store, execution_id).due_at is None

    def test_giving_a_lease_back_sets_the_rings_back(self, store: Store) -> None:
        execution_id = create(store)
        for _ in range(3):
            store.mark_rung([(execution_id, 0)], FIRST, MAXIMUM)
        lease = claim(store, execution_id).lease
        store.release(lease)
        assert store.take_due(1, GRACE)[0].rings == 0
