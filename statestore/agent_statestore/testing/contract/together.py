"""Checkpoints of several executions in one call: each has the outcome that it would have alone."""

from datetime import timedelta

from agent_statestore.checkpoint import Checkpoint, LeasedWrite
from agent_statestore.clock import ManualClock
from agent_statestore.errors import (
    CheckpointConflict,
    ContextTooLarge,
    ExecutionNotFound,
    ExecutionOver,
    LeaseLost,
    NotSerialisable,
    StepConflict,
)
from agent_statestore.records import Checkpointed, Lease
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    cancel,
    claim,
    claimed,
    context_of,
    create,
    done,
    intent,
    message,
    pause,
)
from agent_statestore.testing.kit.suite import Suite


def _write(lease: Lease, checkpoint: Checkpoint) -> LeasedWrite:
    return LeasedWrite(checkpoint=checkpoint, lease=lease)


class TogetherConformance(Suite):
    """`Store.checkpoint_each`."""

    def test_nothing_is_written_for_nobody(self, store: Store) -> None:
        assert store.checkpoint_each([]) == []

    def test_each_is_applied_as_if_it_were_alone(self, store: Store) -> None:
        changes = [
            Checkpoint(steps=(done(1),)),
            Checkpoint(steps=(done(1), done(2))),
            Checkpoint(steps=(intent(1),), messages=(message("a"),)),
            Checkpoint(working_memory={"k": 1}, facts=("f",)),
            Checkpoint(state=AgentState.USING_TOOL, steps=(done(1),)),
            Checkpoint(state=AgentState.COMPLETED, output="x"),
            pause(),
        ]
        together = [claimed(store) for _ in changes]
        alone = [claimed(store) for _ in changes]
        written = store.checkpoint_each([_write(lease, one) for (_, lease), one in zip(together, changes, strict=True)])
        for outcome, (one, lease), change in zip(written, alone, changes, strict=True):
            assert outcome == store.checkpoint(one, change, lease)
        for (one, _), (other, _) in zip(together, alone, strict=True):
            found, wanted = context_of(store, one), context_of(store, other)
            for name in ("state", "memory", "version", "output", "crashes"):
                assert getattr(found, name) == getattr(wanted, name), name
            assert [step.name for step in found.steps] == [step.name for step in wanted.steps]

    def test_a_repetition_is_harmless(self, store: Store) -> None:
        writes = [_write(claimed(store)[1], Checkpoint(steps=(done(1),))) for _ in range(3)]
        first = store.checkpoint_each(writes[:2])
        assert store.checkpoint_each(writes)[:2] == first
        for write in writes:
            assert len(store.get_steps(write.lease.execution_id)) == 1

    def test_what_is_refused_leaves_the_others_alone(self, store: Store, clock: ManualClock) -> None:
        fine = [claimed(store)[1] for _ in range(2)]
        stale_id = create(store)
        stale = claim(store, stale_id, ttl=timedelta(seconds=1)).lease
        clock.advance(timedelta(seconds=2))
        over_id, over = claimed(store)
        store.checkpoint(over_id, Checkpoint(state=AgentState.COMPLETED), over)
        successor_id, zombie = claimed(store)
        store.release(zombie)
        claim(store, successor_id)
        gap, other = claimed(store)[1], claimed(store)[1]
        gone_id, gone = claimed(store)
        store.delete_context(gone_id)
        unfit, full = claimed(store)[1], claimed(store)[1]
        store.max_context_bytes, most = 2_000, store.max_context_bytes
        writes = [
            _write(fine[0], Checkpoint(steps=(done(1),))),
            _write(stale, Checkpoint(steps=(done(1),))),
            _write(over, Checkpoint(steps=(done(1),))),
            _write(zombie, Checkpoint(steps=(done(1),))),
            _write(gap, Checkpoint(steps=(done(7),))),
            _write(other, Checkpoint(steps=(done(1),), after_checkpoint="another")),
            _write(gone, Checkpoint(steps=(done(1),))),
            _write(unfit, Checkpoint(facts=(object(),))),
            _write(full, Checkpoint(steps=(done(1, output="x" * 3_000),))),
            _write(fine[1], Checkpoint(steps=(done(1),))),
        ]
        outcomes = store.checkpoint_each(writes)
        store.max_context_bytes = most
        kinds = [type(outcome) for outcome in outcomes]
        lost = [LeaseLost, ExecutionOver]  # an execution that is over has no lease
        assert kinds[2] in lost
        assert kinds == [
            Checkpointed,
            LeaseLost,
            kinds[2],
            LeaseLost,
            StepConflict,
            CheckpointConflict,
            ExecutionNotFound,
            NotSerialisable,
            ContextTooLarge,
            Checkpointed,
        ]
        steps = [len(store.get_steps(write.lease.execution_id)) for write in writes]
        assert steps == [1, *[0] * 8, 1]
        assert context_of(store, stale_id).version == 0

    def test_it_tells_of_a_cancel(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        _, other = claimed(store)
        store.send(execution_id, cancel())
        outcomes = store.checkpoint_each([_write(one, Checkpoint(steps=(done(1),))) for one in (lease, other)])
        assert [isinstance(one, Checkpointed) and one.cancel_requested for one in outcomes] == [True, False]
