"""The entries of the audit trail."""

from agent_statestore.codec import AuditRow
from agent_statestore.records import AuditEvent
from agent_statestore.rules.leases import Header, is_leased
from agent_statestore.states import AgentState


def audit_row(
    header: Header,
    position: int,
    event: AuditEvent,
    now_us: int,
    *,
    to_state: AgentState | None = None,
    by: str | None = None,
    reason: str | None = None,
    signal: str | None = None,
) -> AuditRow:
    """Return an entry; see `agent_statestore.records.AuditEntry`.

    `header` is the one before the write, except for the token and the lease that a claim has just made.
    """
    return AuditRow(
        position=position,
        at_us=now_us,
        event=event.value,
        from_state=None if event is AuditEvent.CREATED else header["state"],
        to_state=None if to_state is None else to_state.value,
        attempt=header["token"],
        worker=header["owner"] if is_leased(header, now_us) else None,
        by=by,
        reason=reason,
        signal=signal,
    )
