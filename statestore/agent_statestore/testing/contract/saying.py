"""What somebody says to an execution: it waits in the mailbox, wakes nobody, and is consumed with a step."""

from dataclasses import replace

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock
from agent_statestore.contract.mail import Heard
from agent_statestore.errors import ContextTooLarge, ExecutionOver, InvalidRecord, MailboxFull
from agent_statestore.records import AuditEvent, SayMode, Sent, Signal, SignalKind, WaitKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    TTL,
    answer,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    done,
    event,
    move,
    pause,
    saying,
    stamped,
    summary_of,
)
from agent_statestore.testing.kit.suite import Suite


class SayingConformance(Suite):
    """Signals of the kind `say`, `get_mailbox` and `hear`."""

    def test_what_is_said_is_kept_in_order_until_a_step_consumes_it(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        said = [saying(f"as {mode}", mode) for mode in SayMode]
        said.insert(1, event("beside"))
        for each in said:
            assert store.send(execution_id, each) == Sent(woke=False)
            assert store.send(execution_id, each) == Sent(woke=False), "a repetition"
        kept = tuple(stamped(each, clock) for each in said)
        assert store.get_mailbox(execution_id) == context_of(store, execution_id).signals == kept
        taken = tuple(each.signal_id for each in (said[0], said[2]))
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),), consumed=taken), lease)
        assert store.get_mailbox(execution_id) == context_of(store, execution_id).signals == (kept[1], kept[3])
        store.send(execution_id, said[0])
        assert store.get_mailbox(execution_id) == (kept[1], kept[3]), "it was said before, and consumed"
        store.release(lease)
        assert claim(store, execution_id).context.signals == (kept[1], kept[3])

    def test_it_wakes_nobody_and_answers_no_question(self, store: Store) -> None:
        for kind in WaitKind:
            execution_id, lease = claimed(store)
            store.checkpoint(execution_id, pause(kind, "next_boundary"), lease)
            before = summary_of(store, execution_id)
            for mode in SayMode:
                assert store.send(execution_id, saying(mode=mode)) == Sent(woke=False), kind
            after = summary_of(store, execution_id)
            assert replace(after, updated_at=before.updated_at) == before, kind
            assert store.claim(execution_id, "host:9", TTL) is None, kind
        execution_id, lease = claimed(store)
        store.send(execution_id, saying())
        assert store.checkpoint(execution_id, pause(), lease).due_now is False, "nor does it end a pause that comes"
        assert store.send(execution_id, answer()) == Sent(woke=True), "the question is open"

    def test_its_number_and_size_are_bounded_and_an_end_refuses_it(self, store: Store) -> None:
        execution_id = create(store)
        store.max_mailbox, full = 2, [saying("one"), saying("two")]
        for each in full:
            store.send(execution_id, each)
        with pytest.raises(MailboxFull):
            store.send(execution_id, saying("three"))
        store.send(execution_id, full[0])
        store.send(execution_id, cancel())
        other = create(store)
        store.max_context_bytes = 500
        with pytest.raises(ContextTooLarge):
            store.send(other, saying("x" * 500))
        with pytest.raises(InvalidRecord):
            saying(mode="louder")
        move(store, other, AgentState.COMPLETED)
        with pytest.raises(ExecutionOver):
            store.send(other, saying())

    def test_the_audit_trail_notes_it_if_somebody_stands_behind_it(self, store: Store) -> None:
        execution_id = create(store)
        store.send(execution_id, replace(saying(), sender=None))
        said = saying()
        store.send(execution_id, said)
        noted = [entry for entry in store.get_audit(execution_id) if entry.event is not AuditEvent.CREATED]
        assert [(entry.event, entry.by) for entry in noted] == [(AuditEvent.RECEIVED, "ada")]
        assert noted[0].signal is not None
        assert (noted[0].signal.kind, noted[0].signal.payload) == (SignalKind.SAY, said.payload)

    def test_only_an_execution_that_is_not_over_has_a_mailbox(self, store: Store) -> None:
        execution_id = create(store)
        store.send(execution_id, saying())
        move(store, execution_id, AgentState.FAILED)
        deleted = create(store)
        store.send(deleted, saying())
        store.delete_context(deleted)
        assert [store.get_mailbox(each) for each in (execution_id, deleted, "unknown")] == [(), (), ()]
        assert len(context_of(store, execution_id).signals) == 1, "what nobody has read can be seen"

    def test_the_holders_of_leases_hear_what_does_not_wait(self, store: Store) -> None:
        quiet, silenced, interrupted, cancelled, lost, taken = (claimed(store) for _ in range(6))
        assert store.hear([]) == Heard()
        store.send(quiet[0], event())
        store.send(quiet[0], saying(mode="next_boundary"))
        heard_before = saying(mode="interrupt")
        sent: list[Signal] = [saying(mode="interrupt"), saying(), saying(mode="interrupt")]
        store.send(silenced[0], heard_before)
        store.checkpoint(silenced[0], Checkpoint(consumed=(heard_before.signal_id,)), silenced[1])
        for each in sent:
            store.send(interrupted[0], each)
        store.send(cancelled[0], cancel())
        store.release(lost[1])
        store.checkpoint(taken[0], Checkpoint(state=AgentState.CANCELLED), taken[1])
        gone = replace(quiet[1], execution_id="unknown")
        leases = [lease for _, lease in (quiet, silenced, interrupted, cancelled, lost, taken)]
        assert store.hear([*leases, gone]) == Heard(
            lost=frozenset({lost[0], taken[0], "unknown"}),
            cancel_requested=frozenset({cancelled[0]}),
            interrupts={interrupted[0]: frozenset({sent[0].signal_id, sent[2].signal_id})},
        )
        again = claim(store, lost[0])
        assert store.hear([lost[1], again.lease]).lost == {lost[0]}
        assert store.hear([again.lease]) == Heard()
