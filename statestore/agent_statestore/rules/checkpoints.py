"""When a checkpoint is accepted, and how it changes the header."""

from collections.abc import Collection, Mapping
from typing import Any

from agent_statestore.codec import NEVER_US, EncodedCheckpoint
from agent_statestore.codec.steps import EncodedStep
from agent_statestore.codec.waits import encode_awaited
from agent_statestore.envelope import require_readable
from agent_statestore.errors import (
    CheckpointConflict,
    ExecutionNotFound,
    ExecutionOver,
    IllegalTransition,
    LeaseHeld,
    LeaseLost,
    StepConflict,
)
from agent_statestore.records import Checkpointed, Lease
from agent_statestore.rules.growth import Growth
from agent_statestore.rules.leases import Changes, Header, is_held_by, is_leased
from agent_statestore.states import ACTIVE, WORKING, AgentState, may_move, sources_of


def writable_states(new: AgentState | None) -> frozenset[AgentState]:
    """Return the states in which a checkpoint with the state `new` is accepted."""
    if new is None:
        return ACTIVE
    writable = ACTIVE | {AgentState.FAILED} if new is AgentState.IDLE else ACTIVE
    return sources_of(new) & writable


def check_checkpoint(
    execution_id: str,
    header: Header | None,
    change: EncodedCheckpoint,
    lease: Lease | None,
    intents: Mapping[str, str],
    now_us: int,
    growth: Growth,
) -> Checkpointed | None:
    """Raise what keeps the checkpoint from being applied, in the contract's order; return None if nothing does.

    For a checkpoint that was applied before, return its outcome. `intents` maps the number of each step that has no
    result yet to its name; steps that the checkpoint does not mention may be left out. `growth` is that of the context.
    """
    if header is None:
        raise ExecutionNotFound(execution_id)
    if lease is None:
        require_readable(f"execution {execution_id}", header["format"])
    if header["checkpoint_id"] == change.checkpoint_id:
        return outcome(header, now_us)
    if lease is not None and not is_held_by(header, lease, now_us):
        raise LeaseLost(execution_id, lease.token)
    current, new = AgentState(header["state"]), change.state
    if current.is_over and not (current is AgentState.FAILED and new is AgentState.IDLE):
        raise ExecutionOver(execution_id, current.value)
    if lease is None and is_leased(header, now_us):
        raise LeaseHeld(execution_id)
    after, last = change.after_checkpoint, header["checkpoint_id"] or ""
    if after is not None and after != last:
        raise CheckpointConflict(execution_id, after, last)
    if new is not None and not may_move(current, new):
        raise IllegalTransition(execution_id, current.value, new.value)
    _check_steps(execution_id, header["step_count"], change.steps, intents)
    growth.check(execution_id, change)
    return None


def _check_steps(execution_id: str, recorded: int, steps: Collection[EncodedStep], intents: Mapping[str, str]) -> None:
    count = recorded
    for step in steps:
        if step.number != count + 1 and not (step.number <= count and intents.get(str(step.number)) == step.name):
            raise StepConflict(execution_id, step.number, recorded)
        count = max(count, step.number)


def checkpoint_changes(
    header: Header, change: EncodedCheckpoint, lease: Lease | None, pending: Collection[str], now_us: int
) -> Changes:
    """Return what an accepted checkpoint changes.

    `pending` holds the addresses of the signals that are still in the mailbox after this checkpoint; it matters only if
    the checkpoint pauses.
    """
    changes: Changes = {
        "version": header["version"] + 1,
        "checkpoint_id": change.checkpoint_id,
        "updated_us": now_us,
    }
    if change.steps:
        changes["step_count"] = max(header["step_count"], change.steps[-1].number)
        changes["crashes"] = 0
    if change.format > header["format"]:
        changes["format"] = change.format
    if change.state is not None:
        changes |= _state_changes(header, change, change.state, lease, pending, now_us)
    return changes


def _state_changes(
    header: Header,
    change: EncodedCheckpoint,
    state: AgentState,
    lease: Lease | None,
    pending: Collection[str],
    now_us: int,
) -> Changes:
    changes: Changes = {
        "state": state.value,
        "waits": change.waits,
        "awaited": encode_awaited(change.awaited),
    }
    if state.is_paused:
        changes["crashes"] = 0
        if header["cancel_requested"] or not set(change.awaited).isdisjoint(pending):
            changes |= {"due_us": now_us, "not_before_us": 0}
        else:
            changes["due_us"] = change.wake_us
            changes["not_before_us"] = NEVER_US if change.wake_us is None else change.wake_us
    if state.is_over:
        changes |= {
            "output": change.output,
            "error": change.error,
            "due_us": None if change.announce_us is None else now_us + change.announce_us,
            "ended_us": now_us,
        }
    if change.gives_back_lease:
        changes |= {"owner": None, "lease_until_us": 0, "rings": 0}
    if lease is None and state in WORKING:
        changes |= {"due_us": now_us, "not_before_us": 0}
    if state is AgentState.IDLE:
        changes |= {
            "output": None,
            "error": None,
            "crashes": 0,
            "rings": 0,
            "not_before_us": 0,
            "due_us": now_us,
            "ended_us": None,
        }
    return changes


def outcome(header: Mapping[str, Any], now_us: int) -> Checkpointed:
    """Return what a checkpoint answers, from the header after it."""
    return Checkpointed(
        version=header["version"],
        cancel_requested=bool(header["cancel_requested"]),
        due_now=AgentState(header["state"]).is_paused and header["due_us"] is not None and header["due_us"] <= now_us,
    )
