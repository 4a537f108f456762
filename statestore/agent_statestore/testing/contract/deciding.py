"""The signals that people send, in the audit trail: answers, approvals, cancels, events."""

from dataclasses import replace
from datetime import timedelta

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import AlreadyAnswered, QuestionNotAsked
from agent_statestore.records import AuditEntry, AuditEvent, Signal, SignalKind, WaitKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.contract.auditing import last
from agent_statestore.testing.kit.builders import (
    INSTANT,
    answer,
    cancel,
    claim,
    claimed,
    create,
    event,
    pause,
    signal,
    stamped,
)
from agent_statestore.testing.kit.suite import Suite


class DecisionConformance(Suite):
    """`send`, as the audit trail notes it."""

    @pytest.mark.parametrize("kind", [SignalKind.ANSWER, SignalKind.APPROVAL, SignalKind.CANCEL])
    def test_a_decision_is_noted_with_the_signal_itself(
        self, store: Store, clock: ManualClock, kind: SignalKind
    ) -> None:
        execution_id, lease = claimed(store)
        waits_for = WaitKind.APPROVAL if kind is SignalKind.APPROVAL else WaitKind.INPUT
        store.checkpoint(execution_id, pause(waits_for), lease)
        state = last(store, execution_id).to_state
        clock.advance(timedelta(days=1))
        sent = signal(kind, payload={"b": [1, None], "a": "ключ"})
        store.send(execution_id, sent)
        decided = AuditEntry(
            position=4,
            at=from_us(clock.now_us()),
            event=AuditEvent.DECIDED,
            from_state=state,
            attempt=1,
            by="ada",
            reason="because",
            signal=stamped(sent, clock),
        )
        assert last(store, execution_id) == decided
        lease = claim(store, execution_id).lease
        store.checkpoint(execution_id, Checkpoint(consumed=(sent.signal_id,)), lease)
        assert store.get_audit(execution_id)[3] == decided

    def test_a_decision_without_a_sender_is_noted_too(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        bare = stamped(Signal(signal_id="bare", kind=SignalKind.CANCEL), clock)
        store.send(execution_id, bare)
        store.send(execution_id, replace(bare, signal_id="again"))
        trail = store.get_audit(execution_id)[1:]
        assert [(entry.by, entry.reason, entry.signal) for entry in trail] == [
            (None, None, bare),
            (None, None, replace(bare, signal_id="again")),
        ]

    def test_an_event_of_a_named_sender_is_noted_with_the_event_itself(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        unawaited = event({"b": [1, None], "a": "ключ"}, "another")
        clock.advance(INSTANT)
        store.send(execution_id, unawaited)
        received = AuditEntry(
            position=3,
            at=from_us(clock.now_us()),
            event=AuditEvent.RECEIVED,
            from_state=AgentState.THINKING,
            attempt=1,
            worker=lease.owner,
            by="ada",
            reason="because",
            signal=stamped(unawaited, clock),
        )
        assert last(store, execution_id) == received
        store.checkpoint(execution_id, pause(WaitKind.EVENT), lease)
        awaited = replace(event(), sender="x", reason=None)
        assert store.send(execution_id, awaited).woke is True
        entry = last(store, execution_id)
        assert (entry.position, entry.event, entry.from_state, entry.to_state) == (
            *(5, AuditEvent.RECEIVED, AgentState.WAITING, None),
        )
        assert (entry.worker, entry.by, entry.reason, entry.signal) == (None, "x", None, stamped(awaited, clock))
        lease = claim(store, execution_id).lease
        store.checkpoint(execution_id, Checkpoint(consumed=(unawaited.signal_id, awaited.signal_id)), lease)
        assert store.get_audit(execution_id)[2] == received

    def test_an_event_of_nobody_and_the_end_of_a_child_are_not_noted(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, pause(WaitKind.EVENT), lease)
        before = store.get_audit(execution_id)
        store.send(execution_id, replace(event(), sender=None))
        store.send(execution_id, signal(SignalKind.CHILD))
        assert store.get_audit(execution_id) == before

    def test_a_repeated_event_is_noted_once(self, store: Store) -> None:
        execution_id, sent = create(store), event()
        store.send(execution_id, sent)
        before = store.get_audit(execution_id)
        store.send(execution_id, replace(sent, sender="bob"))
        assert store.get_audit(execution_id) == before

    def test_refused_and_repeated_decisions_are_not_noted(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, pause(), lease)
        given, asked = stamped(answer(), clock), stamped(cancel(), clock)
        store.send(execution_id, given)
        store.send(execution_id, asked)
        before = store.get_audit(execution_id)
        store.send(execution_id, given)
        store.send(execution_id, asked)
        with pytest.raises(AlreadyAnswered):
            store.send(execution_id, answer("another"))
        with pytest.raises(QuestionNotAsked):
            store.send(execution_id, signal(SignalKind.APPROVAL))
        assert store.get_audit(execution_id) == before
        assert [entry.signal for entry in before[-2:]] == [given, asked]

    def test_changing_an_entry_that_was_read_changes_nothing_that_is_stored(self, store: Store) -> None:
        execution_id = create(store)
        store.send(execution_id, signal(SignalKind.CANCEL, payload={"a": [1]}))
        for _ in range(2):
            noted = last(store, execution_id).signal
            assert noted is not None
            assert noted.payload == {"a": [1]}
            noted.payload["a"].append(2)
