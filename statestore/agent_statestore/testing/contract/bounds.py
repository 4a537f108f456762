"""What no outsider can make grow without end: the mailbox, and what is left of it."""

from dataclasses import replace
from functools import partial
from typing import Final
from uuid import uuid4

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.errors import AlreadyAnswered, ContextTooLarge, ExecutionNotFound, ExecutionOver, MailboxFull
from agent_statestore.records import Action, RagChunk, SignalKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    BOOM,
    answer,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    done,
    event,
    intent,
    message,
    pause,
    signal,
    summary_of,
)
from agent_statestore.testing.kit.matrix import cells
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


def size_of(store: Store, execution_id: str) -> int:
    """Return how many bytes the context of an execution counts for."""
    return export_of(store, execution_id).context_bytes


def room(store: Store, execution_id: str, size: int) -> None:
    """Leave so many bytes of room to this execution."""
    store.max_context_bytes = size_of(store, execution_id) + size


# name: a write before, and one that makes the context smaller by the bytes given, or larger.
REPLACING: Final[dict[str, tuple[Checkpoint, Checkpoint]]] = {
    "an intent's result": (Checkpoint(steps=(intent(1),)), Checkpoint(steps=(done(1, output="x" * 50),))),
    "several steps": (
        Checkpoint(steps=(intent(1), done(2), intent(3))),
        Checkpoint(steps=(done(1, output="ä" * 50), done(3), done(4))),
    ),
    "a value": (
        Checkpoint(working_memory={"ä": "x" * 50, "b": 1}),
        Checkpoint(working_memory={"ä": "x" * 90, "c": "y" * 30}),
    ),
    "a forgotten value": (
        Checkpoint(working_memory={"a": "x" * 9, "b": 1}),
        Checkpoint(working_memory={"a": "x" * 90, "c": "y" * 30, "d": "z" * 50}, forget=("a", "d", "unknown")),
    ),
    "an entity": (
        Checkpoint(entities={"a": "x" * 9}, working_memory={"a": "x"}),
        Checkpoint(entities={"a": "x" * 90, "c": "y"}),
    ),
    "what is appended": (
        Checkpoint(messages=(message("m"),), facts=("f",)),
        Checkpoint(
            messages=(message("m" * 40),),
            facts=("ß" * 20, 2),
            rag_context=(RagChunk(content="r", source="s"),),
            working_memory={"a": 1},
        ),
    ),
}


class BoundsConformance(Suite):
    """`max_mailbox`, `max_context_bytes`, `count_descendant`."""

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

    # -- the size of the context ---------------------------------------------------------------------------------------

    @cells(write=REPLACING, leased={"with a lease": True, "without": False})
    def test_a_write_may_make_the_context_exactly_as_large_as_it_may_be(
        self, store: Store, write: tuple[Checkpoint, Checkpoint], leased: bool
    ) -> None:
        before, after = (replace(each, checkpoint_id=uuid4().hex) for each in write)
        store.max_context_bytes = 1 << 40
        twin = create(store, input="ö" * 30, metadata={"a": "b"})
        for each in (before, after):
            store.checkpoint(twin, replace(each, checkpoint_id=uuid4().hex))
        limit = size_of(store, twin)
        execution_id, lease = claimed(store, input="ö" * 30, metadata={"a": "b"})
        if not leased:
            store.release(lease)
        under = lease if leased else None
        store.checkpoint(execution_id, before, under)
        was = export_of(store, execution_id)
        store.max_context_bytes = limit - 1
        with pytest.raises(ContextTooLarge) as refused:
            store.checkpoint(execution_id, after, under)
        assert (refused.value.execution_id, refused.value.size_bytes, refused.value.limit_bytes) == (
            execution_id,
            limit,
            limit - 1,
        )
        assert export_of(store, execution_id) == was
        store.max_context_bytes = limit
        store.checkpoint(execution_id, after, under)
        assert size_of(store, execution_id) == limit
        with pytest.raises(ContextTooLarge):
            store.checkpoint(execution_id, Checkpoint(facts=(1,)), under)

    def test_an_ordinary_step_is_held_against_the_limit_too(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        step = replace(done(1), action=Action(kind="step"))
        room(store, execution_id, 100)
        with pytest.raises(ContextTooLarge):
            store.checkpoint(execution_id, Checkpoint(steps=(step,)), lease)
        assert store.get_steps(execution_id) == ()
        room(store, execution_id, 1000)
        store.checkpoint(execution_id, Checkpoint(steps=(step,)), lease)
        store.max_context_bytes = size_of(store, execution_id)
        with pytest.raises(ContextTooLarge):
            store.checkpoint(execution_id, Checkpoint(steps=(replace(step, step_number=2),)), lease)

    def test_what_makes_the_context_no_larger_is_accepted_beyond_the_limit(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.send(execution_id, sent := event("x" * 200))
        write = Checkpoint(working_memory={"a": "x" * 100}, steps=(intent(1),))
        store.checkpoint(execution_id, write, lease)
        store.max_context_bytes = 1
        store.checkpoint(execution_id, Checkpoint(working_memory={"a": "y" * 100}), lease)
        store.checkpoint(execution_id, Checkpoint(facts=("z" * 10,), consumed=(sent.signal_id,)), lease)
        store.checkpoint(execution_id, Checkpoint(forget=("a",)), lease)
        store.checkpoint(execution_id, pause(), lease)
        assert store.send(execution_id, answer("yes" * 100)).woke is True
        assert store.send(execution_id, cancel()).woke is True
        with pytest.raises(ContextTooLarge):
            store.checkpoint(execution_id, Checkpoint(facts=(1,)))

    @pytest.mark.parametrize("state", [AgentState.FAILED, AgentState.CANCELLED])
    def test_the_end_of_what_went_wrong_is_always_accepted(self, store: Store, state: AgentState) -> None:
        execution_id, lease = claimed(store)
        store.max_context_bytes = 1
        with pytest.raises(ContextTooLarge):
            store.checkpoint(execution_id, Checkpoint(state=AgentState.COMPLETED, facts=("f",)), lease)
        error = BOOM if state is AgentState.FAILED else None
        store.checkpoint(execution_id, Checkpoint(state=state, steps=(done(1),), facts=("f",), error=error), lease)
        assert summary_of(store, execution_id).state is state

    def test_an_event_may_not_make_the_context_too_large(self, store: Store) -> None:
        execution_id = create(store)
        room(store, execution_id, 1000)
        store.send(execution_id, sent := event("x" * 500))
        with pytest.raises(ContextTooLarge):
            store.send(execution_id, event("x" * 500))
        assert len(context_of(store, execution_id).signals) == 1
        store.checkpoint(execution_id, Checkpoint(consumed=(sent.signal_id,)))
        store.send(execution_id, event("x" * 500))
        with pytest.raises(ContextTooLarge):
            store.checkpoint(execution_id, Checkpoint(facts=("x" * 500,)))

    def test_a_restored_context_is_as_large_as_it_was(self, store: Store, other_store: Store) -> None:
        execution_id = create(other_store, input="ö")
        other_store.checkpoint(execution_id, Checkpoint(steps=(done(1),), working_memory={"a": 1}, facts=("f",)))
        other_store.send(execution_id, event("x"))
        store.restore(export_of(other_store, execution_id))
        room(store, execution_id, 50)
        with pytest.raises(ContextTooLarge):
            store.checkpoint(execution_id, Checkpoint(facts=("x" * 100,)))
        store.checkpoint(execution_id, Checkpoint(facts=("x",)))

    # -- descendants ---------------------------------------------------------------------------------------------------

    def test_descendants_are_counted_up_to_the_limit(self, store: Store) -> None:
        execution_id, other = create(store), create(store)
        before = export_of(store, execution_id)
        assert [store.count_descendant(execution_id, 2) for _ in range(4)] == [True, True, False, False]
        assert [store.count_descendant(execution_id, 3) for _ in range(2)] == [True, False]
        assert store.count_descendant(other, 1) is True
        assert store.count_descendant(other, 0) is False
        assert export_of(store, execution_id) == before
        store.update_state(execution_id, AgentState.COMPLETED)
        # A store that archives it now may begin to count anew.
        counted = [store.count_descendant(execution_id, 4) for _ in range(6)]
        assert (counted[0], counted[-1], sorted(counted, reverse=True)) == (True, False, counted)
        store.delete_context(execution_id)
        for gone in (execution_id, "unknown"):
            with pytest.raises(ExecutionNotFound):
                store.count_descendant(gone, 9)

    def test_of_many_descendants_at_once_no_more_are_counted_than_there_may_be(self, store: Store) -> None:
        execution_id = create(store)
        counted = together(*[partial(store.count_descendant, execution_id, FEW)] * THREADS)
        assert sorted(counted, key=bool) == [False] * (THREADS - FEW) + [True] * FEW

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
