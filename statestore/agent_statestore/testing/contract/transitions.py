"""The state machine, arrow by arrow, and what the end of an execution does."""

from datetime import timedelta

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import ExecutionOver, IllegalTransition
from agent_statestore.states import OVER, TRANSITIONS, AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    BOOM,
    TTL,
    claim,
    claimed,
    context_of,
    create,
    done,
    due_ids,
    move,
    summary_of,
)
from agent_statestore.testing.kit.matrix import cells
from agent_statestore.testing.kit.suite import Suite

WORKING = (AgentState.THINKING, AgentState.USING_TOOL)
STATES: dict[str, AgentState] = {state.value: state for state in AgentState}
every_end = pytest.mark.parametrize("over", sorted(OVER))


class TransitionConformance(Suite):
    """States."""

    @cells(current=STATES, new=STATES)
    def test_exactly_the_declared_arrows_exist(self, store: Store, current: AgentState, new: AgentState) -> None:
        execution_id = create(store)
        if current is not AgentState.IDLE:
            move(store, execution_id, current)
        before = context_of(store, execution_id)
        if new in TRANSITIONS[current]:
            move(store, execution_id, new)
            assert context_of(store, execution_id).state is new
            assert context_of(store, execution_id).version == before.version + 1
            return
        with pytest.raises(ExecutionOver if current.is_over else IllegalTransition):
            move(store, execution_id, new)
        assert context_of(store, execution_id) == before

    @pytest.mark.parametrize("new", AgentState)
    @pytest.mark.parametrize("current", WORKING)
    def test_the_holder_of_the_lease_follows_the_same_arrows(
        self, store: Store, current: AgentState, new: AgentState
    ) -> None:
        execution_id, lease = claimed(store)
        move(store, execution_id, current, lease)
        before = context_of(store, execution_id)
        if new in TRANSITIONS[current]:
            move(store, execution_id, new, lease)
            assert context_of(store, execution_id).state is new
            return
        with pytest.raises(IllegalTransition) as refused:
            move(store, execution_id, new, lease)
        assert (refused.value.current, refused.value.new) == (current.value, new.value)
        assert context_of(store, execution_id) == before

    def test_a_write_without_a_state_keeps_it(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        move(store, execution_id, AgentState.USING_TOOL, lease)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        assert summary_of(store, execution_id).state is AgentState.USING_TOOL

    @pytest.mark.parametrize("state", WORKING)
    @pytest.mark.parametrize("scheduled", [False, True])
    def test_a_working_state_that_is_written_without_a_lease_is_due_and_claimable_at_once(
        self, store: Store, clock: ManualClock, state: AgentState, scheduled: bool
    ) -> None:
        execution_id = create(store, start_at=from_us(clock.now_us()) + timedelta(days=1) if scheduled else None)
        if not scheduled:
            move(store, execution_id, AgentState.WAITING)
        clock.advance(TTL)
        store.update_state(execution_id, state)
        summary = summary_of(store, execution_id)
        assert (summary.state, summary.waiting, summary.due_at) == (state, None, from_us(clock.now_us()))
        assert due_ids(store) == [execution_id]
        claim(store, execution_id)

    def test_an_output_is_kept(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.update_state(execution_id, AgentState.COMPLETED, output={"text": ["hi"]}, lease=lease)
        context = context_of(store, execution_id)
        assert (context.output, context.error) == ({"text": ["hi"]}, None)

    def test_an_error_is_kept_whole(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.update_state(execution_id, AgentState.FAILED, error=BOOM, lease=lease)
        assert context_of(store, execution_id).error == BOOM
        assert summary_of(store, execution_id).error == BOOM

    @every_end
    def test_the_end_gives_the_lease_back_and_nothing_is_due(
        self, store: Store, clock: ManualClock, over: AgentState
    ) -> None:
        execution_id, lease = claimed(store)
        move(store, execution_id, over, lease)
        summary = summary_of(store, execution_id)
        assert (summary.owner, summary.lease_expires_at, summary.due_at) == (None, None, None)
        assert store.renew([lease], TTL).lost == {execution_id}
        assert store.release(lease) is False
        clock.advance(timedelta(days=365))
        assert due_ids(store) == []

    @every_end
    def test_the_end_is_announced_once_more_until_it_is_settled(
        self, store: Store, clock: ManualClock, over: AgentState
    ) -> None:
        execution_id, lease = claimed(store)
        within = timedelta(seconds=20)
        store.checkpoint(execution_id, Checkpoint(state=over, announce_within=within), lease)
        assert summary_of(store, execution_id).due_at == from_us(clock.now_us()) + within
        clock.advance(within)
        (due,) = store.take_due(10, TTL)
        assert (due.execution_id, due.over, due.token) == (execution_id, True, 1)
        clock.advance(TTL)
        assert due_ids(store) == [execution_id]
        store.settle(execution_id)
        store.settle(execution_id)
        assert summary_of(store, execution_id).due_at is None
        clock.advance(timedelta(days=365))
        assert due_ids(store) == []

    def test_only_what_is_over_can_be_settled(self, store: Store) -> None:
        execution_id, _ = claimed(store)
        before = context_of(store, execution_id)
        store.settle(execution_id)
        assert context_of(store, execution_id) == before

    def test_a_failed_execution_is_released_with_its_steps(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),), working_memory={"a": 1}), lease)
        for _ in range(3):
            clock.advance(TTL)
            lease = claim(store, execution_id).lease
        assert summary_of(store, execution_id).crashes == 3
        store.update_state(execution_id, AgentState.FAILED, error=BOOM, lease=lease)
        store.requeue(execution_id)
        context = context_of(store, execution_id)
        assert (context.state, context.error, context.output, context.crashes) == (AgentState.IDLE, None, None, 0)
        assert (context.steps, context.memory.working_memory) == ((done(1),), {"a": 1})
        assert context.due_at == from_us(clock.now_us())
        (due,) = store.take_due(10, TTL)
        assert (due.execution_id, due.rings, due.over) == (execution_id, 0, False)
        assert claim(store, execution_id).lease.token == 5

    def test_a_released_execution_has_its_rings_set_back(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(state=AgentState.FAILED, error=BOOM, announce_within=TTL), lease)
        store.mark_rung([(execution_id, lease.token)], TTL, TTL)
        store.requeue(execution_id)
        assert store.take_due(1, TTL)[0].rings == 0

    def test_a_released_execution_lives_through_a_second_life(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.update_state(execution_id, AgentState.FAILED, error=BOOM, lease=lease)
        store.requeue(execution_id)
        lease = claim(store, execution_id).lease
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        store.update_state(execution_id, AgentState.COMPLETED, output=1, lease=lease)
        context = context_of(store, execution_id)
        assert (context.state, context.output, context.error) == (AgentState.COMPLETED, 1, None)

    @pytest.mark.parametrize("state", [AgentState.COMPLETED, AgentState.CANCELLED])
    def test_what_ended_well_or_was_cancelled_is_never_released(self, store: Store, state: AgentState) -> None:
        execution_id = create(store)
        move(store, execution_id, state)
        with pytest.raises(ExecutionOver):
            store.requeue(execution_id)
        assert summary_of(store, execution_id).state is state

    def test_it_can_continue_until_it_is_over_or_cancelled_or_out_of_steps(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        assert store.can_continue(execution_id)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1), done(2))), lease)
        assert store.can_continue(execution_id, max_steps=3)
        assert not store.can_continue(execution_id, max_steps=2)
        store.update_state(execution_id, AgentState.COMPLETED, lease=lease)
        assert not store.can_continue(execution_id)
