"""What no outsider can make grow without end: the mailbox, and what is left of it."""

from functools import partial

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.errors import AlreadyAnswered, ExecutionOver, MailboxFull
from agent_statestore.records import SignalKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    answer,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    event,
    pause,
    signal,
    summary_of,
)
from agent_statestore.testing.kit.stories import export_of
from agent_statestore.testing.kit.suite import Suite
from agent_statestore.testing.kit.together import raised, succeeded, together

FEW = 5
THREADS = 8


def consume_all(store: Store, execution_id: str) -> None:
    """Take everything out of the mailbox."""
    store.checkpoint(
        execution_id, Checkpoint(consumed=tuple(each.signal_id for each in context_of(store, execution_id).signals))
    )


class BoundsConformance(Suite):
    """`max_mailbox`."""

    def test_a_full_mailbox_takes_no_event(self, store: Store) -> None:
        store.max_mailbox = FEW
        execution_id, others = create(store), create(store)
        sent = [event(number, key=f"key {number}") for number in range(FEW)]
        for each in sent:
            store.send(execution_id, each)
        before = export_of(store, execution_id)
        with pytest.raises(MailboxFull) as refused:
            store.send(execution_id, event(key="one more"))
        assert (refused.value.execution_id, refused.value.key, refused.value.max_mailbox) == (
            execution_id,
            "one more",
            FEW,
        )
        assert export_of(store, execution_id) == before
        store.send(execution_id, sent[0])  # a repetition is a success, as ever
        store.send(others, event())
        store.checkpoint(execution_id, Checkpoint(consumed=(sent[2].signal_id,)))
        store.send(execution_id, event())
        with pytest.raises(MailboxFull):
            store.send(execution_id, event())
        store.max_mailbox = FEW + 1
        store.send(execution_id, event())

    def test_a_full_mailbox_keeps_out_no_answer_no_end_of_a_child_and_no_cancel(self, store: Store) -> None:
        store.max_mailbox = FEW
        execution_id, lease = claimed(store)
        for number in range(FEW):
            store.send(execution_id, event(number))
        store.checkpoint(execution_id, pause(), lease)
        assert store.send(execution_id, answer("yes")).woke is True
        with pytest.raises(AlreadyAnswered):
            store.send(execution_id, answer("no"))
        for _ in range(2):
            store.send(execution_id, signal(SignalKind.CHILD))
        assert store.send(execution_id, cancel()).woke is True
        kinds = [each.kind for each in context_of(store, execution_id).signals]
        assert kinds == [SignalKind.EVENT] * FEW + [SignalKind.ANSWER, *[SignalKind.CHILD] * 2, SignalKind.CANCEL]
        assert summary_of(store, execution_id).cancel_requested
        with pytest.raises(MailboxFull):
            store.send(execution_id, cancel())
        assert len(context_of(store, execution_id).signals) == len(kinds)
        store.update_state(execution_id, AgentState.CANCELLED)
        for each in (event(), cancel()):
            with pytest.raises(ExecutionOver):
                store.send(execution_id, each)

    def test_of_many_senders_at_once_no_more_get_in_than_there_is_room(self, store: Store) -> None:
        store.max_mailbox = FEW
        for _ in range(3):
            execution_id = create(store)
            outcomes = together(*(partial(store.send, execution_id, event(number)) for number in range(THREADS)))
            assert len(succeeded(outcomes)) == FEW
            assert raised(outcomes) == [MailboxFull] * (THREADS - FEW)
            assert len(context_of(store, execution_id).signals) == FEW

    @pytest.mark.parametrize("batch", [1, FEW])
    def test_consumed_signals_leave_nothing_but_the_last_ids(self, store: Store, batch: int) -> None:
        store.max_mailbox = FEW
        execution_id, kept = create(store), event("kept", key="kept")
        store.send(execution_id, kept)
        sent = [event("x" * 100, key=f"key {number}") for number in range(4 * FEW)]
        store.max_mailbox = FEW + 1
        for start in range(0, len(sent), batch):
            for each in sent[start : start + batch]:
                store.send(execution_id, each)
            consumed = tuple(each.signal_id for each in sent[start : start + batch])
            store.checkpoint(execution_id, Checkpoint(consumed=consumed))
        left = export_of(store, execution_id).signals
        assert [each.text is not None for each in left] == [True] + [False] * (len(left) - 1)
        assert len(left) <= 2 * (FEW + 1)
        assert left[0].signal_id == kept.signal_id

        # Those that were accepted last are still known, so that a webhook may be delivered twice.
        before = export_of(store, execution_id)
        for each in (kept, *sent[-FEW:]):
            assert store.send(execution_id, each).woke is False
        assert export_of(store, execution_id) == before
        store.send(execution_id, sent[0])
        assert [each.key for each in context_of(store, execution_id).signals] == ["kept", "key 0"]

    def test_a_signal_that_waits_for_long_is_forgotten_when_it_is_taken(self, store: Store) -> None:
        store.max_mailbox = FEW
        execution_id, early = create(store), event("early", key="early")
        store.send(execution_id, early)
        for _ in range(2 * FEW):
            store.send(execution_id, event())
            store.checkpoint(
                execution_id, Checkpoint(consumed=(context_of(store, execution_id).signals[-1].signal_id,))
            )
        assert [each.key for each in context_of(store, execution_id).signals] == ["early"]
        consume_all(store, execution_id)
        for _ in range(2):
            store.send(execution_id, event())
            consume_all(store, execution_id)
        assert early.signal_id not in [each.signal_id for each in export_of(store, execution_id).signals]

    def test_that_a_question_was_answered_is_never_forgotten(self, store: Store) -> None:
        store.max_mailbox = FEW
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, pause(), lease)
        first = answer("first")
        store.send(execution_id, first)
        lease = claim(store, execution_id).lease
        store.checkpoint(execution_id, pause(consumed=(first.signal_id,)), lease)
        for _ in range(3 * FEW):
            store.send(execution_id, event(key="other"))
            consume_all(store, execution_id)
        assert store.send(execution_id, first).woke is False
        with pytest.raises(AlreadyAnswered):
            store.send(execution_id, answer("second"))

    def test_what_is_remembered_goes_along_to_another_store(self, store: Store, other_store: Store) -> None:
        store.max_mailbox = other_store.max_mailbox = FEW
        execution_id = create(other_store)
        sent = [event(number) for number in range(FEW)]
        for each in sent:
            other_store.send(execution_id, each)
        other_store.checkpoint(execution_id, Checkpoint(consumed=tuple(each.signal_id for each in sent[1:])))
        store.restore(export_of(other_store, execution_id))
        for each in sent:
            assert store.send(execution_id, each).woke is False
        for _ in range(3 * FEW):
            store.send(execution_id, event("more"))
            consume_all(store, execution_id)
        assert len(export_of(store, execution_id).signals) <= FEW + 1
