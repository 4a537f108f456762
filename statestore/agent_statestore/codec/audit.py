"""Entries of the audit trail, as stored."""

from collections.abc import Iterable
from typing import NamedTuple

from agent_statestore.clock import from_us
from agent_statestore.codec.signals import decode_signal
from agent_statestore.envelope import reading
from agent_statestore.records import AuditEntry, AuditEvent
from agent_statestore.states import AgentState


class AuditRow(NamedTuple):
    """An entry of the audit trail as stored; see `AuditEntry`. `signal` is what `encode_signal` made."""

    position: int
    at_us: int
    event: str
    from_state: str | None
    to_state: str | None
    attempt: int
    worker: str | None
    by: str | None
    reason: str | None
    signal: str | None


def decode_audit(row: AuditRow) -> AuditEntry:
    """Return the entry that a stored row holds."""
    return AuditEntry(
        position=row.position,
        at=from_us(row.at_us),
        event=AuditEvent(row.event),
        from_state=None if row.from_state is None else AgentState(row.from_state),
        to_state=None if row.to_state is None else AgentState(row.to_state),
        attempt=row.attempt,
        worker=row.worker,
        by=row.by,
        reason=row.reason,
        signal=None if row.signal is None else decode_signal(row.signal),
    )


def decode_trail(execution_id: str, rows: Iterable[AuditRow]) -> tuple[AuditEntry, ...]:
    """Return the entries of an execution's audit trail. Raise `FormatTooNew` or `ExecutionUnreadable`."""
    return reading(execution_id, "audit", lambda: tuple([decode_audit(row) for row in rows]))
