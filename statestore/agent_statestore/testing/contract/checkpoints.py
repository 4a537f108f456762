"""Checkpoints as a whole: all or nothing, versions, repetition; and the steps in them."""

from datetime import timedelta

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import ExecutionNotFound, InvalidRecord, StepConflict
from agent_statestore.records import Action, AgentStep, RagChunk, Result, StepChanges
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    AT,
    BOOM,
    TTL,
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
    summary_of,
)
from agent_statestore.testing.kit.suite import Suite


class CheckpointConformance(Suite):
    """`checkpoint` and the familiar operations on steps."""

    def test_all_parts_of_a_checkpoint_are_written_together(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        sent = event()
        store.send(execution_id, sent)
        clock.advance(timedelta(seconds=1))
        written = store.checkpoint(
            execution_id,
            Checkpoint(
                steps=(done(1), intent(2)),
                messages=(message("a"), message("b")),
                working_memory={"k": 1, "gone": 2},
                forget=("gone", "never there"),
                facts=("f", {"g": 1}),
                entities={"e": 1},
                rag_context=(RagChunk(content="c", source="s", score=0.5, metadata={"m": 1}),),
                state=AgentState.USING_TOOL,
                consumed=(sent.signal_id,),
            ),
            lease,
        )
        assert (written.version, written.cancel_requested, written.due_now) == (1, False, False)
        context = context_of(store, execution_id)
        assert context.steps == (done(1), intent(2))
        assert context.memory.conversation_history == (message("a"), message("b"))
        assert context.memory.working_memory == {"k": 1}
        assert context.memory.facts == ("f", {"g": 1})
        assert context.memory.entities == {"e": 1}
        assert context.rag_context == (RagChunk(content="c", source="s", score=0.5, metadata={"m": 1}),)
        assert (context.state, context.signals, context.version) == (AgentState.USING_TOOL, (), 1)
        assert context.updated_at == from_us(clock.now_us())

    def test_a_refused_checkpoint_writes_none_of_its_parts(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        sent = event()
        store.send(execution_id, sent)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),), working_memory={"kept": 1}), lease)
        before = context_of(store, execution_id)
        with pytest.raises(StepConflict):
            store.checkpoint(
                execution_id,
                Checkpoint(
                    steps=(done(2), done(4)),
                    messages=(message("a"),),
                    working_memory={"k": 1},
                    forget=("kept",),
                    facts=("f",),
                    entities={"e": 1},
                    rag_context=(RagChunk(content="c"),),
                    state=AgentState.COMPLETED,
                    output=1,
                    consumed=(sent.signal_id,),
                ),
                lease,
            )
        assert context_of(store, execution_id) == before
        store.checkpoint(execution_id, Checkpoint(steps=(done(2),)), lease)

    def test_each_checkpoint_is_one_version_more(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        assert [store.checkpoint(execution_id, Checkpoint(), lease).version for _ in range(3)] == [1, 2, 3]
        store.renew([lease], TTL)
        store.send(execution_id, event())
        store.release(lease)
        assert claim(store, execution_id).context.version == 3

    @pytest.mark.parametrize(
        "change",
        [
            Checkpoint(steps=(done(1),), messages=(message("a"),), facts=("f",), rag_context=(RagChunk(content="c"),)),
            Checkpoint(state=AgentState.COMPLETED, output="x", announce_within=TTL),
            Checkpoint(state=AgentState.FAILED, error=BOOM),
            pause(messages=(message("a"),)),
        ],
        ids=["working", "completed", "failed", "paused"],
    )
    def test_a_repeated_checkpoint_is_a_success_without_any_effect(
        self, store: Store, clock: ManualClock, change: Checkpoint
    ) -> None:
        execution_id, lease = claimed(store)
        first = store.checkpoint(execution_id, change, lease)
        before = context_of(store, execution_id)
        clock.advance(timedelta(seconds=1))
        assert store.checkpoint(execution_id, change, lease) == first
        clock.advance(TTL)
        assert store.checkpoint(execution_id, change, lease).version == first.version
        assert store.checkpoint(execution_id, change).version == first.version
        assert context_of(store, execution_id) == before

    def test_a_repeated_checkpoint_is_harmless_even_under_a_successor(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        change = Checkpoint(steps=(done(1),))
        store.checkpoint(execution_id, change, lease)
        clock.advance(TTL)
        claim(store, execution_id, "host:2")
        before = context_of(store, execution_id)
        store.checkpoint(execution_id, change, lease)
        assert context_of(store, execution_id) == before

    def test_a_cancel_is_reported_by_each_checkpoint(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        assert store.checkpoint(execution_id, Checkpoint(), lease).cancel_requested is False
        store.send(execution_id, cancel())
        assert store.checkpoint(execution_id, Checkpoint(), lease).cancel_requested is True

    # -- steps ---------------------------------------------------------------------------------------------------------

    def test_every_field_of_a_step_is_kept(self, store: Store) -> None:
        execution_id = create(store)
        steps = (
            AgentStep(
                step_number=1,
                name="search#2 \N{SLIGHTLY SMILING FACE} 'x'",
                action=Action(kind="tool", tool="t", input={"a": [1]}, thought="hm", title="as shown"),
                result=Result(success=False, error=BOOM, output={"partial": 1}),
                attempt=3,
                tries=4,
                timestamp=AT,
                duration=timedelta(days=2, microseconds=1),
                changes=StepChanges(memory={"m": [1]}, forgotten=("f",), messages=2, facts=3),
                said=0,
                remembered=5,
            ),
            AgentStep(step_number=2, name="x" * 255, action=Action(kind="k"), timestamp=AT),
            AgentStep(step_number=3, name="n", action=Action(kind="k"), result=Result(success=True), timestamp=AT),
        )
        store.checkpoint(execution_id, Checkpoint(steps=steps))
        assert context_of(store, execution_id).steps == store.get_steps(execution_id) == steps

    def test_steps_are_read_by_page(self, store: Store) -> None:
        execution_id = create(store)
        steps = tuple(done(number) for number in range(1, 6))
        store.checkpoint(execution_id, Checkpoint(steps=steps))
        pages = {(0, 1): steps[:1], (0, 5): steps, (2, 2): steps[2:4], (4, 9): steps[4:], (5, 1): ()}
        pages[-3, 2] = steps[:2]
        assert {asked: store.get_steps(execution_id, *asked) for asked in pages} == pages
        for limit in (0, -1, True, 1.5):
            with pytest.raises(InvalidRecord):
                store.get_steps(execution_id, 0, limit)  # type: ignore[arg-type]

    @pytest.mark.parametrize("number", [2, 3, 100])
    def test_the_first_step_is_number_one(self, store: Store, number: int) -> None:
        execution_id = create(store)
        with pytest.raises(StepConflict) as refused:
            store.checkpoint(execution_id, Checkpoint(steps=(done(number),)))
        assert (refused.value.step_number, refused.value.recorded) == (number, 0)
        assert store.get_steps(execution_id) == ()

    @pytest.mark.parametrize("numbers", [(4,), (3, 5), (3, 4, 6), (1, 3), (2, 4)])
    def test_steps_are_numbered_without_gaps(self, store: Store, numbers: tuple[int, ...]) -> None:
        execution_id = create(store)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1), done(2))))
        with pytest.raises(StepConflict):
            store.checkpoint(execution_id, Checkpoint(steps=tuple(done(number) for number in numbers)))
        assert store.get_steps(execution_id) == (done(1), done(2))
        assert summary_of(store, execution_id).step_count == 2

    @pytest.mark.parametrize("again", [done(1, output="other"), done(1, "other"), intent(1)])
    def test_a_recorded_step_is_never_overwritten(self, store: Store, again: AgentStep) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1, output="first"),)), lease)
        with pytest.raises(StepConflict):
            store.checkpoint(execution_id, Checkpoint(steps=(again,)), lease)
        with pytest.raises(StepConflict):
            store.checkpoint(execution_id, Checkpoint(steps=(again, done(2))), lease)
        assert store.get_steps(execution_id) == (done(1, output="first"),)

    @pytest.mark.parametrize("first", [done(1), intent(1)], ids=["done", "intent"])
    def test_a_filled_intent_is_never_filled_again(self, store: Store, first: AgentStep) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(steps=(intent(1),)), lease)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1, output="first"),)), lease)
        with pytest.raises(StepConflict):
            store.checkpoint(execution_id, Checkpoint(steps=(first,)), lease)
        assert store.get_steps(execution_id) == (done(1, output="first"),)

    def test_intents_are_replaced_by_their_results_in_any_order(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(steps=(intent(1), intent(2), intent(3))), lease)
        store.checkpoint(execution_id, Checkpoint(steps=(done(2),)), lease)
        assert store.get_steps(execution_id) == (intent(1), done(2), intent(3))
        store.checkpoint(execution_id, Checkpoint(steps=(done(1), done(3), done(4))), lease)
        assert store.get_steps(execution_id) == (done(1), done(2), done(3), done(4))
        assert summary_of(store, execution_id).step_count == 4

    def test_an_intent_is_replaced_by_a_newer_intent(self, store: Store) -> None:
        execution_id = create(store)
        store.checkpoint(execution_id, Checkpoint(steps=(intent(1),)))
        newer = AgentStep(step_number=1, name="step-1", action=Action(kind="tool", input=2), attempt=2, timestamp=AT)
        store.checkpoint(execution_id, Checkpoint(steps=(newer,)))
        assert store.get_steps(execution_id) == (newer,)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),)))

    @pytest.mark.parametrize("name", ["other", "Step-1", "step-1 "])
    def test_an_intent_is_not_replaced_by_a_step_of_another_name(self, store: Store, name: str) -> None:
        execution_id = create(store)
        store.checkpoint(execution_id, Checkpoint(steps=(intent(1),)))
        with pytest.raises(StepConflict):
            store.checkpoint(execution_id, Checkpoint(steps=(done(1, name),)))
        assert store.get_steps(execution_id) == (intent(1),)

    def test_steps_go_on_across_claims(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1), intent(2))), lease)
        clock.advance(TTL)
        lease = claim(store, execution_id).lease
        store.checkpoint(execution_id, Checkpoint(steps=(done(2), done(3))), lease)
        assert store.get_steps(execution_id) == (done(1), done(2), done(3))

    def test_add_step_takes_the_next_number_and_update_last_step_fills_it(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        first = store.add_step(execution_id, "a", result=Result(success=True, output=1), lease=lease)
        second = store.add_step(execution_id, "b", Action(kind="tool", tool="t"), lease=lease)
        assert (first.step_number, second.step_number, second.attempt) == (1, 2, 1)
        filled = store.update_last_step(
            execution_id, Result(success=False, error=BOOM), duration=timedelta(seconds=1), lease=lease
        )
        assert store.get_steps(execution_id) == (first, filled)
        assert (filled.name, filled.action, filled.timestamp) == ("b", second.action, second.timestamp)
        with pytest.raises(StepConflict):
            store.update_last_step(execution_id, Result(success=True), lease=lease)

    def test_without_steps_there_is_no_last_one_to_update(self, store: Store) -> None:
        with pytest.raises(StepConflict):
            store.update_last_step(create(store), Result(success=True))
        with pytest.raises(ExecutionNotFound):
            store.update_last_step("unknown", Result(success=True))
        with pytest.raises(ExecutionNotFound):
            store.add_step("unknown", "a")
