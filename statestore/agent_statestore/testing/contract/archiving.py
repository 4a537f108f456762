"""`drop_archived`: a store lets go of an execution of which another one has a copy."""

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.query import Query
from agent_statestore.states import OVER, AgentState
from agent_statestore.store import Store
from agent_statestore.testing.contract.creating import UNKNOWN_IDS
from agent_statestore.testing.contract.ending import ended, every_end
from agent_statestore.testing.kit.builders import (
    GRACE,
    INSTANT,
    YEAR,
    claimed,
    context_of,
    create,
    due_ids,
    move,
    summary_of,
)
from agent_statestore.testing.kit.stories import SITUATIONS, export_of
from agent_statestore.testing.kit.suite import Suite

every_holding = pytest.mark.parametrize("held", [False, True])


class ArchivingConformance(Suite):
    """Archives, from the side of the store that is emptied."""

    def test_finished_executions_are_held_from_the_call_on(self, store: Store) -> None:
        store.hold_finished()
        assert store.holds_finished is True
        store.hold_finished()
        assert store.holds_finished is True

    @every_holding
    @every_end
    def test_what_was_archived_is_let_go_of(
        self, store: Store, clock: ManualClock, over: AgentState, held: bool
    ) -> None:
        if held:
            store.hold_finished()
        execution_id = ended(store, over)
        kept = ended(store, over)
        clock.advance(INSTANT)
        now = from_us(clock.now_us())
        place = export_of(store, execution_id).place
        assert store.drop_archived(execution_id, place) is True
        assert store.find_ended(now) == (kept,)
        store.drop_archived(execution_id, place)  # the archiver may have died before it heard the first answer
        assert store.find_ended(now) == (kept,)
        clock.advance(YEAR)
        assert due_ids(store) == []
        assert context_of(store, kept).state is over

    @every_holding
    def test_an_execution_is_let_go_of_at_exactly_the_place_of_the_copy(
        self, store: Store, clock: ManualClock, held: bool
    ) -> None:
        if held:
            store.hold_finished()
        execution_id = SITUATIONS["everything"](store, clock)
        store.settle(execution_id)
        before = export_of(store, execution_id)
        version, token, audited = before.place
        for place in (
            *((version - 1, token, audited), (version + 1, token, audited)),
            *((version, token - 1, audited), (version, token + 1, audited)),
            *((version, token, audited - 1), (version, token, audited + 1)),
            *((0, 0, 0), (audited, token, version)),
        ):
            assert store.drop_archived(execution_id, place) is False
            assert export_of(store, execution_id) == before
            assert store.find_ended(from_us(clock.now_us())) == (execution_id,)
        assert store.drop_archived(execution_id, before.place) is True
        assert store.find_ended(from_us(clock.now_us())) == ()

    @pytest.mark.parametrize("situation", sorted(set(SITUATIONS) - {"completed", "without output"}))
    def test_what_is_not_over_or_not_announced_is_kept(self, store: Store, clock: ManualClock, situation: str) -> None:
        execution_id = SITUATIONS[situation](store, clock)
        before = export_of(store, execution_id)
        assert store.drop_archived(execution_id, before.place) is False
        assert export_of(store, execution_id) == before

    def test_an_end_is_let_go_of_once_it_is_settled(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(state=AgentState.COMPLETED, announce_within=GRACE), lease)
        place = export_of(store, execution_id).place
        clock.advance(YEAR)
        due_ids(store)
        assert store.drop_archived(execution_id, place) is False
        store.settle(execution_id)
        assert store.drop_archived(execution_id, place) is True

    @every_holding
    def test_what_was_released_since_the_copy_was_made_is_kept(
        self, store: Store, clock: ManualClock, held: bool
    ) -> None:
        if held:
            store.hold_finished()
        execution_id = ended(store, AgentState.FAILED)
        place = export_of(store, execution_id).place
        store.requeue(execution_id)
        assert store.drop_archived(execution_id, place) is False
        assert store.drop_archived(execution_id, export_of(store, execution_id).place) is False
        move(store, execution_id, AgentState.COMPLETED)
        assert store.drop_archived(execution_id, place) is False
        clock.advance(INSTANT)
        assert summary_of(store, execution_id).state is AgentState.COMPLETED
        assert store.find_ended(from_us(clock.now_us())) == (execution_id,)

    @pytest.mark.parametrize("execution_id", UNKNOWN_IDS)
    def test_an_unknown_execution_is_not_let_go_of(self, store: Store, execution_id: str) -> None:
        create(store)
        assert store.drop_archived(execution_id, (0, 0, 1)) is False
        assert len(store.find().items) == 1

    def test_a_removed_execution_is_not_let_go_of(self, store: Store) -> None:
        for remove in (store.delete_context, store.purge):
            execution_id = ended(store)
            place = export_of(store, execution_id).place
            remove(execution_id)
            assert store.drop_archived(execution_id, place) is False

    @every_holding
    def test_an_archiver_comes_to_an_end_and_takes_each_once(
        self, store: Store, other_store: Store, clock: ManualClock, held: bool
    ) -> None:
        if held:
            store.hold_finished()
        made = [ended(store, sorted(OVER)[number % 3]) for number in range(7)]
        active = create(store)
        clock.advance(INSTANT)
        now, archived = from_us(clock.now_us()), []
        while batch := store.find_ended(now, limit=3):
            for execution_id in batch:
                exported = export_of(store, execution_id)
                assert other_store.restore(exported) is True
                assert store.drop_archived(execution_id, exported.place) is True
                archived.append(execution_id)
            assert len(archived) <= len(made)
        assert sorted(archived) == sorted(made)
        assert sorted(other_store.find_ended(now)) == sorted(made)
        assert [item.execution_id for item in store.find(Query(states=[AgentState.IDLE])).items] == [active]

    def test_what_was_let_go_of_and_purged_comes_back_whole(
        self, store: Store, other_store: Store, clock: ManualClock
    ) -> None:
        execution_id = SITUATIONS["everything"](store, clock)
        store.settle(execution_id)
        exported = export_of(store, execution_id)
        other_store.restore(exported)
        store.drop_archived(execution_id, exported.place)
        store.purge(execution_id)
        assert store.restore(export_of(other_store, execution_id)) is True
        assert export_of(store, execution_id) == exported
        assert store.find_ended(from_us(clock.now_us())) == (execution_id,)
        store.requeue(execution_id)
        assert due_ids(store) == [execution_id]
