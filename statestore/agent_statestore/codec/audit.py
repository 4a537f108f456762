"""Entries of the audit trail, as stored."""

from collections.abc import Iterable
from typing import NamedTuple

from agent_statestore.checkpoint import Via
from agent_statestore.clock import from_us
from agent_statestore.codec.signals import signal_of
from agent_statestore.envelope import reading, seal, unseal
from agent_statestore.records import AuditEntry, AuditEvent, Signal
from agent_statestore.states import AgentState


class AuditRow(NamedTuple):
    """An entry of the audit trail as stored; see `AuditEntry`.

    `signal` is what `encode_signal` made, or of an entry without a signal what `encode_via` did.
    """

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


def encode_via(via: Via | None) -> str | None:
    """Return through what something was asked for, as stored."""
    return None if via is None else seal("via", {"channel": via.channel, "os_user": via.os_user}, "via")


def decode_audit(row: AuditRow) -> AuditEntry:
    """Return the entry that a stored row holds."""
    signal, via = _signal_and_via(row.signal)
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
        signal=signal,
        channel=None if via is None else via.channel,
        os_user=None if via is None else via.os_user,
    )


def _signal_and_via(text: str | None) -> tuple[Signal | None, Signal | Via | None]:
    if text is None:
        return None, None
    fields = unseal(text, "signal")
    if "kind" in fields:
        signal = signal_of(fields)
        return signal, signal
    return None, Via(channel=fields["channel"], os_user=fields.get("os_user"))


def decode_trail(execution_id: str, rows: Iterable[AuditRow]) -> tuple[AuditEntry, ...]:
    """Return the entries of an execution's audit trail. Raise `FormatTooNew` or `ExecutionUnreadable`."""
    return reading(execution_id, "audit", lambda: tuple([decode_audit(row) for row in rows]))
