"""The primitives on PostgreSQL: each is one statement in autocommit, so one round trip and one transaction.

Only when a statement applied to no row, a second one finds out why. Between the two the reason may have gone; the
first is then tried again, but not without end: a condition in SQL that says other than the diagnosis in Python, after
somebody edited a row by hand say, would otherwise keep the caller and the server busy for ever.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from statestore.checkpoint import NewExecution, new_execution_id
from statestore.clock import Clock, duration_us, from_us
from statestore.codec import EncodedCheckpoint, encode_new
from statestore.envelope import FORMAT, require_readable
from statestore.errors import StoreUnavailable
from statestore.records import AgentContext, Checkpointed, Claim, Due, Lease, Renewed, Sent, Signal
from statestore.sql.checks import DECISIVE, Header, check_checkpoint, check_signal, header_of
from statestore.sql.database import PostgreSQLDatabase, Refused
from statestore.sql.parts import context_of, notes_of, values_of
from statestore.sql.postgresql_writing import (
    checkpoint_statement,
    claim_statement,
    parts_of,
    send_statement,
    shape_of,
)
from statestore.sql.single import IS_OVER
from statestore.sql.tables import COLUMNS, address_of
from statestore.states import AgentState

# Each but the first means that another writer came between two statements; so many in a row do not happen.
ROUNDS: Final = 20

_NEW: Final = {"intents": "{}", "pending": "{}", "note_count": 0, "signal_count": 0}
# What tells why a statement applied to no row.
_LOOKED_AT: Final = (*DECISIVE, "not_before_us")
# Where the parts begin in a row of a context.
_PARTS: Final = slice(len(COLUMNS), len(COLUMNS) + 7)
# What the server fills in at creation.
_TIMED: Final = {
    "created_us": "(SELECT now_us FROM clock)",
    "updated_us": "(SELECT now_us FROM clock)",
    "due_us": "COALESCE(CAST(:due_us AS bigint), (SELECT now_us FROM clock) + :first_ring)",
}


class PostgreSQLPrimitives:
    """What PostgreSQL does in its own way; see `StorePrimitives` for each method."""

    def __init__(self, database: PostgreSQLDatabase, clock: Clock | None) -> None:
        self._database = database
        self._clock = clock
        self._tables = tables = database.settings.tables
        contexts, now = tables.contexts, database.now
        columns = ", ".join(f"c.{name}" for name in COLUMNS)
        clock_part = f"WITH clock AS MATERIALIZED (SELECT {now} AS now_us)"
        values = ", ".join(_TIMED.get(name, f":{name}") for name in COLUMNS)
        self._create = (
            f"{clock_part} INSERT INTO {contexts} ({', '.join(COLUMNS)}) VALUES ({values}) "
            "ON CONFLICT (agent_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING "
            "RETURNING created_us, due_us"
        )
        self._get = f"SELECT {columns}, {parts_of(tables, 'c')} FROM {contexts} AS c WHERE "
        decisive = ", ".join(f"c.{name}" for name in _LOOKED_AT)
        self._header = f"SELECT {decisive}, {now} FROM {contexts} AS c WHERE c.execution_id = :execution_id"
        self._claim = claim_statement(tables, now)
        # Rows are locked in the order of their ids, so that two statements that take many never wait for each other.
        self._renew = (
            f"{clock_part}, held AS (SELECT c.execution_id FROM {contexts} AS c, clock, "
            "unnest(CAST(:ids AS text[]), CAST(:tokens AS bigint[])) AS lease(id, token) "
            "WHERE c.execution_id = lease.id AND c.token = lease.token AND c.lease_until_us > clock.now_us "
            "ORDER BY c.execution_id FOR UPDATE OF c) "
            f"UPDATE {contexts} AS c SET lease_until_us = clock.now_us + :ttl, due_us = clock.now_us + :ttl "
            "FROM held, clock WHERE c.execution_id = held.execution_id "
            "RETURNING c.execution_id, c.token, c.cancel_requested"
        )
        self._take_due = (
            f"{clock_part}, due AS (SELECT c.execution_id, c.due_us FROM {contexts} AS c, clock "
            "WHERE c.due_us <= clock.now_us ORDER BY c.due_us, c.execution_id LIMIT :rows "
            "FOR UPDATE OF c SKIP LOCKED), "
            f"taken AS (UPDATE {contexts} AS c SET due_us = clock.now_us + :grace FROM due, clock "
            "WHERE c.execution_id = due.execution_id RETURNING c.execution_id, c.agent_id, c.queue, c.priority, "
            f"c.token, c.rings, c.cancel_requested, c.{IS_OVER} AS over, due.due_us AS was_due_us) "
            "SELECT execution_id, agent_id, queue, priority, token, rings, cancel_requested, over "
            "FROM taken ORDER BY was_due_us, execution_id"
        )
        # Doubles count exactly as far as times go, and do not overflow.
        wait = "CAST(LEAST(CAST(:first AS float8) * power(2, LEAST(c.rings, 32)), CAST(:maximum AS float8)) AS bigint)"
        self._mark_rung = (
            f"{clock_part}, rung AS (SELECT c.execution_id FROM {contexts} AS c, clock, "
            "unnest(CAST(:ids AS text[]), CAST(:tokens AS bigint[])) AS bell(id, token) "
            "WHERE c.execution_id = bell.id AND c.token = bell.token AND c.lease_until_us <= clock.now_us "
            "AND c.not_before_us <= clock.now_us AND c.due_us IS NOT NULL ORDER BY c.execution_id FOR UPDATE OF c) "
            f"UPDATE {contexts} AS c SET due_us = clock.now_us + {wait}, rings = c.rings + 1 "
            "FROM rung, clock WHERE c.execution_id = rung.execution_id"
        )

    def create(self, new: NewExecution, max_bytes: int) -> AgentContext:
        execution_id = new_execution_id()
        header = encode_new(execution_id, new, None, max_bytes)
        params = header | _NEW | {"first_ring": duration_us(new.first_ring), "now": self.now_us()}
        for _ in range(ROUNDS):
            for created_us, due_us in self._database.run(self._create, params):
                made = header | {"created_us": created_us, "updated_us": created_us, "due_us": due_us}
                return context_of(made)
            key = {"agent_id": new.agent_id, "idempotency_key": new.idempotency_key}
            rows = self._database.run(
                f"{self._get}c.agent_id = :agent_id AND c.idempotency_key = :idempotency_key", key
            )
            if rows:
                return _context_of(rows[0])
        raise self._unexplained("create", execution_id)

    def get_context(self, execution_id: str) -> AgentContext | None:
        rows = self._database.run(f"{self._get}c.execution_id = :execution_id", {"execution_id": execution_id})
        return _context_of(rows[0]) if rows else None

    def claim(self, execution_id: str, owner: str, ttl: timedelta) -> Claim | None:
        params = {
            "execution_id": execution_id,
            "owner": owner,
            "ttl": duration_us(ttl),
            "format": FORMAT,
            "now": self.now_us(),
        }
        for _ in range(ROUNDS):
            for row in self._database.run(self._claim, params):
                context, now_us = _context_of(row), row[-1]
                return Claim(
                    lease=Lease(
                        execution_id=execution_id,
                        token=context.attempt,
                        owner=owner,
                        ttl=ttl,
                        expires_at=from_us(now_us + duration_us(ttl)),
                    ),
                    context=context,
                    now=from_us(now_us),
                )
            header, now_us = self._look(execution_id)
            if header is None:
                return None
            require_readable(f"execution {execution_id}", header["format"])
            if (
                AgentState(header["state"]).is_over
                or header["lease_until_us"] > now_us
                or header["not_before_us"] > now_us
            ):
                return None
        raise self._unexplained("claim", execution_id)

    def renew(self, leases: Sequence[Lease], ttl: timedelta) -> Renewed:
        if not leases:
            return Renewed()
        params = {
            "ids": [lease.execution_id for lease in leases],
            "tokens": [lease.token for lease in leases],
            "ttl": duration_us(ttl),
            "now": self.now_us(),
        }
        rows = self._database.run(self._renew, params)
        renewed = {(execution_id, token) for execution_id, token, _ in rows}
        return Renewed(
            lost=frozenset(lease.execution_id for lease in leases if (lease.execution_id, lease.token) not in renewed),
            cancel_requested=frozenset(execution_id for execution_id, _, cancelled in rows if cancelled),
        )

    def checkpoint(self, execution_id: str, change: EncodedCheckpoint, lease: Lease | None) -> Checkpointed:
        statement = checkpoint_statement(self._tables, shape_of(change, leased=lease is not None), self._database.now)
        params = _checkpoint_params(execution_id, change, lease)
        for _ in range(ROUNDS):
            params["now"] = self.now_us()
            for version, cancel_requested, due_now in self._database.run(statement, params):
                return Checkpointed(version=version, cancel_requested=bool(cancel_requested), due_now=due_now)
            header, now_us = self._look(execution_id)
            applied = check_checkpoint(execution_id, header, change, lease, now_us)
            if applied is not None:
                return applied
        raise self._unexplained("checkpoint", execution_id)

    def send(self, execution_id: str, signal: Signal, text: str) -> Sent:
        kind = signal.kind.value
        params = {
            "execution_id": execution_id,
            "signal_id": signal.signal_id,
            "kind": kind,
            "signal_key": signal.key,
            "address": address_of(kind, signal.key),
            "data": text,
        }
        statement = send_statement(self._tables, signal.kind, self._database.now)
        signals = self._tables.signals
        for _ in range(ROUNDS):
            try:
                for (woke,) in self._database.run(statement, params | {"now": self.now_us()}):
                    return Sent(woke=woke)
            except Refused:
                pass  # sent before, or answered before: told apart below
            header, _ = self._look(execution_id)
            earlier = self._database.run(
                f"SELECT signal_id = :signal_id FROM {signals} WHERE execution_id = :execution_id "
                "AND (signal_id = :signal_id OR (kind = :kind AND signal_key = :signal_key))",
                params,
            )
            if header is not None and any(same for (same,) in earlier):
                return Sent(woke=False)
            check_signal(execution_id, header, signal, answered=bool(earlier))
        raise self._unexplained("send", execution_id)

    def take_due(self, limit: int, grace: timedelta) -> tuple[Due, ...]:
        params = {"rows": limit, "grace": duration_us(grace), "now": self.now_us()}
        return tuple(
            Due(
                execution_id=execution_id,
                agent_id=agent_id,
                queue=queue,
                priority=priority,
                token=token,
                rings=rings,
                cancel_requested=bool(cancel_requested),
                over=over,
            )
            for execution_id, agent_id, queue, priority, token, rings, cancel_requested, over in self._database.run(
                self._take_due, params
            )
        )

    def mark_rung(self, rung: Iterable[tuple[str, int]], first: timedelta, maximum: timedelta) -> None:
        pairs = list(rung)
        if pairs:
            params = {
                "ids": [execution_id for execution_id, _ in pairs],
                "tokens": [token for _, token in pairs],
                "first": duration_us(first),
                "maximum": duration_us(maximum),
                "now": self.now_us(),
            }
            self._database.run(self._mark_rung, params)

    def durability_warning(self) -> str | None:
        """One sentence if PostgreSQL acknowledges a write before it is safe on disk."""
        ((fsync, commit),) = self._database.run(
            "SELECT current_setting('fsync'), current_setting('synchronous_commit')", {}
        )
        if fsync == "off":
            return "PostgreSQL runs with fsync = off: a crash of its host may lose or corrupt all executions."
        if commit == "off":
            return "PostgreSQL runs with synchronous_commit = off: its crash loses the last checkpoints."
        return None

    def now_us(self) -> int | None:
        """The injected clock's time; None means the server's."""
        return None if self._clock is None else self._clock.now_us()

    def _look(self, execution_id: str) -> tuple[Header | None, int]:
        """The header as it is now, and the time."""
        rows = self._database.run(self._header, {"execution_id": execution_id, "now": self.now_us()})
        return (header_of(rows[0], _LOOKED_AT), rows[0][-1]) if rows else (None, 0)

    def _unexplained(self, primitive: str, execution_id: str) -> StoreUnavailable:
        reason = f"`{primitive}` of execution {execution_id} applied to no row {ROUNDS} times, without a reason to find"
        return StoreUnavailable(self._database.settings.shown_url, reason)


def _checkpoint_params(execution_id: str, change: EncodedCheckpoint, lease: Lease | None) -> dict[str, Any]:
    params: dict[str, Any] = {"execution_id": execution_id, "checkpoint_id": change.checkpoint_id}
    if lease is not None:
        params["token"] = lease.token
    steps = change.steps
    if len(steps) == 1:
        (step,) = steps
        params |= {
            "last_number": step.number,
            "step_key": str(step.number),
            "step_name": step.name,
            "step_text": step.text,
        }
    elif steps:
        numbers = [step.number for step in steps]
        # Where the last run of numbers without a gap begins: it must join on to what is recorded.
        run_start = numbers[-1]
        for number in reversed(numbers[:-1]):
            if number != run_start - 1:
                break
            run_start = number
        params |= {
            "numbers": numbers,
            "names": [step.name for step in steps],
            "are_done": [step.is_done for step in steps],
            "step_texts": [step.text for step in steps],
            "first_number": numbers[0],
            "run_start": run_start,
            "last_number": numbers[-1],
            "named": json.dumps({step.number: step.name for step in steps}),
            "done": [str(step.number) for step in steps if step.is_done],
            "opened": json.dumps({step.number: step.name for step in steps if not step.is_done}),
        }
    notes = notes_of(change)
    if notes:
        params |= {
            "added_notes": len(notes),
            "note_kinds": [kind for kind, _ in notes],
            "note_texts": [text for _, text in notes],
        }
    values = values_of(change)
    if change.working_memory or change.entities:
        params |= {
            "value_kinds": [kind for kind, _, _ in values],
            "value_names": [name for _, name, _ in values],
            "value_texts": [text for _, _, text in values],
        }
    if change.forget:
        params["forget"] = list(change.forget)
    if change.consumed:
        params["consumed"] = list(change.consumed)
    if change.state is not None:
        params |= {
            "waiting": change.waiting,
            "wait_key": change.wait_key,
            "wait_signal": change.wait_signal,
            "wake_us": change.wake_us,
            "address": address_of(change.wait_signal, change.wait_key),
            "output": change.output,
            "error": change.error,
            "announce_us": change.announce_us,
        }
    return params


def _context_of(row: Sequence[Any]) -> AgentContext:
    steps, note_kinds, note_texts, value_kinds, value_names, value_texts, signals = row[_PARTS]
    return context_of(
        dict(zip(COLUMNS, row, strict=False)),
        steps=steps,
        notes=zip(note_kinds, note_texts, strict=True),
        values=zip(value_kinds, value_names, value_texts, strict=True),
        signals=signals,
    )
