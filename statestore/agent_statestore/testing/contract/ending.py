"""The time when an execution was over, and the search for those that have been over for long."""

from datetime import timedelta

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import WaitKind
from agent_statestore.states import ACTIVE, OVER, AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    GRACE,
    INSTANT,
    TTL,
    YEAR,
    claim,
    claimed,
    context_of,
    create,
    due_ids,
    move,
    pause,
    summary_of,
)
from agent_statestore.testing.kit.suite import Suite

every_end = pytest.mark.parametrize("over", sorted(OVER))


def ended(store: Store, over: AgentState = AgentState.COMPLETED) -> str:
    """Return an execution that is over, and about which nothing more must be announced."""
    execution_id, lease = claimed(store)
    move(store, execution_id, over, lease)
    return execution_id


class EndingConformance(Suite):
    """`ended_at` and `find_ended`."""

    @every_end
    def test_an_end_has_its_time(self, store: Store, clock: ManualClock, over: AgentState) -> None:
        execution_id, lease = claimed(store)
        clock.advance(INSTANT)
        at = from_us(clock.now_us())
        store.checkpoint(execution_id, Checkpoint(state=over, announce_within=GRACE), lease)
        clock.advance(YEAR)
        due_ids(store)
        store.settle(execution_id)
        assert summary_of(store, execution_id).ended_at == at
        assert context_of(store, execution_id).ended_at == at
        assert store.find().items[0].ended_at == at

    @pytest.mark.parametrize("state", sorted(ACTIVE))
    def test_what_is_not_over_has_no_end(self, store: Store, state: AgentState) -> None:
        execution_id = create(store)
        assert context_of(store, execution_id).ended_at is None
        move(store, execution_id, state)
        assert context_of(store, execution_id).ended_at is None

    def test_a_released_execution_has_no_end_until_it_ends_again(self, store: Store, clock: ManualClock) -> None:
        execution_id = ended(store, AgentState.FAILED)
        later = from_us(clock.now_us()) + YEAR
        assert store.find_ended(later) == (execution_id,)
        clock.advance(INSTANT)
        store.requeue(execution_id)
        assert summary_of(store, execution_id).ended_at is None
        assert store.find_ended(later) == ()
        lease = claim(store, execution_id).lease
        assert store.find_ended(later) == ()
        clock.advance(INSTANT)
        move(store, execution_id, AgentState.COMPLETED, lease)
        assert summary_of(store, execution_id).ended_at == from_us(clock.now_us())
        assert store.find_ended(later) == (execution_id,)

    # -- find_ended ----------------------------------------------------------------------------------------------------

    def test_the_longest_over_is_found_first(self, store: Store, clock: ManualClock) -> None:
        made = [create(store) for _ in range(7)]
        in_order = made[4:] + made[:4][::-1]
        for number, execution_id in enumerate(in_order):
            move(store, execution_id, sorted(OVER)[number % 3])
            clock.advance(INSTANT)
        assert store.find_ended(from_us(clock.now_us())) == tuple(in_order)

    def test_before_is_exclusive(self, store: Store, clock: ManualClock) -> None:
        execution_id, at = ended(store), from_us(clock.now_us())
        assert store.find_ended(at) == ()
        assert store.find_ended(at - YEAR) == ()
        assert store.find_ended(at + INSTANT) == (execution_id,)

    def test_states_restrict_what_is_found(self, store: Store, clock: ManualClock) -> None:
        made = {}
        for over in sorted(OVER):
            made[over] = ended(store, over)
            clock.advance(INSTANT)
        now = from_us(clock.now_us())
        for over in OVER:
            assert store.find_ended(now, states=[over]) == (made[over],)
        both = [AgentState.FAILED, AgentState.COMPLETED]
        assert store.find_ended(now, states=iter(both)) == (made[AgentState.COMPLETED], made[AgentState.FAILED])
        assert store.find_ended(now, states=OVER) == store.find_ended(now) == tuple(made.values())
        assert store.find_ended(now, states=[]) == ()

    def test_a_limit_keeps_the_longest_over(self, store: Store, clock: ManualClock) -> None:
        made = []
        for number in range(6):
            made.append(ended(store, (AgentState.FAILED, AgentState.COMPLETED)[number % 2]))
            clock.advance(INSTANT)
        now = from_us(clock.now_us())
        assert store.find_ended(now, limit=1) == tuple(made[:1])
        assert store.find_ended(now, limit=4) == tuple(made[:4])
        assert store.find_ended(now, limit=1000) == tuple(made)
        assert store.find_ended(now, states=[AgentState.COMPLETED], limit=2) == (made[1], made[3])
        since = summary_of(store, made[3]).ended_at
        assert store.find_ended(now, after=since, limit=2) == tuple(made[3:5])
        assert store.find_ended(now, after=since) == tuple(made[3:])
        assert store.find_ended(now, after=now) == ()

    def test_a_limit_cuts_also_what_ended_at_one_moment(self, store: Store, clock: ManualClock) -> None:
        made = {ended(store) for _ in range(5)}
        clock.advance(INSTANT)
        now = from_us(clock.now_us())
        few = store.find_ended(now, limit=3)
        assert len(few) == len(set(few)) == 3
        assert set(few) < made
        assert set(store.find_ended(now)) == made

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_below_one_is_refused_when_ends_are_looked_for(
        self, store: Store, clock: ManualClock, limit: int
    ) -> None:
        with pytest.raises(InvalidRecord, match="limit"):
            store.find_ended(from_us(clock.now_us()), limit=limit)

    def test_an_end_that_is_to_be_announced_is_found_once_it_is_settled(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        change = Checkpoint(state=AgentState.COMPLETED, announce_within=timedelta(seconds=5))
        store.checkpoint(execution_id, change, lease)
        clock.advance(timedelta(seconds=1))
        assert store.find_ended(from_us(clock.now_us())) == ()
        clock.advance(timedelta(seconds=10))
        assert store.find_ended(from_us(clock.now_us())) == ()
        assert due_ids(store) == [execution_id]
        store.mark_rung([(execution_id, lease.token)], TTL, TTL)
        assert store.find_ended(from_us(clock.now_us())) == ()
        store.settle(execution_id)
        assert store.find_ended(from_us(clock.now_us())) == (execution_id,)

    def test_what_is_not_over_is_not_found(self, store: Store, clock: ManualClock) -> None:
        create(store)
        claimed(store)
        paused, lease = claimed(store)
        store.checkpoint(paused, pause(WaitKind.EVENT), lease)
        clock.advance(YEAR)
        assert store.find_ended(from_us(clock.now_us())) == ()
        assert store.find_ended(from_us(clock.now_us()), states=AgentState) == ()

    def test_what_was_removed_is_not_found(self, store: Store, clock: ManualClock) -> None:
        deleted, purged, kept = ended(store), ended(store), ended(store, AgentState.FAILED)
        store.delete_context(deleted)
        store.purge(purged)
        clock.advance(YEAR)
        assert store.find_ended(from_us(clock.now_us())) == (kept,)
        store.clear()
        assert store.find_ended(from_us(clock.now_us())) == ()
