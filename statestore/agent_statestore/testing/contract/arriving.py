"""A restored execution goes on as if it had always been here."""

from dataclasses import replace
from datetime import timedelta

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import AlreadyAnswered, ExecutionNotFound, LeaseLost, QuestionNotAsked, StepConflict
from agent_statestore.records import AuditEvent, Sent, SignalKind, WaitKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.contract.auditing import assert_chained
from agent_statestore.testing.contract.signals import ENDED_BY, every_question
from agent_statestore.testing.kit.builders import (
    GRACE,
    INSTANT,
    TTL,
    YEAR,
    answer,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    done,
    due_ids,
    event,
    intent,
    message,
    move,
    pause,
    signal,
    stamped,
    summary_of,
)
from agent_statestore.testing.kit.stories import SITUATIONS, export_of
from agent_statestore.testing.kit.suite import Suite


def carry(execution_id: str, source: Store, target: Store) -> None:
    """Move an execution from store to store."""
    assert target.restore(export_of(source, execution_id)) is True
    source.purge(execution_id)


class ArrivingConformance(Suite):
    """After a `restore`."""

    def test_it_is_claimed_and_its_tokens_grow_on(self, store: Store, other_store: Store, clock: ManualClock) -> None:
        execution_id = create(other_store)
        for number in range(3):
            claim(other_store, execution_id, f"host:{number}")
            clock.advance(TTL)
        carry(execution_id, other_store, store)
        made = claim(store, execution_id, "host:9")
        assert (made.lease.token, made.context.attempt, made.context.crashes) == (4, 4, 4)
        entry = store.get_audit(execution_id)[-1]
        assert (entry.position, entry.event, entry.attempt) == (5, AuditEvent.CLAIMED, 4)
        assert_chained(store.get_audit(execution_id))

    def test_a_lease_is_not_taken_along(self, store: Store, other_store: Store) -> None:
        execution_id, lease = claimed(other_store)
        carry(execution_id, other_store, store)
        assert store.renew([lease], TTL).lost == {execution_id}
        assert store.release(lease) is False
        with pytest.raises(LeaseLost):
            store.checkpoint(execution_id, Checkpoint(), lease)
        assert claim(store, execution_id, "host:2").lease.token == 2
        with pytest.raises(LeaseLost):
            store.checkpoint(execution_id, Checkpoint(), lease)

    @pytest.mark.parametrize("situation", ["new", "leased", "paused with a deadline", "not announced"])
    def test_it_is_due_when_it_was_due(
        self, store: Store, other_store: Store, clock: ManualClock, situation: str
    ) -> None:
        execution_id = SITUATIONS[situation](other_store, clock)
        due_at = summary_of(other_store, execution_id).due_at
        assert due_at is not None
        carry(execution_id, other_store, store)
        assert summary_of(store, execution_id).due_at == due_at
        clock.advance(due_at - from_us(clock.now_us()) - INSTANT)
        assert due_ids(store) == []
        clock.advance(INSTANT)
        (due,) = store.take_due(10, GRACE)
        assert (due.execution_id, due.rings, due.over) == (execution_id, 0, situation == "not announced")

    def test_bells_that_were_rung_elsewhere_do_not_count(
        self, store: Store, other_store: Store, clock: ManualClock
    ) -> None:
        execution_id = SITUATIONS["rung"](other_store, clock)
        carry(execution_id, other_store, store)
        clock.advance(YEAR)
        assert [due.rings for due in store.take_due(10, GRACE)] == [0]

    def test_a_start_time_holds(self, store: Store, other_store: Store, clock: ManualClock) -> None:
        execution_id = create(other_store, start_at=from_us(clock.now_us()) + timedelta(hours=1))
        carry(execution_id, other_store, store)
        clock.advance(timedelta(hours=1) - INSTANT)
        assert store.claim(execution_id, "host:1", TTL) is None
        clock.advance(INSTANT)
        claim(store, execution_id)

    def test_a_pause_sleeps_on_until_its_signal_comes(
        self, store: Store, other_store: Store, clock: ManualClock
    ) -> None:
        execution_id, lease = claimed(other_store)
        other_store.checkpoint(execution_id, pause(WaitKind.EVENT), lease)
        carry(execution_id, other_store, store)
        clock.advance(YEAR)
        assert due_ids(store) == []
        assert store.claim(execution_id, "host:1", TTL) is None
        assert store.send(execution_id, event(key="another")) == Sent(woke=False)
        assert store.send(execution_id, event()) == Sent(woke=True)
        assert due_ids(store) == [execution_id]

    def test_an_end_that_is_to_be_announced_is_settled_here(
        self, store: Store, other_store: Store, clock: ManualClock
    ) -> None:
        execution_id = SITUATIONS["not announced"](other_store, clock)
        carry(execution_id, other_store, store)
        clock.advance(YEAR)
        now = from_us(clock.now_us())
        assert store.find_ended(now) == ()
        store.settle(execution_id)
        assert store.find_ended(now) == (execution_id,)
        assert due_ids(store) == []

    def test_what_was_over_is_found_where_its_end_puts_it(
        self, store: Store, other_store: Store, clock: ManualClock
    ) -> None:
        first = create(other_store)
        second = create(store)
        move(other_store, first, AgentState.COMPLETED)
        clock.advance(INSTANT)
        move(store, second, AgentState.FAILED)
        clock.advance(INSTANT)
        carry(first, other_store, store)
        assert store.find_ended(from_us(clock.now_us())) == (first, second)
        assert store.claim(first, "host:1", TTL) is None

    def test_a_restored_failure_is_released(self, store: Store, other_store: Store, clock: ManualClock) -> None:
        execution_id = SITUATIONS["everything"](other_store, clock)
        steps = context_of(other_store, execution_id).steps
        carry(execution_id, other_store, store)
        store.requeue(execution_id, by="ada")
        made = claim(store, execution_id)
        assert (made.context.steps, made.context.error, made.context.attempt) == (steps, None, 4)
        assert_chained(store.get_audit(execution_id))

    # -- what was written before ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("consumed", [False, True])
    @every_question
    def test_an_answered_question_stays_answered(
        self, store: Store, other_store: Store, kind: WaitKind, consumed: bool
    ) -> None:
        execution_id, lease = claimed(other_store)
        other_store.checkpoint(execution_id, pause(kind), lease)
        first = signal(ENDED_BY[kind])
        other_store.send(execution_id, first)
        if consumed:
            lease = claim(other_store, execution_id).lease
            other_store.checkpoint(execution_id, pause(kind, consumed=(first.signal_id,)), lease)
        carry(execution_id, other_store, store)
        before = export_of(store, execution_id)
        with pytest.raises(AlreadyAnswered):
            store.send(execution_id, signal(ENDED_BY[kind]))
        assert store.send(execution_id, first) == Sent(woke=False)
        with pytest.raises(QuestionNotAsked):
            store.send(execution_id, signal(ENDED_BY[kind], "another"))
        assert export_of(store, execution_id) == before

    def test_a_question_that_was_not_answered_is_answered_here_once(self, store: Store, other_store: Store) -> None:
        execution_id, lease = claimed(other_store)
        other_store.checkpoint(execution_id, pause(), lease)
        carry(execution_id, other_store, store)
        assert store.send(execution_id, answer()) == Sent(woke=True)
        with pytest.raises(AlreadyAnswered):
            store.send(execution_id, answer())

    def test_repeated_signals_are_harmless_and_new_ones_come_after_the_old(
        self, store: Store, clock: ManualClock, other_store: Store
    ) -> None:
        execution_id = create(other_store)
        sent = [event(number) for number in range(12)]
        for item in (*sent, cancel()):
            other_store.send(execution_id, item)
        other_store.checkpoint(execution_id, Checkpoint(consumed=(sent[0].signal_id,)))
        carry(execution_id, other_store, store)
        before = context_of(store, execution_id)
        for item in sent:
            assert store.send(execution_id, item) == Sent(woke=False)
        assert context_of(store, execution_id) == before
        late = stamped(event("late"), clock)
        store.send(execution_id, late)
        assert context_of(store, execution_id).signals == (*before.signals, late)
        assert store.checkpoint(execution_id, pause(WaitKind.EVENT)).due_now is True
        store.checkpoint(execution_id, Checkpoint(consumed=tuple(item.signal_id for item in before.signals)))
        assert context_of(store, execution_id).signals == (late,)

    def test_a_repeated_checkpoint_is_harmless(self, store: Store, other_store: Store) -> None:
        execution_id, lease = claimed(other_store)
        change = Checkpoint(steps=(done(1),), state=AgentState.USING_TOOL, facts=("once",))
        other_store.checkpoint(execution_id, change, lease)
        carry(execution_id, other_store, store)
        before = export_of(store, execution_id)
        assert store.checkpoint(execution_id, change, lease).version == 1
        assert export_of(store, execution_id) == before

    def test_steps_go_on_where_they_were(self, store: Store, other_store: Store) -> None:
        execution_id = create(other_store)
        other_store.checkpoint(execution_id, Checkpoint(steps=(done(1), intent(2), done(3))))
        carry(execution_id, other_store, store)
        lease = claim(store, execution_id).lease
        for wrong in (done(1), done(3), done(5), intent(2, "other name")):
            with pytest.raises(StepConflict):
                store.checkpoint(execution_id, Checkpoint(steps=(wrong,)), lease)
        store.checkpoint(execution_id, Checkpoint(steps=(done(2), done(4))), lease)
        assert store.get_steps(execution_id) == tuple(done(number) for number in range(1, 5))

    def test_appended_parts_come_after_the_old_and_keys_are_overwritten(self, store: Store, other_store: Store) -> None:
        execution_id = create(other_store)
        for target, numbers in ((other_store, range(12)), (store, range(12, 15))):
            for number in numbers:
                target.checkpoint(
                    execution_id,
                    Checkpoint(
                        messages=(message(number),), facts=(number,), working_memory={"k": number}, forget=("gone",)
                    ),
                )
            if target is other_store:
                other_store.set_working_memory(execution_id, "gone", 1)
                carry(execution_id, other_store, store)
        memory = context_of(store, execution_id).memory
        assert [item.content for item in memory.conversation_history] == list(memory.facts) == list(range(15))
        assert memory.working_memory == {"k": 14}

    def test_a_cancel_that_was_asked_for_is_seen_here(self, store: Store, other_store: Store) -> None:
        execution_id = create(other_store)
        other_store.send(execution_id, cancel())
        carry(execution_id, other_store, store)
        lease = claim(store, execution_id).lease
        assert store.renew([lease], TTL).cancel_requested == {execution_id}
        assert store.checkpoint(execution_id, pause(WaitKind.TIMER), lease).due_now is True

    def test_its_idempotency_key_leads_to_it(self, store: Store, other_store: Store) -> None:
        execution_id = create(other_store, idempotency_key="key")
        carry(execution_id, other_store, store)
        assert create(store, idempotency_key="key") == execution_id
        assert store.get_by_idempotency_key("agent", "key") == context_of(store, execution_id)
        assert create(other_store, idempotency_key="key") != execution_id

    def test_it_is_deleted_and_purged_like_any_other(
        self, store: Store, other_store: Store, clock: ManualClock
    ) -> None:
        execution_id = SITUATIONS["answered"](other_store, clock)
        exported = export_of(other_store, execution_id)
        store.restore(exported)
        assert store.delete_context(execution_id) is True
        with pytest.raises(ExecutionNotFound):
            store.send(execution_id, cancel())
        store.purge(execution_id)
        assert store.restore(replace(exported)) is True
        assert store.clear() == 1
        assert store.get_audit(execution_id) == ()
        assert [item.kind for item in context_of(other_store, execution_id).signals] == [
            SignalKind.EVENT,
            SignalKind.ANSWER,
        ]
