"""The texts of the writing statements on PostgreSQL: one writable CTE per primitive.

Each begins with the conditional write of the row in `contexts`, named `head`; the other parts insert what `head`
returned, so nothing is written when its condition does not hold. READ COMMITTED decides what a statement may rely on
when such an UPDATE had to wait for another writer of the row:

* the condition and the new values of the row itself are computed again, from the row as the other left it;
* every other table is seen as it was when the statement began, before the other's commit. So conditions use columns of
  the row only (`pending`, `intents`, counters), and a statement that does read other tables joins the row as it was at
  the beginning, `seen`, and does not apply unless that is still what it has locked; it is then repeated;
* a unique index sees the other's rows at all times.

`seen` also tells what an UPDATE has overwritten, for the audit trail: RETURNING knows only the new values.

No lease lives on a deleted row, so a statement that asks for a live lease need not ask whether the row is deleted.
"""

from functools import lru_cache
from typing import Final

from agent_statestore.codec import NEVER_US
from agent_statestore.envelope import FORMAT, LOWEST
from agent_statestore.records import AuditEvent
from agent_statestore.rules.checkpoints import writable_states
from agent_statestore.sql.postgresql.reading import parts_of
from agent_statestore.sql.postgresql.shapes import Shape, StepShape, StreamShape
from agent_statestore.sql.postgresql.streaming import SKIPPED, events_part, stream_changes
from agent_statestore.sql.single import quoted
from agent_statestore.sql.tables import AUDIT_COLUMNS, COLUMNS, WORKING, Tables
from agent_statestore.states import ACTIVE, PAUSED, AgentState
from agent_statestore.states import WORKING as WORKING_STATES

_IS_PENDING: Final = (
    "(c.cancel_requested = 1 OR EXISTS "
    "(SELECT 1 FROM jsonb_each_text({pending}) AS mail(id, address) "
    "WHERE mail.address = ANY(CAST(:addresses AS text[]))))"
)


_INTENTS: Final = {
    StepShape.RESULT: "c.intents - CAST(:step_key AS text)",
    StepShape.INTENT: "c.intents || jsonb_build_object(CAST(:step_key AS text), CAST(:step_name AS text))",
    StepShape.MANY: "(c.intents - CAST(:done AS text[])) || CAST(:opened AS jsonb)",
}


@lru_cache(maxsize=512)
def replaced_bytes(tables: Tables, shape: Shape) -> str:
    """Return how many bytes a checkpoint of this shape replaces or takes out, in SQL; "0" where it cannot.

    It reads other tables, as they were when the statement began. Under a lease nobody else changes them; without one,
    two writers at the same moment may count a value once too often.
    """
    sums = []

    def add(size: str, table: str, which: str) -> None:
        sums.append(
            f"COALESCE((SELECT sum({size}) FROM {table} AS o WHERE o.execution_id = c.execution_id AND {which}), 0)"
        )

    if shape.steps in (StepShape.RESULT, StepShape.INTENT):
        add("octet_length(o.data)", tables.steps, "o.step_number = :last_number")
    elif shape.steps is StepShape.MANY:
        add("octet_length(o.data)", tables.steps, "o.step_number = ANY(CAST(:numbers AS integer[]))")
    named = []
    if shape.memory:
        named.append(
            "(o.kind, o.name) IN (SELECT value.* FROM unnest(CAST(:value_kinds AS text[]), "
            "CAST(:value_names AS text[])) AS value(kind, name))"
        )
    if shape.forget:
        named.append(f"(o.kind = '{WORKING}' AND o.name = ANY(CAST(:forget AS text[])))")
    if named:
        add("octet_length(o.name) + octet_length(o.data)", tables.memory, f"({' OR '.join(named)})")
    if shape.consumed:
        add("octet_length(o.data)", tables.signals, "o.signal_id = ANY(CAST(:consumed AS text[]))")
    return " + ".join(sums) or "0"


def _changes(tables: Tables, shape: Shape, now: str) -> list[str]:
    """Return the assignments to the row. `c` is the row before."""
    sets = {"version": "c.version + 1", "checkpoint_id": ":checkpoint_id", "updated_us": now}
    if shape.grows or shape.forget or shape.consumed:
        replaced = replaced_bytes(tables, shape)
        size = "c.context_bytes + :added_bytes"
        sets["context_bytes"] = size if replaced == "0" else f"GREATEST({size} - ({replaced}), 0)"
    if shape.format > LOWEST:
        sets["format"] = f"GREATEST(c.format, {shape.format})"
    pending = "c.pending"
    if shape.steps is not StepShape.NONE:
        sets |= {"step_count": "GREATEST(c.step_count, :last_number)", "crashes": "0"}
        if shape.steps in _INTENTS:
            sets["intents"] = _INTENTS[shape.steps]
    if shape.notes:
        sets["note_count"] = "c.note_count + :added_notes"
    if shape.consumed:
        pending = sets["pending"] = "(c.pending - CAST(:consumed AS text[]))"
    sets |= stream_changes(shape.stream, now)
    state = shape.state
    if state is None:
        return [f"{name} = {value}" for name, value in sets.items()]
    sets |= {"state": f"'{state}'", "waits": ":waits", "awaited": ":awaited"}
    sets["audit_count"] = f"c.audit_count + CASE WHEN c.state = '{state}' THEN 0 ELSE 1 END"
    if state.is_paused:
        is_pending = _IS_PENDING.format(pending=pending)
        sets["due_us"] = f"CASE WHEN {is_pending} THEN {now} ELSE CAST(:wake_us AS bigint) END"
        sets["not_before_us"] = f"CASE WHEN {is_pending} THEN 0 ELSE COALESCE(CAST(:wake_us AS bigint), {NEVER_US}) END"
        sets["crashes"] = "0"
    if state.is_over:
        sets |= {"output": ":output", "error": ":error", "due_us": f"{now} + CAST(:announce_us AS bigint)"}
        sets["ended_us"] = now
    if state.is_over or state.is_paused:
        sets |= {"owner": "NULL", "lease_until_us": "0", "rings": "0"}
    if state in WORKING_STATES and not shape.leased:
        sets |= {"due_us": now, "not_before_us": "0"}
    if state is AgentState.IDLE:
        sets |= {"output": "NULL", "error": "NULL", "crashes": "0", "rings": "0", "not_before_us": "0", "due_us": now}
        sets["ended_us"] = "NULL"
    return [f"{name} = {value}" for name, value in sets.items()]


def _conditions(tables: Tables, shape: Shape, now: str) -> list[str]:
    """Return the conditions of the checkpoint: `agent_statestore.rules.checkpoints.check_checkpoint` in SQL."""
    conditions = [
        "c.execution_id = :execution_id",
        "c.checkpoint_id IS DISTINCT FROM :checkpoint_id",
        f"c.state IN ({quoted(WORKING_STATES if shape.is_ordinary else writable_states(shape.state))})",
    ]
    if shape.leased:
        conditions += ["c.token = :token", f"c.lease_until_us > {now}"]
    else:
        conditions += ["c.deleted_us IS NULL", f"c.lease_until_us <= {now}", f"c.format <= {FORMAT}"]
    if shape.stream in (StreamShape.ONE, StreamShape.MANY):
        conditions.append("c.stream_place < :stream_from")
    if shape.chained:
        conditions.append("COALESCE(c.checkpoint_id, '') = :after_checkpoint")
    # A step that is not new replaces an intent of its name.
    if shape.steps is StepShape.MANY:
        conditions += [
            "c.step_count >= :run_start - 1",
            (
                "(c.step_count < :first_number OR NOT EXISTS (SELECT 1 "
                "FROM jsonb_each_text(CAST(:named AS jsonb)) AS step(number, name) "
                "WHERE CAST(step.number AS integer) <= c.step_count "
                "AND c.intents ->> step.number IS DISTINCT FROM step.name))"
            ),
        ]
    elif shape.steps is StepShape.NEW:
        conditions.append("c.step_count = :last_number - 1")
    elif shape.steps is not StepShape.NONE:
        conditions.append("(c.step_count = :last_number - 1 OR c.intents ->> :step_key = :step_name)")
    if shape.grows and shape.state not in (AgentState.FAILED, AgentState.CANCELLED):
        replaced = replaced_bytes(tables, shape)
        fits = "c.context_bytes + :added_bytes <= :max_bytes"
        if replaced != "0":
            fits = f"(c.context_bytes + :added_bytes - ({replaced}) <= :max_bytes OR :added_bytes <= ({replaced}))"
        conditions.append(fits)
    return conditions


@lru_cache(maxsize=512)
def checkpoint_statement(tables: Tables, shape: Shape, now: str) -> str:
    """Return the statement for checkpoints of this shape.

    It gives no row if the checkpoint is refused, and else version, cancel_requested and due_now; with events, whether
    readers wait for them, too.
    """
    # If the change sets several times, all of them are one moment. An ordinary step saves the cost of that.
    is_timed = shape.state is not None and (
        shape.state.is_paused or shape.state.is_over or shape.state is AgentState.IDLE
    )
    at = "clock.now_us" if is_timed else now
    sources, conditions = ["clock"] if is_timed else [], _conditions(tables, shape, at)
    returned = [f"c.{name}" for name in ("execution_id", "version", "cancel_requested", "note_count")]
    due_now = f"c.state IN ({quoted(PAUSED)}) AND c.due_us IS NOT NULL AND c.due_us <= {at}"
    returned.append(f"{'FALSE' if shape.is_ordinary else due_now} AS due_now")
    if shape.forget or shape.state is not None or shape.stream is StreamShape.GENERAL:
        # A value that another writer set after this statement began could not be seen, and would stay; a state that
        # another writer set would not be the one that the audit trail notes.
        sources.append(f"{tables.contexts} AS seen")
        conditions += ["seen.execution_id = c.execution_id", "seen.version = c.version", "seen.token = c.token"]
    if shape.stream is not StreamShape.NONE:
        returned += ["c.stream_last", "c.watched_until_us > c.updated_us AS is_watched"]
    if shape.stream is StreamShape.GENERAL:
        conditions.append("seen.stream_place = c.stream_place")
        returned.append(f"{SKIPPED} AS stream_skipped")
    if shape.state is not None:
        # The token is that of a live lease, or there is no lease.
        worker = "seen.owner" if shape.leased else "NULL"
        returned += ["c.audit_count", "c.updated_us", "c.token", "seen.state AS from_state", f"{worker} AS worker"]
    parts = [f"clock AS MATERIALIZED (SELECT {now} AS now_us)"] if is_timed else []
    source = f"FROM {', '.join(sources)} " if sources else ""
    parts.append(
        f"head AS (UPDATE {tables.contexts} AS c SET {', '.join(_changes(tables, shape, at))} {source}"
        f"WHERE {' AND '.join(conditions)} RETURNING {', '.join(returned)})"
    )
    if shape.state is not None:
        trail = audit_part(
            tables,
            AuditEvent.MOVED,
            at="head.updated_us",
            from_state="head.from_state",
            to_state=f"'{shape.state}'",
            worker="head.worker",
            who=":who",
            why=":why",
            data=":via",
            condition=f"head.from_state <> '{shape.state}'",
        )
        parts.append(trail)
    if shape.steps is not StepShape.NONE:
        rows = (
            "step.* FROM head, unnest(CAST(:numbers AS integer[]), CAST(:names AS text[]), "
            "CAST(:are_done AS boolean[]), CAST(:step_texts AS text[])) AS step"
            if shape.steps is StepShape.MANY
            else f":last_number, :step_name, {shape.steps is not StepShape.INTENT}, :step_text FROM head"
        )
        replaced = (
            ""
            if shape.steps is StepShape.NEW
            else " ON CONFLICT (execution_id, step_number) DO UPDATE SET is_done = excluded.is_done, "
            "data = excluded.data"
        )
        parts.append(
            f"steps AS (INSERT INTO {tables.steps} (execution_id, step_number, name, is_done, data) "
            f"SELECT head.execution_id, {rows}{replaced})"
        )
    if shape.notes:
        parts.append(
            f"notes AS (INSERT INTO {tables.notes} (execution_id, position, kind, data) "
            "SELECT head.execution_id, head.note_count - :added_notes + note.place, note.kind, note.data "
            "FROM head, unnest(CAST(:note_kinds AS text[]), CAST(:note_texts AS text[])) "
            "WITH ORDINALITY AS note(kind, data, place))"
        )
    if shape.memory:
        parts.append(
            f"memory AS (INSERT INTO {tables.memory} (execution_id, kind, name, data) "
            "SELECT head.execution_id, value.* FROM head, unnest(CAST(:value_kinds AS text[]), "
            "CAST(:value_names AS text[]), CAST(:value_texts AS text[])) AS value "
            "ON CONFLICT (execution_id, kind, name) DO UPDATE SET data = excluded.data)"
        )
    if shape.forget:
        parts.append(
            f"forgotten AS (DELETE FROM {tables.memory} AS m USING head WHERE m.execution_id = head.execution_id "
            f"AND m.kind = '{WORKING}' AND m.name = ANY(CAST(:forget AS text[])))"
        )
    if shape.consumed:
        parts.append(
            f"spent AS (UPDATE {tables.signals} AS s SET data = '' FROM head "
            "WHERE s.execution_id = head.execution_id AND s.signal_id = ANY(CAST(:consumed AS text[])))"
        )
    if shape.stream is not StreamShape.NONE:
        parts.append(events_part(tables, shape.stream))
    watched = "" if shape.stream is StreamShape.NONE else ", is_watched"
    return f"WITH {', '.join(parts)} SELECT version, cancel_requested, due_now{watched} FROM head"


@lru_cache(maxsize=64)
def create_statement(tables: Tables, now: str, *, in_session: bool) -> str:
    """Return the statement that stores a new execution.

    It gives no row if its idempotency key or its id is taken, and else `created_us` and `due_us`.
    """
    timed = _timed("CAST(:due_us AS bigint)", ":first_ring")
    values = ", ".join(timed.get(name, f":{name}") for name in COLUMNS)
    parts = _creating(tables, now, f"VALUES ({values})")
    if in_session:
        parts.append(session_part(tables))
    return f"WITH {', '.join(parts)} SELECT created_us, due_us FROM head"


def create_many_statement(tables: Tables, now: str) -> str:
    """Return the statement that stores the new executions of `:rows`, a JSON list of objects of columns.

    It gives `execution_id`, `created_us` and `due_us` of those whose idempotency key and id are not taken.
    """
    timed = _timed("new.due_us", "CAST(row ->> 'first_ring' AS bigint)")
    values = ", ".join(timed.get(name, f"new.{name}") for name in COLUMNS)
    source = (
        f"SELECT {values} FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS row, "
        f"jsonb_populate_record(CAST(NULL AS {tables.contexts}), row) AS new"
    )
    # A statement may not touch the row of a session twice.
    sessions = (
        "(SELECT session_id, MAX(user_id) AS user_id, MIN(created_us) AS created_us FROM head "
        "WHERE session_id IS NOT NULL GROUP BY session_id) AS head"
    )
    parts = [*_creating(tables, now, source), session_part(tables, sessions)]
    return f"WITH {', '.join(parts)} SELECT execution_id, created_us, due_us FROM head"


def _timed(due_us: str, first_ring: str) -> dict[str, str]:
    """Return the columns whose values depend on the time of the creation."""
    now = "(SELECT now_us FROM clock)"
    return {"created_us": now, "updated_us": now, "due_us": f"COALESCE({due_us}, {now} + {first_ring})"}


def _creating(tables: Tables, now: str, source: str) -> list[str]:
    head = (
        f"head AS (INSERT INTO {tables.contexts} ({', '.join(COLUMNS)}) {source} "
        "ON CONFLICT DO NOTHING "
        "RETURNING execution_id, session_id, user_id, token, audit_count, created_us, due_us)"
    )
    return [
        f"clock AS MATERIALIZED (SELECT {now} AS now_us)",
        head,
        audit_part(tables, AuditEvent.CREATED, at="head.created_us", to_state=f"'{AgentState.IDLE}'"),
    ]


def session_part(tables: Tables, source: str = "head") -> str:
    """Return the part of a statement that notes the session of what `head` has stored, if it has one."""
    return (
        f"session AS (INSERT INTO {tables.sessions} AS s (session_id, user_id, created_us, updated_us) "
        f"SELECT head.session_id, head.user_id, head.created_us, head.created_us FROM {source} "
        "WHERE head.session_id IS NOT NULL ON CONFLICT (session_id) DO UPDATE SET "
        "user_id = COALESCE(excluded.user_id, s.user_id), "
        "created_us = LEAST(s.created_us, excluded.created_us), "
        "updated_us = GREATEST(s.updated_us, excluded.updated_us))"
    )


def audit_part(
    tables: Tables,
    event: AuditEvent,
    *,
    at: str,
    from_state: str = "NULL",
    to_state: str = "NULL",
    worker: str = "NULL",
    who: str = "NULL",
    why: str = "NULL",
    data: str = "NULL",
    condition: str = "TRUE",
) -> str:
    """Return the part of a statement that adds the entry `head.audit_count` to the audit trail.

    The values are SQL.
    """
    return (
        f"trail AS (INSERT INTO {tables.audit} (execution_id, {', '.join(AUDIT_COLUMNS)}) "
        f"SELECT head.execution_id, head.audit_count, {at}, '{event}', {from_state}, {to_state}, head.token, "
        f"{worker}, {who}, {why}, {data} FROM head WHERE {condition})"
    )


def claim_statement(tables: Tables, now: str) -> str:
    """Return the statement that takes the lease and reads the context.

    It gives no row if the claim is refused, and else `COLUMNS`, the parts, and the time.
    """
    returned = ", ".join(f"c.{name}" for name in COLUMNS)
    unchanged = " AND ".join(
        f"seen.{name} = c.{name}" for name in ("execution_id", "version", "token", "signal_count", "audit_count")
    )
    trail = audit_part(
        tables,
        AuditEvent.CLAIMED,
        at="head.updated_us",
        from_state="head.from_state",
        to_state=f"'{AgentState.THINKING}'",
        worker="head.owner",
    )
    return (
        f"WITH clock AS MATERIALIZED (SELECT {now} AS now_us), "
        f"head AS (UPDATE {tables.contexts} AS c SET state = '{AgentState.THINKING}', token = c.token + 1, "
        "crashes = c.crashes + 1, rings = 0, owner = :owner, lease_until_us = clock.now_us + :ttl, not_before_us = 0, "
        "due_us = clock.now_us + :ttl, updated_us = clock.now_us, audit_count = c.audit_count + 1 "
        f"FROM clock, {tables.contexts} AS seen "
        f"WHERE c.execution_id = :execution_id AND c.deleted_us IS NULL AND c.format <= {FORMAT} "
        f"AND c.state IN ({quoted(ACTIVE)}) AND c.lease_until_us <= clock.now_us AND c.not_before_us <= clock.now_us "
        f"AND {unchanged} RETURNING {returned}, seen.state AS from_state), {trail} "
        f"SELECT {', '.join(f'head.{name}' for name in COLUMNS)}, {parts_of(tables, 'head')}, head.updated_us FROM head"
    )
