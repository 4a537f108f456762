"""Checkpoints that build on the one before: a lost write, or one by somebody else, is noticed."""

from dataclasses import replace
from datetime import timedelta

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock
from agent_statestore.errors import CheckpointConflict, LeaseHeld, LeaseLost
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    BOOM,
    TTL,
    claim,
    claimed,
    context_of,
    create,
    done,
    event,
    intent,
    message,
    pause,
)
from agent_statestore.testing.kit.suite import Suite

changes = pytest.mark.parametrize(
    "change",
    [
        Checkpoint(),
        Checkpoint(steps=(done(2),)),
        Checkpoint(steps=(done(2),), messages=(message("a"),)),
        Checkpoint(steps=(done(2), done(3))),
        Checkpoint(steps=(intent(2),)),
        Checkpoint(working_memory={"k": 1}, forget=("gone",)),
        Checkpoint(state=AgentState.USING_TOOL),
        Checkpoint(state=AgentState.COMPLETED, output="x", announce_within=TTL),
        Checkpoint(state=AgentState.FAILED, error=BOOM),
        pause(),
    ],
    ids=["empty", "step", "message", "steps", "intent", "memory", "state", "completed", "failed", "paused"],
)


class ChainingConformance(Suite):
    """`Checkpoint.after_checkpoint`."""

    @changes
    def test_a_checkpoint_that_builds_on_the_last_one_is_applied(self, store: Store, change: Checkpoint) -> None:
        execution_id, lease = claimed(store)
        first = Checkpoint(steps=(done(1),), after_checkpoint="")
        store.checkpoint(execution_id, first, lease)
        second = replace(change, after_checkpoint=first.checkpoint_id)
        written = store.checkpoint(execution_id, second, lease)
        assert written.version == 2
        assert context_of(store, execution_id).last_checkpoint == second.checkpoint_id
        assert store.checkpoint(execution_id, second, lease) == written, "a repetition, whose answer was lost"

    @changes
    @pytest.mark.parametrize("after", ["", "another"], ids=["none", "another"])
    def test_a_checkpoint_that_builds_on_another_one_writes_nothing(
        self, store: Store, change: Checkpoint, after: str
    ) -> None:
        execution_id, lease = claimed(store)
        last = Checkpoint(steps=(done(1),), working_memory={"gone": 1})
        store.checkpoint(execution_id, last, lease)
        before = context_of(store, execution_id)
        with pytest.raises(CheckpointConflict) as refused:
            store.checkpoint(execution_id, replace(change, after_checkpoint=after), lease)
        assert (refused.value.expected, refused.value.found) == (after, last.checkpoint_id)
        assert context_of(store, execution_id) == before

    @pytest.mark.parametrize("change", [Checkpoint(), Checkpoint(steps=(done(1),)), pause()])
    def test_nothing_builds_on_a_checkpoint_that_never_was(self, store: Store, change: Checkpoint) -> None:
        execution_id, lease = claimed(store)
        before = context_of(store, execution_id)
        with pytest.raises(CheckpointConflict) as refused:
            store.checkpoint(execution_id, replace(change, after_checkpoint="lost"), lease)
        assert (refused.value.expected, refused.value.found) == ("lost", "")
        assert context_of(store, execution_id) == before

    def test_what_is_no_checkpoint_does_not_come_between(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        assert context_of(store, execution_id).last_checkpoint == ""
        store.renew([lease], TTL)
        store.send(execution_id, event())
        change = Checkpoint(after_checkpoint="")
        store.checkpoint(execution_id, change, lease)
        clock.advance(TTL)
        assert claim(store, execution_id, "host:2").context.last_checkpoint == change.checkpoint_id

    def test_a_writer_without_a_lease_may_build_on_a_checkpoint_too(self, store: Store) -> None:
        execution_id = create(store)
        store.checkpoint(execution_id, Checkpoint(messages=(message("a"),), after_checkpoint=""))
        with pytest.raises(CheckpointConflict):
            store.checkpoint(execution_id, Checkpoint(messages=(message("b"),), after_checkpoint=""))
        assert [said.content for said in context_of(store, execution_id).memory.conversation_history] == ["a"]

    def test_the_lease_is_looked_at_first(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        with pytest.raises(LeaseHeld):
            store.checkpoint(execution_id, Checkpoint(after_checkpoint="lost"))
        clock.advance(TTL + timedelta(seconds=1))
        with pytest.raises(LeaseLost):
            store.checkpoint(execution_id, Checkpoint(after_checkpoint="lost"), lease)
