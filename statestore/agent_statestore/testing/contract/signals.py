"""The mailbox: what is accepted, what it wakes, and how a pause finds what came before it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from agent_statestore.checkpoint import STATE_OF_WAIT, Checkpoint
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import AlreadyAnswered, ExecutionOver, QuestionNotAsked
from agent_statestore.records import Sent, Signal, SignalKind, WaitKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    AT,
    INSTANT,
    TTL,
    YEAR,
    answer,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    due_ids,
    event,
    pause,
    signal,
    stamped,
    summary_of,
    wait,
)
from agent_statestore.testing.kit.suite import Suite

ENDED_BY = {
    WaitKind.INPUT: SignalKind.ANSWER,
    WaitKind.APPROVAL: SignalKind.APPROVAL,
    WaitKind.EVENT: SignalKind.EVENT,
    WaitKind.CHILD: SignalKind.CHILD,
}
QUESTIONS = (WaitKind.INPUT, WaitKind.APPROVAL)
every_wait = pytest.mark.parametrize("kind", ENDED_BY)
every_question = pytest.mark.parametrize("kind", QUESTIONS)


def paused(store: Store, kind: WaitKind = WaitKind.INPUT, key: str = "question") -> str:
    """Return an execution that a worker has paused."""
    execution_id, lease = claimed(store)
    store.checkpoint(execution_id, pause(kind, key), lease)
    return execution_id


def is_asleep(store: Store, execution_id: str) -> bool:
    """Return whether nothing will ever ring the execution's bell, and nobody can claim it."""
    return summary_of(store, execution_id).due_at is None and store.claim(execution_id, "host:9", TTL) is None


class SignalConformance(Suite):
    """`send`, pauses, cancels."""

    @pytest.mark.parametrize("kind", WaitKind)
    def test_a_pause_shows_what_it_waits_for_and_gives_the_lease_back(self, store: Store, kind: WaitKind) -> None:
        execution_id, lease = claimed(store)
        written = store.checkpoint(execution_id, pause(kind), lease)
        summary = summary_of(store, execution_id)
        assert written.due_now is False
        assert (summary.state, summary.waits) == (STATE_OF_WAIT[kind], (wait(kind),))
        assert (summary.owner, summary.lease_expires_at) == (None, None)
        assert store.renew([lease], TTL).lost == {execution_id}

    @pytest.mark.parametrize("kind", WaitKind)
    def test_a_pause_without_a_deadline_sleeps_for_years(
        self, store: Store, clock: ManualClock, kind: WaitKind
    ) -> None:
        execution_id = paused(store, kind)
        clock.advance(YEAR * 10)
        assert due_ids(store) == []
        assert is_asleep(store, execution_id)

    @pytest.mark.parametrize("kind", WaitKind)
    def test_a_pause_with_a_deadline_goes_on_at_it(self, store: Store, clock: ManualClock, kind: WaitKind) -> None:
        execution_id, lease = claimed(store)
        wake_at = from_us(clock.now_us()) + timedelta(days=7)
        store.checkpoint(execution_id, pause(kind, wake_at=wake_at), lease)
        assert summary_of(store, execution_id).due_at == wake_at
        clock.advance(timedelta(days=7) - INSTANT)
        assert due_ids(store) == []
        assert store.claim(execution_id, "host:1", TTL) is None
        clock.advance(INSTANT)
        assert due_ids(store) == [execution_id]
        assert claim(store, execution_id).context.waiting == wait(kind, wake_at=wake_at)

    @every_wait
    def test_the_awaited_signal_wakes(self, store: Store, clock: ManualClock, kind: WaitKind) -> None:
        execution_id = paused(store, kind)
        store.send(execution_id, event(key="another"))
        assert is_asleep(store, execution_id)
        clock.advance(YEAR)
        assert store.send(execution_id, signal(ENDED_BY[kind])) == Sent(woke=True)
        assert summary_of(store, execution_id).due_at == from_us(clock.now_us())
        (due,) = store.take_due(10, TTL)
        assert (due.execution_id, due.rings, due.over) == (execution_id, 0, False)
        claim(store, execution_id)

    @every_wait
    def test_a_signal_before_the_deadline_wakes_at_once(self, store: Store, clock: ManualClock, kind: WaitKind) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, pause(kind, wake_at=from_us(clock.now_us()) + YEAR), lease)
        assert store.send(execution_id, signal(ENDED_BY[kind])).woke is True
        assert due_ids(store) == [execution_id]
        claim(store, execution_id)

    def test_a_signal_sets_the_rings_back(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        store.checkpoint(execution_id, pause(wake_at=from_us(clock.now_us()) + TTL))
        store.mark_rung([(execution_id, 0)], TTL, TTL)
        store.send(execution_id, answer())
        assert store.take_due(1, TTL)[0].rings == 0

    def test_a_signal_is_kept_whole_and_in_order(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        sent = [event({"n": number}, key="\N{SLIGHTLY SMILING FACE} 'k'") for number in range(12)]
        bare, kept = Signal(signal_id="bare", kind=SignalKind.CANCEL), []
        for item in (*sent, bare):
            store.send(execution_id, item)
            kept.append(stamped(item, clock))
            clock.advance(INSTANT)
        assert context_of(store, execution_id).signals == tuple(kept)
        assert claim(store, execution_id).context.signals == tuple(kept)

    def test_a_signal_is_stamped_by_the_clock_of_the_store(self, store: Store, clock: ManualClock) -> None:
        execution_id = paused(store)
        clock.advance(INSTANT)
        store.send(execution_id, replace(answer({"v": 1}), sent_at=AT + YEAR))
        (kept,), now = context_of(store, execution_id).signals, from_us(clock.now_us())
        assert kept.sent_at == now
        clock.advance(YEAR)
        assert context_of(store, execution_id).signals == (kept,)
        assert claim(store, execution_id).context.signals == (kept,)
        assert store.get_audit(execution_id)[-2].signal == kept

    def test_consumed_signals_are_gone_and_unknown_ones_are_harmless(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        sent = [stamped(event(number), clock) for number in range(3)]
        for item in sent:
            store.send(execution_id, item)
        store.checkpoint(execution_id, Checkpoint(consumed=(sent[1].signal_id, "unknown")), lease)
        assert context_of(store, execution_id).signals == (sent[0], sent[2])
        store.checkpoint(execution_id, Checkpoint(consumed=(sent[1].signal_id, sent[0].signal_id)), lease)
        assert context_of(store, execution_id).signals == (sent[2],)

    @pytest.mark.parametrize("consumed", [False, True])
    def test_a_repeated_signal_is_a_success_without_any_effect(self, store: Store, consumed: bool) -> None:
        execution_id, first = paused(store), answer("first")
        assert store.send(execution_id, first).woke is True
        if consumed:
            lease = claim(store, execution_id).lease
            store.checkpoint(execution_id, pause(consumed=(first.signal_id,)), lease)
        before = context_of(store, execution_id)
        again = signal(SignalKind.ANSWER, payload="changed", signal_id=first.signal_id)
        assert store.send(execution_id, first) == store.send(execution_id, again) == Sent(woke=False)
        assert context_of(store, execution_id) == before

    def test_a_repeated_signal_is_harmless_even_after_the_end(self, store: Store) -> None:
        execution_id, first = paused(store), answer()
        store.send(execution_id, first)
        store.update_state(execution_id, AgentState.COMPLETED)
        assert store.send(execution_id, first) == Sent(woke=False)

    @pytest.mark.parametrize("kind", SignalKind)
    def test_nothing_is_sent_to_what_is_over(self, store: Store, kind: SignalKind) -> None:
        execution_id = paused(store)
        store.update_state(execution_id, AgentState.CANCELLED)
        before = context_of(store, execution_id)
        with pytest.raises(ExecutionOver):
            store.send(execution_id, signal(kind))
        assert context_of(store, execution_id) == before

    # -- questions -----------------------------------------------------------------------------------------------------

    @every_question
    def test_the_second_answer_is_refused(self, store: Store, clock: ManualClock, kind: WaitKind) -> None:
        execution_id, first = paused(store, kind), signal(ENDED_BY[kind], payload="first")
        store.send(execution_id, first)
        before = context_of(store, execution_id)
        with pytest.raises(AlreadyAnswered) as refused:
            store.send(execution_id, signal(ENDED_BY[kind], payload="second"))
        assert (refused.value.execution_id, refused.value.key) == (execution_id, "question")
        assert context_of(store, execution_id) == before
        assert before.signals == (stamped(first, clock),)

    @every_question
    def test_an_answered_question_stays_answered_for_ever(self, store: Store, kind: WaitKind) -> None:
        execution_id, first = paused(store, kind), signal(ENDED_BY[kind])
        store.send(execution_id, first)
        lease = claim(store, execution_id).lease
        store.checkpoint(execution_id, Checkpoint(consumed=(first.signal_id,), state=AgentState.THINKING), lease)
        with pytest.raises(AlreadyAnswered):
            store.send(execution_id, signal(ENDED_BY[kind]))
        store.checkpoint(execution_id, pause(kind, "next"), lease)
        with pytest.raises(AlreadyAnswered):
            store.send(execution_id, signal(ENDED_BY[kind]))
        store.send(execution_id, signal(ENDED_BY[kind], "next"))

    @every_question
    def test_a_new_round_of_a_question_takes_its_own_answer(
        self, store: Store, clock: ManualClock, kind: WaitKind
    ) -> None:
        first = signal(ENDED_BY[kind], payload="first")
        second = replace(signal(ENDED_BY[kind], payload="second"), round=2)
        execution_id, lease = claimed(store)
        again = replace(wait(kind), round=2, refused="'first' is no number")
        store.checkpoint(execution_id, pause(kind), lease)
        with pytest.raises(QuestionNotAsked):
            store.send(execution_id, second)
        store.send(execution_id, first)
        lease = claim(store, execution_id).lease
        store.checkpoint(execution_id, replace(pause(kind, consumed=(first.signal_id,)), waits=(again,)), lease)
        assert summary_of(store, execution_id).waiting == again
        assert is_asleep(store, execution_id)
        with pytest.raises(AlreadyAnswered):
            store.send(execution_id, signal(ENDED_BY[kind]))
        with pytest.raises(QuestionNotAsked):
            store.send(execution_id, replace(second, round=3))
        assert store.send(execution_id, second) == Sent(woke=True)
        with pytest.raises(AlreadyAnswered):
            store.send(execution_id, replace(second, signal_id="another"))
        taken = claim(store, execution_id).context
        assert taken.signals == (stamped(second, clock),)
        assert taken.waiting == again

    @every_question
    def test_only_exactly_what_is_waited_for_can_be_answered(self, store: Store, kind: WaitKind) -> None:
        other = SignalKind.APPROVAL if kind is WaitKind.INPUT else SignalKind.ANSWER
        execution_id = paused(store, kind)
        before = context_of(store, execution_id)
        wrong = (signal(ENDED_BY[kind], "another"), signal(ENDED_BY[kind], "Question"), signal(other))
        for item in wrong:
            with pytest.raises(QuestionNotAsked):
                store.send(execution_id, item)
        assert context_of(store, execution_id) == before
        store.send(execution_id, signal(ENDED_BY[kind]))

    @pytest.mark.parametrize("kind", [WaitKind.EVENT, WaitKind.TIMER, WaitKind.CHILD])
    def test_a_wait_that_is_no_question_has_no_answer(self, store: Store, kind: WaitKind) -> None:
        execution_id = paused(store, kind)
        for item in (answer(), signal(SignalKind.APPROVAL)):
            with pytest.raises(QuestionNotAsked):
                store.send(execution_id, item)

    def test_an_unasked_question_cannot_be_answered_in_advance(self, store: Store) -> None:
        execution_id = create(store)
        with pytest.raises(QuestionNotAsked):
            store.send(execution_id, answer())
        lease = claim(store, execution_id).lease
        with pytest.raises(QuestionNotAsked):
            store.send(execution_id, answer())
        store.checkpoint(execution_id, pause(), lease)
        assert store.send(execution_id, answer()).woke is True

    def test_a_question_that_is_no_longer_waited_for_cannot_be_answered(self, store: Store) -> None:
        execution_id = paused(store)
        store.send(execution_id, cancel())
        lease = claim(store, execution_id).lease
        store.update_state(execution_id, AgentState.THINKING, lease=lease)
        assert summary_of(store, execution_id).waiting is None
        with pytest.raises(QuestionNotAsked):
            store.send(execution_id, answer())

    @every_question
    def test_an_answer_under_a_living_lease_is_found_at_the_next_pause(
        self, store: Store, clock: ManualClock, kind: WaitKind
    ) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, pause(kind, wake_at=from_us(clock.now_us()) + TTL), lease)
        clock.advance(TTL)
        lease = claim(store, execution_id).lease  # it still waits: `waiting` stays until the engine has looked
        due_at = summary_of(store, execution_id).due_at
        assert store.send(execution_id, signal(ENDED_BY[kind])) == Sent(woke=False)
        assert summary_of(store, execution_id).due_at == due_at
        assert store.checkpoint(execution_id, pause(kind), lease).due_now is True
        assert due_ids(store) == [execution_id]

    # -- signals that come before the pause ----------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", [WaitKind.EVENT, WaitKind.CHILD])
    def test_a_pause_on_what_is_in_the_mailbox_is_due_at_once(
        self, store: Store, clock: ManualClock, kind: WaitKind
    ) -> None:
        execution_id, lease = claimed(store)
        assert store.send(execution_id, signal(ENDED_BY[kind])) == Sent(woke=False)
        clock.advance(INSTANT)
        written = store.checkpoint(execution_id, pause(kind, wake_at=from_us(clock.now_us()) + YEAR), lease)
        assert written.due_now is True
        assert summary_of(store, execution_id).due_at == from_us(clock.now_us())
        assert due_ids(store) == [execution_id]
        claim(store, execution_id)

    @pytest.mark.parametrize(
        ("sent", "kind"),
        [
            (event(), WaitKind.CHILD),
            (signal(SignalKind.CHILD), WaitKind.EVENT),
            (event(), WaitKind.TIMER),
            (event(), WaitKind.INPUT),
            (event(key="another"), WaitKind.EVENT),
            (event(key="Question"), WaitKind.EVENT),
        ],
    )
    def test_a_pause_on_something_else_sleeps(self, store: Store, sent: Signal, kind: WaitKind) -> None:
        execution_id, lease = claimed(store)
        store.send(execution_id, sent)
        assert store.checkpoint(execution_id, pause(kind), lease).due_now is False
        assert is_asleep(store, execution_id)

    @pytest.mark.parametrize("together", [False, True])
    def test_a_consumed_signal_wakes_no_further_pause(self, store: Store, together: bool) -> None:
        execution_id, lease = claimed(store)
        sent = event()
        store.send(execution_id, sent)
        if not together:
            store.checkpoint(execution_id, Checkpoint(consumed=(sent.signal_id,)), lease)
        consumed = (sent.signal_id,) if together else ()
        assert store.checkpoint(execution_id, pause(WaitKind.EVENT, consumed=consumed), lease).due_now is False
        assert is_asleep(store, execution_id)
        assert store.send(execution_id, event()).woke is True

    def test_a_signal_to_an_unclaimed_execution_that_is_not_paused_wakes_nothing(
        self, store: Store, clock: ManualClock
    ) -> None:
        execution_id = create(store)
        due_at = summary_of(store, execution_id).due_at
        assert store.send(execution_id, event()) == Sent(woke=False)
        assert summary_of(store, execution_id).due_at == due_at
        claim(store, execution_id)
        clock.advance(TTL + INSTANT)
        assert store.send(execution_id, event()) == Sent(woke=False)

    def test_a_signal_to_an_execution_that_was_abandoned_after_its_pause_wakes_nothing(
        self, store: Store, clock: ManualClock
    ) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, pause(WaitKind.EVENT, wake_at=from_us(clock.now_us()) + TTL), lease)
        clock.advance(TTL)
        claim(store, execution_id)  # it is thinking now, and still says what it waited for
        clock.advance(TTL)
        store.take_due(1, YEAR)
        assert store.send(execution_id, event()) == Sent(woke=False)
        assert due_ids(store) == []

    # -- cancel --------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", WaitKind)
    def test_a_cancel_wakes_any_pause(self, store: Store, kind: WaitKind) -> None:
        execution_id = paused(store, kind)
        assert store.send(execution_id, cancel()).woke is True
        (due,) = store.take_due(10, TTL)
        assert (due.execution_id, due.cancel_requested) == (execution_id, True)
        assert claim(store, execution_id).context.cancel_requested is True
        assert not store.can_continue(execution_id)

    def test_a_cancel_makes_a_waiting_start_due_at_once(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store, start_at=from_us(clock.now_us()) + YEAR)
        assert store.send(execution_id, cancel()).woke is True
        assert due_ids(store) == [execution_id]
        claim(store, execution_id)

    def test_a_cancel_makes_an_abandoned_execution_due_at_once(self, store: Store, clock: ManualClock) -> None:
        execution_id, _ = claimed(store)
        clock.advance(TTL)
        store.take_due(1, YEAR)
        assert store.send(execution_id, cancel()).woke is True
        assert due_ids(store) == [execution_id]

    def test_a_cancel_under_a_living_lease_is_seen_by_its_holder(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        due_at = summary_of(store, execution_id).due_at
        assert store.send(execution_id, cancel()) == Sent(woke=False)
        summary = summary_of(store, execution_id)
        assert (summary.cancel_requested, summary.due_at) == (True, due_at)
        assert store.renew([lease], TTL).cancel_requested == {execution_id}
        written = store.checkpoint(execution_id, pause(WaitKind.TIMER), lease)
        assert (written.cancel_requested, written.due_now) == (True, True)
        assert due_ids(store) == [execution_id]
