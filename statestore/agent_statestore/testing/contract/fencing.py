"""Who may write: every kind of write, under every kind of lost lease."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock
from agent_statestore.errors import ExecutionOver, LeaseHeld, LeaseLost
from agent_statestore.records import Lease, RagChunk, Result, SignalKind, WaitKind
from agent_statestore.states import OVER, AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    BOOM,
    TTL,
    claim,
    context_of,
    create,
    done,
    event,
    intent,
    message,
    move,
    pause,
    signal,
)
from agent_statestore.testing.kit.matrix import cells
from agent_statestore.testing.kit.suite import Suite

Write: TypeAlias = Callable[[Store, str, Lease | None], object]
Loss: TypeAlias = Callable[[Store, Lease, ManualClock], None]

SIGNAL_ID = "the-signal"


def _checkpoint(**fields: Any) -> Write:
    return lambda store, execution_id, lease: store.checkpoint(execution_id, Checkpoint(**fields), lease)


# Each is legal on an execution with one recorded intent and one signal in its mailbox.
WRITES: dict[str, Write] = {
    "nothing": _checkpoint(),
    "step": _checkpoint(steps=(done(2),)),
    "intent": _checkpoint(steps=(intent(2),)),
    "result": _checkpoint(steps=(done(1),)),
    "message": _checkpoint(messages=(message("late"),)),
    "working_memory": _checkpoint(working_memory={"late": 1}),
    "forget": _checkpoint(forget=("kept",)),
    "fact": _checkpoint(facts=("late",)),
    "entity": _checkpoint(entities={"late": 1}),
    "rag_context": _checkpoint(rag_context=(RagChunk(content="late"),)),
    "consumed": _checkpoint(consumed=(SIGNAL_ID,)),
    "state": _checkpoint(state=AgentState.USING_TOOL),
    "output": _checkpoint(state=AgentState.COMPLETED, output="late"),
    "error": _checkpoint(state=AgentState.FAILED, error=BOOM),
    "cancelled": _checkpoint(state=AgentState.CANCELLED),
    "pause for input": lambda store, execution_id, lease: store.checkpoint(execution_id, pause(), lease),
    "pause for approval": lambda store, execution_id, lease: store.checkpoint(
        execution_id, pause(WaitKind.APPROVAL), lease
    ),
    "pause for an event": lambda store, execution_id, lease: store.checkpoint(
        execution_id, pause(WaitKind.EVENT), lease
    ),
    "update_state": lambda store, execution_id, lease: store.update_state(
        execution_id, AgentState.COMPLETED, output="late", lease=lease
    ),
    "add_step": lambda store, execution_id, lease: store.add_step(
        execution_id, "late", result=Result(success=True), lease=lease
    ),
    "update_last_step": lambda store, execution_id, lease: store.update_last_step(
        execution_id, Result(success=True), lease=lease
    ),
    "add_message": lambda store, execution_id, lease: store.add_message(execution_id, "user", "late", lease=lease),
    "set_working_memory": lambda store, execution_id, lease: store.set_working_memory(
        execution_id, "late", 1, lease=lease
    ),
    "add_fact": lambda store, execution_id, lease: store.add_fact(execution_id, "late", lease=lease),
    "set_entity": lambda store, execution_id, lease: store.set_entity(execution_id, "late", 1, lease=lease),
    "add_rag_context": lambda store, execution_id, lease: store.add_rag_context(
        execution_id, [RagChunk(content="late")], lease=lease
    ),
}


def _expire(store: Store, lease: Lease, clock: ManualClock) -> None:
    assert store.get_summary(lease.execution_id) is not None
    clock.advance(TTL)


def _expire_and_claim(store: Store, lease: Lease, clock: ManualClock, owner: str = "host:2") -> None:
    clock.advance(TTL)
    claim(store, lease.execution_id, owner)


def _release(store: Store, lease: Lease, _: ManualClock) -> None:
    assert store.release(lease)


def _release_and_claim(store: Store, lease: Lease, _: ManualClock) -> None:
    assert store.release(lease)
    claim(store, lease.execution_id, "host:2")


def _break(store: Store, lease: Lease, _: ManualClock) -> None:
    assert store.release(lease, crashed=True)


def _pause(store: Store, lease: Lease, _: ManualClock) -> None:
    store.checkpoint(lease.execution_id, pause(), lease)


def _end(store: Store, lease: Lease, _: ManualClock) -> None:
    store.update_state(lease.execution_id, AgentState.CANCELLED, lease=lease)


LOSSES: dict[str, Loss] = {
    "expired": _expire,
    "claimed by another": _expire_and_claim,
    "claimed again by the same owner": partial(_expire_and_claim, owner="host:1"),
    "given back": _release,
    "given back and claimed": _release_and_claim,
    "broken": _break,
    "paused": _pause,
    "over": _end,
}

ENDS: dict[str, AgentState] = {over.value: over for over in sorted(OVER)}


def prepared(store: Store) -> tuple[str, Lease]:
    """Return a claimed execution on which each of `WRITES` is legal."""
    execution_id = create(store)
    lease = claim(store, execution_id).lease
    store.checkpoint(execution_id, Checkpoint(steps=(intent(1),), working_memory={"kept": 1}), lease)
    store.send(execution_id, signal(SignalKind.EVENT, "e", signal_id=SIGNAL_ID))
    return execution_id, lease


class FencingConformance(Suite):
    """Fencing tokens, and writes without a lease."""

    @cells(write=WRITES)
    def test_the_holder_of_the_lease_may_write(self, store: Store, write: Write) -> None:
        execution_id, lease = prepared(store)
        write(store, execution_id, lease)
        assert context_of(store, execution_id).version == 2

    @cells(write=WRITES, lose=LOSSES)
    def test_a_write_under_a_lost_lease_is_refused_and_changes_nothing(
        self, store: Store, clock: ManualClock, write: Write, lose: Loss
    ) -> None:
        execution_id, lease = prepared(store)
        lose(store, lease, clock)
        before = context_of(store, execution_id)
        with pytest.raises(LeaseLost) as refused:
            write(store, execution_id, lease)
        assert (refused.value.execution_id, refused.value.token) == (execution_id, lease.token)
        assert context_of(store, execution_id) == before

    def test_a_token_that_was_never_given_is_refused(self, store: Store) -> None:
        execution_id, lease = prepared(store)
        for token in (lease.token + 1, 0, -1):
            forged = Lease(
                execution_id=execution_id, token=token, owner=lease.owner, ttl=TTL, expires_at=lease.expires_at
            )
            with pytest.raises(LeaseLost):
                store.checkpoint(execution_id, Checkpoint(), forged)
            assert store.renew([forged], TTL).lost == {execution_id}
            assert store.release(forged) is False

    def test_the_token_zero_is_no_lease_on_an_execution_that_nobody_claimed(self, store: Store) -> None:
        lease = prepared(store)[1]
        execution_id = create(store)
        forged = Lease(execution_id=execution_id, token=0, owner=lease.owner, ttl=TTL, expires_at=lease.expires_at)
        with pytest.raises(LeaseLost):
            store.checkpoint(execution_id, Checkpoint(), forged)

    @cells(write=WRITES)
    def test_a_lease_of_another_execution_is_refused_though_its_token_is_the_same(
        self, store: Store, write: Write
    ) -> None:
        execution_id, lease = prepared(store)
        other = prepared(store)[1]
        assert other.token == lease.token
        before = context_of(store, execution_id), context_of(store, other.execution_id)
        with pytest.raises(LeaseLost) as refused:
            write(store, execution_id, other)
        assert (refused.value.execution_id, refused.value.token) == (execution_id, other.token)
        assert (context_of(store, execution_id), context_of(store, other.execution_id)) == before

    def test_a_lease_of_another_execution_does_not_even_repeat(self, store: Store) -> None:
        execution_id, lease = prepared(store)
        change = Checkpoint(steps=(done(2),))
        store.checkpoint(execution_id, change, lease)
        with pytest.raises(LeaseLost):
            store.checkpoint(execution_id, change, prepared(store)[1])

    @cells(write=WRITES)
    def test_without_a_lease_nobody_writes_while_one_lives(
        self, store: Store, clock: ManualClock, write: Write
    ) -> None:
        execution_id, _ = prepared(store)
        before = context_of(store, execution_id)
        with pytest.raises(LeaseHeld):
            write(store, execution_id, None)
        assert context_of(store, execution_id) == before
        clock.advance(TTL)
        write(store, execution_id, None)
        assert context_of(store, execution_id).version == 2

    @cells(write=WRITES)
    def test_without_a_lease_anybody_writes_to_an_unclaimed_execution(self, store: Store, write: Write) -> None:
        execution_id, lease = prepared(store)
        store.release(lease)
        write(store, execution_id, None)
        assert context_of(store, execution_id).version == 2

    @cells(write=WRITES, over=ENDS)
    def test_nothing_is_written_after_the_end(self, store: Store, write: Write, over: AgentState) -> None:
        execution_id, lease = prepared(store)
        move(store, execution_id, over, lease)
        before = context_of(store, execution_id)
        with pytest.raises(ExecutionOver) as refused:
            write(store, execution_id, None)
        assert (refused.value.execution_id, refused.value.state) == (execution_id, over.value)
        with pytest.raises(LeaseLost):
            write(store, execution_id, lease)
        with pytest.raises(ExecutionOver):
            store.send(execution_id, event())
        assert context_of(store, execution_id) == before

    def test_a_lost_lease_is_named_before_any_other_fault(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = prepared(store)
        clock.advance(TTL)
        wrong = Checkpoint(state=AgentState.IDLE, steps=(done(9),))
        with pytest.raises(LeaseLost):
            store.checkpoint(execution_id, wrong, lease)

    def test_a_living_lease_is_named_before_an_illegal_transition(self, store: Store) -> None:
        execution_id, _ = prepared(store)
        with pytest.raises(LeaseHeld):
            store.checkpoint(execution_id, Checkpoint(state=AgentState.IDLE, steps=(done(9),)))

    def test_a_write_under_a_lease_leaves_the_lease_alone(self, store: Store) -> None:
        execution_id, lease = prepared(store)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),), state=AgentState.USING_TOOL), lease)
        context = context_of(store, execution_id)
        assert (context.owner, context.lease_expires_at, context.due_at) == (
            lease.owner,
            lease.expires_at,
            lease.expires_at,
        )
