"""Pauses on several things at once: whatever comes first ends them."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import combinations

import pytest

from agent_statestore.checkpoint import STATE_OF_WAIT, Checkpoint
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import AlreadyAnswered, InvalidRecord, QuestionNotAsked
from agent_statestore.records import AuditEvent, Sent, SignalKind, Wait, WaitKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
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
    due_ids,
    signal,
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
# Keys that differ only in spelling, or contain what separates the parts of stored texts.
KEYS = ("k", "K", "event:k", 'a "b", c', "ключ \N{SLIGHTLY SMILING FACE}", "k]", "\\", "\n", "x" * 255)


def pause_on(*waits: Wait) -> Checkpoint:
    """Return the write that pauses on all of these."""
    states = {STATE_OF_WAIT[each.kind] for each in waits}
    state = min(states - {AgentState.WAITING}, default=AgentState.WAITING)
    return Checkpoint(state=state, waits=waits)


def paused_on(store: Store, *waits: Wait) -> str:
    """Return an execution that a worker has paused on all of these."""
    execution_id, lease = claimed(store)
    assert store.checkpoint(execution_id, pause_on(*waits), lease).due_now is False
    return execution_id


def sets_of_waits() -> Iterator[tuple[Wait, ...]]:
    """Yield two waits of different kinds, two of one kind, and one of each kind."""
    for one, other in combinations(WaitKind, 2):
        yield wait(one, "one"), wait(other, "other")
    for kind in WaitKind:
        yield wait(kind, "one"), wait(kind, "other")
    yield tuple(wait(kind, kind.value) for kind in WaitKind)
    yield tuple(wait(WaitKind.EVENT, key) for key in KEYS)


class WaitsConformance(Suite):
    """A pause's set of waits."""

    def test_all_waits_are_kept_in_their_order(self, store: Store) -> None:
        for waits in sets_of_waits():
            execution_id = paused_on(store, *waits)
            assert summary_of(store, execution_id).waits == waits
            context = context_of(store, execution_id)
            assert (context.waits, context.waiting) == (waits, waits[0])
            assert context.state is pause_on(*waits).state
            store.send(execution_id, cancel())
            assert claim(store, execution_id).context.waits == waits, "it stays until the engine has looked"

    def test_the_answer_to_any_of_them_wakes(self, store: Store, clock: ManualClock) -> None:
        for waits in sets_of_waits():
            for ended in waits:
                if ended.kind not in ENDED_BY:
                    continue
                execution_id = paused_on(store, *waits)
                clock.advance(INSTANT)
                assert store.claim(execution_id, "host:9", TTL) is None
                sent = signal(ENDED_BY[ended.kind], ended.key)
                assert store.send(execution_id, sent) == Sent(woke=True), (waits, ended)
                assert summary_of(store, execution_id).due_at == from_us(clock.now_us())
                assert due_ids(store) == [execution_id]
                assert claim(store, execution_id).context.waits == waits

    def test_nothing_else_wakes(self, store: Store) -> None:
        execution_id = paused_on(store, *(wait(WaitKind.EVENT, key) for key in KEYS), wait(WaitKind.CHILD, "child"))
        for kind, key in (
            *((SignalKind.CHILD, key) for key in KEYS),
            *((SignalKind.EVENT, key) for key in ("child", "kk", "a", "[", '"k"', "x" * 254, "vent:k")),
        ):
            assert store.send(execution_id, signal(kind, key)) == Sent(woke=False), (kind, key)
        assert summary_of(store, execution_id).due_at is None
        assert store.claim(execution_id, "host:9", TTL) is None

    def test_it_goes_on_at_the_earliest_of_their_deadlines(self, store: Store, clock: ManualClock) -> None:
        now = from_us(clock.now_us())
        for ends in ((YEAR, TTL), (TTL, YEAR), (None, TTL), (TTL, None), (YEAR, None, TTL), (TTL, TTL)):
            moments: list[datetime | None] = [None if end is None else now + end for end in ends]
            for kinds in ((WaitKind.INPUT, WaitKind.TIMER, WaitKind.EVENT), (WaitKind.EVENT,) * 3):
                waits = [wait(kind, f"k{n}", end) for n, (kind, end) in enumerate(zip(kinds, moments, strict=False))]
                assert summary_of(store, paused_on(store, *waits)).due_at == now + TTL, (kinds, ends)
        execution_id = paused_on(store, wait(WaitKind.INPUT), wait(WaitKind.TIMER, "timer", now + timedelta(hours=1)))
        clock.advance(timedelta(hours=1) - INSTANT)
        assert store.claim(execution_id, "host:1", TTL) is None
        clock.advance(INSTANT)
        assert execution_id in due_ids(store)
        assert len(claim(store, execution_id).context.waits) == 2

    def test_without_any_deadline_it_sleeps_for_years(self, store: Store, clock: ManualClock) -> None:
        paused_on(store, wait(WaitKind.INPUT, "a"), wait(WaitKind.EVENT, "b"))
        clock.advance(YEAR * 10)
        assert due_ids(store) == []

    def test_what_is_in_the_mailbox_for_any_of_them_makes_the_pause_due_at_once(
        self, store: Store, clock: ManualClock
    ) -> None:
        for place in range(3):
            others = (wait(WaitKind.INPUT, "q"), wait(WaitKind.TIMER, "t", from_us(clock.now_us()) + YEAR))
            waits = (*others[:place], wait(WaitKind.EVENT, "e"), *others[place:])
            execution_id, lease = claimed(store)
            sent = signal(SignalKind.EVENT, "e")
            store.send(execution_id, sent)
            assert store.checkpoint(execution_id, pause_on(*waits), lease).due_now is True, place
            assert due_ids(store) == [execution_id]
            lease = claim(store, execution_id).lease
            consumed = Checkpoint(consumed=(sent.signal_id,))
            store.checkpoint(execution_id, consumed, lease)
            assert store.checkpoint(execution_id, pause_on(*waits), lease).due_now is False, place

    def test_each_of_several_questions_is_answered_once(self, store: Store) -> None:
        waits = (wait(WaitKind.INPUT, "a"), wait(WaitKind.APPROVAL, "b"), wait(WaitKind.TIMER, "t"))
        execution_id = paused_on(store, *waits)
        for kind, key in ((SignalKind.ANSWER, "b"), (SignalKind.APPROVAL, "a"), (SignalKind.ANSWER, "t")):
            with pytest.raises(QuestionNotAsked):
                store.send(execution_id, signal(kind, key))
        for kind, key in ((SignalKind.APPROVAL, "b"), (SignalKind.ANSWER, "a")):
            assert store.send(execution_id, signal(kind, key)) == Sent(woke=True)
            with pytest.raises(AlreadyAnswered):
                store.send(execution_id, signal(kind, key))
        trail = store.get_audit(execution_id)
        assert [entry.signal.key for entry in trail if entry.signal is not None] == ["b", "a"]
        moved = [entry for entry in trail if entry.event is AuditEvent.MOVED]
        assert [entry.to_state for entry in moved] == [AgentState.WAITING_FOR_APPROVAL]

    def test_a_pause_replaces_the_waits_of_the_one_before(self, store: Store) -> None:
        execution_id = paused_on(store, wait(WaitKind.INPUT, "a"), wait(WaitKind.EVENT, "b"))
        store.checkpoint(execution_id, pause_on(wait(WaitKind.EVENT, "c"), wait(WaitKind.INPUT, "d")))
        assert store.send(execution_id, signal(SignalKind.EVENT, "b")) == Sent(woke=False)
        with pytest.raises(QuestionNotAsked):
            store.send(execution_id, signal(SignalKind.ANSWER, "a"))
        assert store.send(execution_id, signal(SignalKind.ANSWER, "d")) == Sent(woke=True)

    def test_going_on_clears_all_of_them(self, store: Store) -> None:
        execution_id = paused_on(store, wait(WaitKind.EVENT, "a"), wait(WaitKind.INPUT, "b"))
        store.send(execution_id, signal(SignalKind.EVENT, "a"))
        lease = claim(store, execution_id).lease
        store.update_state(execution_id, AgentState.THINKING, lease=lease)
        assert summary_of(store, execution_id).waits == ()
        with pytest.raises(QuestionNotAsked):
            store.send(execution_id, signal(SignalKind.ANSWER, "b"))

    def test_a_write_that_leaves_the_state_leaves_the_others_open(self, store: Store) -> None:
        """So the end of one is recorded under the lease, and nobody who answers another one meanwhile is refused."""
        waits = (wait(WaitKind.INPUT, "a"), wait(WaitKind.APPROVAL, "b"), wait(WaitKind.EVENT, "c"))
        execution_id = paused_on(store, *waits)
        answered = signal(SignalKind.ANSWER, "a")
        store.send(execution_id, answered)
        lease = claim(store, execution_id).lease
        recorded = Checkpoint(steps=(done(1, "a"),), consumed=(answered.signal_id,))
        assert store.checkpoint(execution_id, recorded, lease).due_now is False
        assert summary_of(store, execution_id).waits == waits
        assert store.send(execution_id, signal(SignalKind.APPROVAL, "b")) == Sent(woke=False), "its holder finds it"
        for kind, key in ((SignalKind.ANSWER, "a"), (SignalKind.APPROVAL, "b")):
            with pytest.raises(AlreadyAnswered):
                store.send(execution_id, signal(kind, key))
        with pytest.raises(QuestionNotAsked):
            store.send(execution_id, signal(SignalKind.ANSWER, "b"))
        assert store.checkpoint(execution_id, pause_on(*waits[1:]), lease).due_now is True
        assert summary_of(store, execution_id).waits == waits[1:]

    def test_they_go_with_the_execution_to_another_store(self, store: Store, other_store: Store) -> None:
        for source, target in ((other_store, store), (store, other_store)):
            for waits in sets_of_waits():
                execution_id = paused_on(source, *waits)
                exported = source.export(execution_id)
                assert exported is not None
                assert target.restore(exported)
                copied = target.export(execution_id)
                assert copied is not None
                assert copied.digest == exported.digest
                assert summary_of(target, execution_id).waits == waits
                last = waits[-1]
                if last.kind in ENDED_BY:
                    assert target.send(execution_id, signal(ENDED_BY[last.kind], last.key)) == Sent(woke=True)

    def test_waits_that_do_not_fit_each_other_or_the_state_are_refused(self, store: Store) -> None:
        execution_id = create(store)
        before = context_of(store, execution_id)
        question, event = wait(WaitKind.INPUT, "a"), wait(WaitKind.EVENT, "a")
        for state, waits in (
            (AgentState.WAITING_FOR_INPUT, (question, question)),
            (AgentState.WAITING_FOR_INPUT, (question, wait(WaitKind.INPUT, "a", from_us(0)))),
            (AgentState.WAITING, (question, event)),
            (AgentState.WAITING_FOR_APPROVAL, (question, event)),
            (AgentState.WAITING_FOR_INPUT, (event,)),
            (AgentState.WAITING, ()),
            (AgentState.THINKING, (event,)),
        ):
            with pytest.raises(InvalidRecord):
                store.update_state(execution_id, state, waits=waits)
        assert context_of(store, execution_id) == before
