"""The header of an execution: a flat mapping whose names are the same in every backend."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from agent_statestore.checkpoint import NewExecution
from agent_statestore.clock import EPOCH, duration_us, from_us, to_us
from agent_statestore.codec.failures import error_of
from agent_statestore.codec.waits import decode_waits
from agent_statestore.envelope import (
    DAMAGE,
    Fields,
    needed_format,
    octets,
    reason_of_damage,
    require_readable,
    seal_value,
    unseal,
    unseal_value,
)
from agent_statestore.errors import FormatTooNew
from agent_statestore.records import ExecutionSummary
from agent_statestore.states import AgentState

T = TypeVar("T")

# Larger than any real time in microseconds, and still exact in a double, the number type of Lua.
NEVER_US: Final = 2**53 - 1

# name: meaning. Times are microseconds since the epoch.
HEADER_FIELDS: Final = {
    "execution_id": "the execution",
    "format": "highest format version of the header, the plain JSON values and all envelopes",
    "agent_id": "which agent",
    "session_id": "conversation, or null",
    "user_id": "user, or null",
    "parent_execution_id": "the execution that spawned this one, or null",
    "idempotency_key": "unique per agent, or null",
    "queue": "Celery queue to ring on, or null for the default",
    "priority": "message priority, or null",
    "metadata": "JSON object",
    "input": "JSON",
    "state": "AgentState",
    "waits": "envelope of the Waits, or null",
    "awaited": "JSON array of the addresses of the signals that end the pause, or null",
    "output": "JSON, or null while not completed",
    "error": "envelope of ErrorInfo, or null",
    "version": "applied checkpoints",
    "token": "last fencing token = number of claims; 0 = never claimed",
    "crashes": "claims in a row that recorded nothing and were not given back",
    "rings": "rings since something last happened",
    "cancel_requested": "1 once a cancel is in the mailbox",
    "owner": "owner of the last claim until its lease is given back, else null",
    "lease_until_us": "end of the lease; 0 = no lease",
    "not_before_us": "a claim is refused before; 0 = at once, NEVER_US = only a signal ends the pause",
    "due_us": "when the bell is rung next, or null",
    "step_count": "highest step number",
    "checkpoint_id": "id of the last applied checkpoint, or null",
    "created_us": "creation",
    "updated_us": "last write",
    "ended_us": "when it was over, or null",
}


def encode_new(execution_id: str, new: NewExecution, now_us: int | None, max_bytes: int) -> dict[str, str | int | None]:
    """Return the header of a new execution.

    With `now_us` None the caller's server fills in `created_us`, `updated_us` and (unless `start_at` set it) `due_us`.
    """
    start_us = None if new.start_at is None else to_us(new.start_at)
    first_ring_us = duration_us(new.first_ring)
    header: dict[str, str | int | None] = {
        "execution_id": execution_id,
        "agent_id": new.agent_id,
        "session_id": new.session_id,
        "user_id": new.user_id,
        "parent_execution_id": new.parent_execution_id,
        "idempotency_key": new.idempotency_key,
        "queue": new.queue,
        "priority": new.priority,
        "metadata": seal_value(dict(new.metadata), "metadata", max_bytes),
        "input": seal_value(new.input, "input", max_bytes),
        "state": AgentState.IDLE.value,
        "waits": None,
        "awaited": None,
        "output": None,
        "error": None,
        "version": 0,
        "token": 0,
        "crashes": 0,
        "rings": new.rings,
        "cancel_requested": 0,
        "owner": None,
        "lease_until_us": 0,
        "not_before_us": start_us or 0,
        "due_us": start_us if start_us is not None else (None if now_us is None else now_us + first_ring_us),
        "step_count": 0,
        "checkpoint_id": None,
        "created_us": now_us,
        "updated_us": now_us,
        "ended_us": None,
    }
    return header | {"format": needed_format("header", header)}


def new_bytes(header: Mapping[str, Any]) -> int:
    """Return how many bytes a new context counts for: see `StorePrimitives.max_context_bytes`."""
    return octets(header["input"]) + octets(header["metadata"])


def decode_summary(header: Mapping[str, Any]) -> ExecutionSummary:
    """Return the summary of a stored header; of a damaged one what can be read of it. Raise `FormatTooNew`."""
    try:
        return ExecutionSummary(**summary_fields(header))
    except DAMAGE as error:
        return _salvaged(header, reason_of_damage(error))


def decode_listed(header: Mapping[str, Any]) -> ExecutionSummary:
    """Return the summary of a stored header, for a list: a header of a newer format counts as damaged here."""
    try:
        return decode_summary(header)
    except FormatTooNew as error:
        return _salvaged(header, str(error))


def _salvaged(header: Mapping[str, Any], reason: str) -> ExecutionSummary:
    """Return what can be read of a header that cannot be read as a whole."""

    def read(name: str, convert: Callable[[Any], T], default: T) -> T:
        try:
            value = header[name]
            return default if value is None else convert(value)
        except (*DAMAGE, FormatTooNew):
            return default

    state = read("state", lambda value: AgentState(_text(value)), AgentState.FAILED)
    created_at = read("created_us", _moment, EPOCH)
    return ExecutionSummary(
        execution_id=read("execution_id", _text, "?"),
        agent_id=read("agent_id", _text, "?"),
        session_id=read("session_id", _text, None),
        user_id=read("user_id", _text, None),
        parent_execution_id=read("parent_execution_id", _text, None),
        idempotency_key=read("idempotency_key", _text, None),
        queue=read("queue", _text, None),
        priority=read("priority", int, None),
        metadata=read("metadata", _object, {}),
        state=state,
        waits=read("waits", decode_waits, ()),
        error=read("error", lambda value: error_of(unseal(value, "error")), None),
        version=read("version", int, 0),
        attempt=read("token", int, 0),
        crashes=read("crashes", int, 0),
        step_count=read("step_count", int, 0),
        cancel_requested=read("cancel_requested", lambda value: bool(int(value)), False),
        owner=read("owner", _text, None),
        lease_expires_at=read("lease_until_us", lambda value: _moment(value) if int(value) else None, None),
        due_at=read("due_us", _moment, None),
        created_at=created_at,
        updated_at=read("updated_us", _moment, created_at),
        ended_at=read("ended_us", _moment, None),
        unreadable=reason,
    )


def _text(value: Any) -> str:
    text = text_of(value)
    if not isinstance(text, str):
        raise TypeError
    return text


def _object(value: Any) -> dict[str, Any]:
    loaded = unseal_value(value)
    if not isinstance(loaded, dict):
        raise TypeError
    return loaded


def _moment(value: Any) -> datetime:
    return from_us(int(value))


def summary_fields(header: Mapping[str, Any]) -> Fields:
    """Return the fields of the header's `ExecutionSummary`. Raise `FormatTooNew`."""
    execution_id = text_of(header["execution_id"])
    require_readable(f"execution {execution_id}", int(header["format"]))
    waits, error = header.get("waits"), header.get("error")
    priority, due_us = header.get("priority"), header.get("due_us")
    lease_until_us, ended_us = int(header["lease_until_us"]), header.get("ended_us")
    return {
        "execution_id": execution_id,
        "agent_id": _text(header["agent_id"]),
        "session_id": text_of(header.get("session_id")),
        "user_id": text_of(header.get("user_id")),
        "parent_execution_id": text_of(header.get("parent_execution_id")),
        "idempotency_key": text_of(header.get("idempotency_key")),
        "queue": text_of(header.get("queue")),
        "priority": None if priority is None else int(priority),
        "metadata": _object(header["metadata"]),
        "state": AgentState(text_of(header["state"]) or ""),
        "waits": () if waits is None else decode_waits(waits),
        "error": None if error is None else error_of(unseal(error, "error")),
        "version": int(header["version"]),
        "attempt": int(header["token"]),
        "crashes": int(header["crashes"]),
        "step_count": int(header["step_count"]),
        "cancel_requested": bool(int(header["cancel_requested"])),
        "owner": text_of(header.get("owner")),
        "lease_expires_at": from_us(lease_until_us) if lease_until_us else None,
        "due_at": None if due_us is None else from_us(int(due_us)),
        "created_at": from_us(int(header["created_us"])),
        "updated_at": from_us(int(header["updated_us"])),
        "ended_at": None if ended_us is None else from_us(int(ended_us)),
    }


def text_of(value: str | bytes | None) -> str | None:
    """Return the value as text; a driver may have left it as bytes."""
    return value.decode() if isinstance(value, bytes) else value
