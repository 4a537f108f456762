"""Why a write is refused, told from the header alone: the same rules in every database.

SQLite and MySQL ask before they write, under a lock. PostgreSQL writes on the same conditions in SQL and asks only when
nothing was written. A deleted execution has no header here.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent_statestore.codec import EncodedCheckpoint
from agent_statestore.envelope import require_readable
from agent_statestore.errors import (
    AlreadyAnswered,
    CheckpointConflict,
    ExecutionNotFound,
    ExecutionOver,
    IllegalTransition,
    LeaseHeld,
    LeaseLost,
    QuestionNotAsked,
    StepConflict,
)
from agent_statestore.records import Checkpointed, Lease, Sent, Signal
from agent_statestore.sql.tables import ANSWERING, COLUMNS, EXTRA_COLUMNS
from agent_statestore.states import ACTIVE, AgentState, may_move, sources_of

Header = dict[str, Any]


# What decides whether a checkpoint or a signal is accepted, and what it changes; none of it is large.
DECISIVE: Final = (
    "execution_id",
    "format",
    "state",
    "wait_key",
    "wait_signal",
    "version",
    "token",
    "cancel_requested",
    "lease_until_us",
    "due_us",
    "step_count",
    "checkpoint_id",
    *EXTRA_COLUMNS,
)


def header_of(row: tuple[Any, ...], columns: Sequence[str] = COLUMNS) -> Header:
    """The header in a row that starts with `columns`. `intents` and `pending` are JSON text but on PostgreSQL."""
    header = dict(zip(columns, row, strict=False))
    for name in ("intents", "pending"):
        value = header[name]
        if isinstance(value, str):
            header[name] = json.loads(value) if value != "{}" else {}
    return header


def writable_states(new: AgentState | None) -> frozenset[AgentState]:
    """The states in which a checkpoint with the state `new` is accepted."""
    if new is None:
        return ACTIVE
    writable = ACTIVE | {AgentState.FAILED} if new is AgentState.IDLE else ACTIVE
    return sources_of(new) & writable


def check_checkpoint(
    execution_id: str, header: Header | None, change: EncodedCheckpoint, lease: Lease | None, now_us: int
) -> Checkpointed | None:
    """Raises what keeps the checkpoint from being applied, in the contract's order; None if nothing does.

    A checkpoint that was applied before has its outcome returned.
    """
    if header is None:
        raise ExecutionNotFound(execution_id)
    if lease is None:
        require_readable(f"execution {execution_id}", header["format"])
    if header["checkpoint_id"] == change.checkpoint_id:
        return outcome(header, now_us)
    leased = header["lease_until_us"] > now_us
    if lease is not None and not (leased and header["token"] == lease.token):
        raise LeaseLost(execution_id, lease.token)
    current, new = AgentState(header["state"]), change.state
    if current.is_over and not (current is AgentState.FAILED and new is AgentState.IDLE):
        raise ExecutionOver(execution_id, current.value)
    if lease is None and leased:
        raise LeaseHeld(execution_id)
    after, last = change.after_checkpoint, header["checkpoint_id"] or ""
    if after is not None and after != last:
        raise CheckpointConflict(execution_id, after, last)
    if new is not None and not may_move(current, new):
        raise IllegalTransition(execution_id, current.value, new.value)
    count, intents = header["step_count"], header["intents"]
    for step in change.steps:
        if step.number != count + 1 and not (step.number <= count and intents.get(str(step.number)) == step.name):
            raise StepConflict(execution_id, step.number, header["step_count"])
        count = max(count, step.number)
    return None


def outcome(header: Mapping[str, Any], now_us: int) -> Checkpointed:
    """What a checkpoint answers, from the header after it."""
    return Checkpointed(
        version=header["version"],
        cancel_requested=bool(header["cancel_requested"]),
        due_now=AgentState(header["state"]).is_paused and header["due_us"] is not None and header["due_us"] <= now_us,
    )


def check_signal(
    execution_id: str, header: Header | None, signal: Signal, *, sent: bool = False, answered: bool
) -> Sent | None:
    """Raises what keeps the signal out of the mailbox, in the contract's order; None if nothing does.

    `sent`: whether it was accepted before; then its outcome is returned. `answered`: whether one of its kind and key
    was.
    """
    if header is None:
        raise ExecutionNotFound(execution_id)
    require_readable(f"execution {execution_id}", header["format"])
    if sent:
        return Sent(woke=False)
    if AgentState(header["state"]).is_over:
        raise ExecutionOver(execution_id, header["state"])
    if signal.kind.value in ANSWERING:
        if answered:
            raise AlreadyAnswered(execution_id, signal.key)
        if (header["wait_signal"], header["wait_key"]) != (signal.kind.value, signal.key):
            raise QuestionNotAsked(execution_id, signal.key)
    return None
