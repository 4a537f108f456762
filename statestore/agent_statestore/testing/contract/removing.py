"""`delete_context` and `clear`; and the isolation of the records that were read from what is stored."""

from typing import Any

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock
from agent_statestore.errors import ExecutionNotFound
from agent_statestore.query import Query
from agent_statestore.records import AgentContext, Message, RagChunk
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    AT,
    TTL,
    YEAR,
    answer,
    claim,
    claimed,
    context_of,
    create,
    done,
    due_ids,
    event,
    message,
    pause,
)
from agent_statestore.testing.kit.suite import Suite


def filled(store: Store, **fields: Any) -> str:
    """Return a claimed execution with something in every part."""
    execution_id, lease = claimed(store, input={"a": [1]}, metadata={"a": [1]}, session_id="s", **fields)
    store.send(execution_id, event({"a": [1]}))
    store.checkpoint(
        execution_id,
        Checkpoint(
            steps=(done(1, output={"a": [1]}),),
            messages=(Message(role="user", content={"a": [1]}, metadata={"a": [1]}, timestamp=AT),),
            working_memory={"k": {"a": [1]}},
            facts=({"a": [1]},),
            entities={"e": {"a": [1]}},
            rag_context=(RagChunk(content={"a": [1]}, metadata={"a": [1]}),),
        ),
        lease,
    )
    return execution_id


def spoil(value: Any) -> None:
    """Change every container inside the value."""
    if isinstance(value, dict):
        for inner in list(value.values()):
            spoil(inner)
        value["spoiled"] = True
    elif isinstance(value, list):
        for inner in value:
            spoil(inner)
        value.append("spoiled")


def spoil_context(context: AgentContext) -> None:
    """Change every mutable value of a context."""
    spoil(context.input)
    spoil(context.metadata)
    spoil(context.output)
    for step in context.steps:
        spoil(step.action.input)
        spoil(step.result.output if step.result else None)
    for item in context.memory.conversation_history:
        spoil(item.content)
        spoil(item.metadata)
    spoil(context.memory.working_memory)
    spoil(context.memory.entities)
    for fact in context.memory.facts:
        spoil(fact)
    for chunk in context.rag_context:
        spoil(chunk.content)
        spoil(chunk.metadata)
    for received in context.signals:
        spoil(received.payload)
    if context.waiting is not None:
        spoil(context.waiting.prompt)
        spoil(context.waiting.schema)


class RemovingConformance(Suite):
    """Removing, and isolation."""

    @pytest.mark.parametrize("ended", [False, True])
    def test_a_deleted_execution_is_gone_with_everything_of_it(
        self, store: Store, clock: ManualClock, ended: bool
    ) -> None:
        execution_id = filled(store, idempotency_key="key", user_id="u")
        (lease,) = store.find_leases("")
        if ended:
            store.update_state(execution_id, AgentState.COMPLETED, output=1, lease=lease)
        assert store.delete_context(execution_id) is True
        assert store.get_context(execution_id) is None
        assert store.get_summary(execution_id) is None
        assert store.get_steps(execution_id) == ()
        assert store.find_leases("") == ()
        assert store.claim(execution_id, "host:1", TTL) is None
        every_index: tuple[dict[str, Any], ...] = (
            {},
            {"session_id": "s"},
            {"user_id": "u"},
            {"agent_id": "agent"},
            {"states": AgentState},
        )
        for filters in every_index:
            assert store.find(Query(**filters)).items == ()
        clock.advance(YEAR)
        assert due_ids(store) == []
        assert store.delete_context(execution_id) is False

    def test_a_lease_on_a_deleted_execution_is_lost(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.delete_context(execution_id)
        assert store.renew([lease], TTL).lost == {execution_id}
        assert store.release(lease) is False
        with pytest.raises(ExecutionNotFound):
            store.checkpoint(execution_id, Checkpoint(messages=(message("late"),)), lease)
        assert store.get_context(execution_id) is None

    def test_the_idempotency_key_of_a_deleted_execution_is_free_again(self, store: Store) -> None:
        first = create(store, idempotency_key="key")
        store.delete_context(first)
        second = create(store, idempotency_key="key")
        assert second != first
        assert create(store, idempotency_key="key") == second

    def test_deleting_touches_no_other_execution(self, store: Store) -> None:
        deleted, kept = filled(store), filled(store)
        before = context_of(store, kept)
        store.delete_context(deleted)
        assert context_of(store, kept) == before
        assert [item.execution_id for item in store.find(Query(session_id="s")).items] == [kept]

    def test_clearing_removes_everything_and_says_how_many(self, store: Store, clock: ManualClock) -> None:
        assert store.clear() == 0
        made = [filled(store, idempotency_key=str(number)) for number in range(3)]
        waiting = create(store)
        store.checkpoint(waiting, pause())
        store.send(waiting, answer())
        assert store.clear() == 4
        assert [store.get_context(execution_id) for execution_id in (*made, waiting)] == [None] * 4
        assert store.find().items == ()
        assert store.find_leases("") == ()
        clock.advance(YEAR)
        assert due_ids(store) == []
        assert create(store, idempotency_key="0") not in made
        assert store.clear() == 1

    # -- isolation -----------------------------------------------------------------------------------------------------

    def test_changing_what_was_read_changes_nothing_that_is_stored(self, store: Store) -> None:
        execution_id = filled(store)
        before = context_of(store, execution_id)
        for read in (context_of(store, execution_id), context_of(store, execution_id)):
            spoil_context(read)
            assert read != before
        for item in store.find().items:
            spoil(item.metadata)
        for step in store.get_steps(execution_id):
            spoil(step.action.input)
        assert context_of(store, execution_id) == before

    def test_changing_what_a_create_or_a_claim_returned_changes_nothing_that_is_stored(self, store: Store) -> None:
        made = store.create_context("agent", {"a": [1]}, metadata={"a": [1]}, idempotency_key="key")
        store.checkpoint(made.execution_id, Checkpoint(working_memory={"k": {"a": [1]}}))
        spoil_context(made)
        spoil_context(store.create_context("agent", {"a": [1]}, idempotency_key="key"))
        spoil_context(claim(store, made.execution_id).context)
        context = context_of(store, made.execution_id)
        assert (context.input, context.metadata) == ({"a": [1]}, {"a": [1]})
        assert context.memory.working_memory == {"k": {"a": [1]}}

    def test_changing_what_is_waited_for_changes_nothing_that_is_stored(self, store: Store) -> None:
        execution_id = create(store)
        store.checkpoint(execution_id, pause())
        before = context_of(store, execution_id)
        spoil_context(context_of(store, execution_id))
        assert context_of(store, execution_id) == before

    def test_changing_what_was_written_changes_nothing_that_is_stored(self, store: Store) -> None:
        given: dict[str, Any] = {"a": [1]}
        execution_id = create(store, input=given, metadata=given)
        payload: dict[str, Any] = {"a": [1]}
        store.checkpoint(
            execution_id,
            Checkpoint(
                steps=(done(1, output=given),), messages=(message(given),), facts=(given,), working_memory={"k": given}
            ),
        )
        store.send(execution_id, event(payload))
        before = context_of(store, execution_id)
        spoil(given)
        spoil(payload)
        assert context_of(store, execution_id) == before
        assert before.input == {"a": [1]}

    def test_what_was_read_does_not_change_when_the_store_does(self, store: Store) -> None:
        execution_id = filled(store)
        (lease,) = store.find_leases("")
        read, summary, steps = context_of(store, execution_id), store.find().items, store.get_steps(execution_id)
        shown = repr((read, summary, steps))
        store.checkpoint(execution_id, Checkpoint(steps=(done(2),), working_memory={"k": 2}, facts=(2,)), lease)
        assert repr((read, summary, steps)) == shown
