"""The text of the statement that puts a signal into a mailbox; see `agent_statestore.sql.postgresql.writing`."""

from agent_statestore.codec.signals import ANSWERING, BOUNDED
from agent_statestore.envelope import FORMAT, LOWEST
from agent_statestore.records import AuditEvent, SignalKind
from agent_statestore.sql.postgresql.shapes import StreamShape
from agent_statestore.sql.postgresql.streaming import events_part
from agent_statestore.sql.postgresql.writing import audit_part
from agent_statestore.sql.single import quoted
from agent_statestore.sql.tables import Tables
from agent_statestore.states import ACTIVE, PAUSED


def send_statement(
    tables: Tables,
    kind: SignalKind,
    format: int,  # noqa: A002
    noted: AuditEvent | None,
    now: str,
    *,
    is_told: bool,
) -> str:
    """Return the statement that puts a signal of this kind into the mailbox, and into the audit trail as `noted`.

    `format` is that of the signal's envelope. `is_told` says that `:told` goes into the stream.

    It gives no row if the signal is refused, and else whether it woke the execution, and whether readers wait to be
    told.
    """
    is_cancel = kind is SignalKind.CANCEL
    awaited = "CAST(c.awaited AS jsonb) @> to_jsonb(CAST(:address AS text))"
    wakes = "c.lease_until_us <= clock.now_us"
    if not is_cancel:
        wakes += f" AND {awaited} AND c.state IN ({quoted(PAUSED)})"
    conditions = ["c.execution_id = :execution_id", "c.deleted_us IS NULL"]
    conditions += [f"c.state IN ({quoted(ACTIVE)})", f"c.format <= {FORMAT}"]
    if kind.value in ANSWERING:
        conditions.append(awaited)
    has_room = "(SELECT count(*) FROM jsonb_object_keys(c.pending)) < :max_mailbox"
    # `agent_statestore.codec.stamp` in SQL.
    grown = """c.context_bytes + octet_length(CAST(:data AS text) || '"at":' || clock.now_us || '}')"""
    if kind in BOUNDED:
        conditions += [has_room, f"{grown} <= :max_bytes"]
    elif is_cancel:
        conditions.append(f"(c.cancel_requested = 0 OR {has_room})")
    # `agent_statestore.codec.stamp` in SQL.
    stamped = """CAST(:data AS text) || '"at":' || head.updated_us || '}'"""
    trail = ""
    if noted is not None:
        note = audit_part(
            tables,
            noted,
            at="head.updated_us",
            from_state="head.state",
            worker="CASE WHEN head.lease_until_us > head.updated_us THEN head.owner END",
            who=":who",
            why=":why",
            data=stamped,
        )
        trail = f"{note}, "
    if is_told:
        trail += f"{events_part(tables, StreamShape.ONE, ':told')}, "
    return (
        f"WITH clock AS MATERIALIZED (SELECT {now} AS now_us), "
        f"head AS (UPDATE {tables.contexts} AS c SET signal_count = c.signal_count + 1, "
        f"context_bytes = {grown}, "
        "pending = c.pending || jsonb_build_object(CAST(:signal_id AS text), CAST(:address AS text)), "
        f"{f'format = GREATEST(c.format, {format}), ' if format > LOWEST else ''}"
        f"cancel_requested = {'1' if is_cancel else 'c.cancel_requested'}, updated_us = clock.now_us, "
        f"{'audit_count = c.audit_count + 1, ' if noted is not None else ''}"
        f"{'stream_last = GREATEST(c.stream_last + 1, clock.now_us), ' if is_told else ''}"
        f"due_us = CASE WHEN {wakes} THEN clock.now_us ELSE c.due_us END, "
        f"not_before_us = CASE WHEN {wakes} THEN 0 ELSE c.not_before_us END, "
        f"rings = CASE WHEN {wakes} THEN 0 ELSE c.rings END "
        # The index refuses a second signal of the same id, or a second answer; asking first spares the server's log
        # most of these errors.
        f"FROM clock WHERE {' AND '.join(conditions)} AND NOT EXISTS (SELECT 1 FROM {tables.signals} AS sent "
        "WHERE sent.execution_id = :execution_id AND (sent.signal_id = :signal_id OR (sent.kind = :kind "
        f"AND sent.signal_key = :signal_key AND sent.kind IN ({quoted_kinds()})))) "
        # The lease, the state and the wait are as they were before.
        "RETURNING c.execution_id, c.signal_count, c.audit_count, c.state, c.token, c.owner, c.lease_until_us, "
        f"c.pending, c.stream_last, {'c.watched_until_us > c.updated_us' if is_told else 'FALSE'} AS is_watched, "
        f"c.updated_us, COALESCE({wakes}, FALSE) AS woke), {trail}"
        f"mail AS (INSERT INTO {tables.signals} (execution_id, signal_id, position, kind, signal_key, data) "
        f"SELECT head.execution_id, :signal_id, head.signal_count, :kind, :signal_key, {stamped} FROM head), "
        f"forgotten AS (DELETE FROM {tables.signals} AS old USING head WHERE old.execution_id = head.execution_id "
        "AND head.signal_count > :max_mailbox AND old.position <= head.signal_count - :max_mailbox "
        f"AND old.kind NOT IN ({quoted_kinds()}) AND NOT jsonb_exists(head.pending, old.signal_id)) "
        "SELECT woke, is_watched FROM head"
    )


def quoted_kinds() -> str:
    """Return the kinds of which only the first signal under a key is accepted, as an SQL list."""
    return ", ".join(f"'{kind}'" for kind in ANSWERING)
