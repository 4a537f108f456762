"""The primitives on SQLite: each is one short transaction under the file's write lock.

Nobody else writes between its statements, so it reads the header, decides in Python and writes.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from statestore.checkpoint import NewExecution, new_execution_id
from statestore.clock import Clock, duration_us, from_us
from statestore.codec import NEVER_US, EncodedCheckpoint, encode_new
from statestore.envelope import require_readable
from statestore.records import AgentContext, Checkpointed, Claim, Due, Lease, Renewed, Sent, Signal, SignalKind
from statestore.sql.checks import DECISIVE, Header, check_checkpoint, check_signal, header_of, outcome
from statestore.sql.database import SQLiteDatabase
from statestore.sql.parts import context_of, notes_of, values_of
from statestore.sql.single import IS_OVER
from statestore.sql.tables import COLUMNS, WORKING, address_of
from statestore.states import WORKING as WORKING_STATES
from statestore.states import AgentState


class SQLitePrimitives:
    """What SQLite does in its own way; see `StorePrimitives` for each method."""

    def __init__(self, database: SQLiteDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        tables = database.settings.tables
        contexts = self._contexts = tables.contexts
        here = "WHERE execution_id = :execution_id"
        columns = ", ".join(COLUMNS)
        self._create = (
            f"INSERT INTO {contexts} ({columns}) VALUES ({', '.join(f':{name}' for name in COLUMNS)}) "
            "ON CONFLICT (agent_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING RETURNING 1"
        )
        self._decisive = f"SELECT {', '.join(DECISIVE)} FROM {contexts} {here}"
        self._header = f"SELECT {columns} FROM {contexts} {here}"
        self._by_key = f"SELECT {columns} FROM {contexts} WHERE agent_id = :agent_id AND idempotency_key = :key"
        self._steps = f"SELECT data FROM {tables.steps} {here} ORDER BY step_number"
        self._notes = f"SELECT kind, data FROM {tables.notes} {here} ORDER BY position"
        self._values = f"SELECT kind, name, data FROM {tables.memory} {here} ORDER BY kind, name"
        self._mail = (
            f"SELECT data FROM {tables.signals} {here} AND signal_id IN (SELECT key FROM json_each(:pending)) "
            "ORDER BY position"
        )
        self._earlier = (
            f"SELECT signal_id = :signal_id FROM {tables.signals} {here} "
            "AND (signal_id = :signal_id OR (kind = :kind AND signal_key = :signal_key))"
        )
        self._put_step = (
            f"INSERT INTO {tables.steps} (execution_id, step_number, name, is_done, data) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (execution_id, step_number) DO UPDATE SET is_done = excluded.is_done, data = excluded.data"
        )
        self._put_note = f"INSERT INTO {tables.notes} (execution_id, position, kind, data) VALUES (?, ?, ?, ?)"
        self._put_value = (
            f"INSERT INTO {tables.memory} (execution_id, kind, name, data) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (execution_id, kind, name) DO UPDATE SET data = excluded.data"
        )
        self._forget = f"DELETE FROM {tables.memory} WHERE execution_id = ? AND kind = '{WORKING}' AND name = ?"
        self._put_signal = (
            f"INSERT INTO {tables.signals} (execution_id, signal_id, position, kind, signal_key, data) "
            "VALUES (?, ?, ?, ?, ?, ?)"
        )
        self._renew = (
            f"UPDATE {contexts} SET lease_until_us = :until, due_us = :until {here} AND token = :token "
            "AND lease_until_us > :now RETURNING cancel_requested"
        )
        self._due = (
            f"SELECT execution_id, agent_id, queue, priority, token, rings, cancel_requested, {IS_OVER} "
            f"FROM {contexts} WHERE due_us <= :now ORDER BY due_us, execution_id LIMIT :rows"
        )
        self._move_due = f"UPDATE {contexts} SET due_us = ? WHERE execution_id = ?"
        # A product that does not fit an integer becomes a float, which the smaller maximum then replaces.
        self._mark_rung = (
            f"UPDATE {contexts} SET due_us = :now + min(:first * (1 << min(rings, 32)), :maximum), rings = rings + 1 "
            f"{here} AND token = :token AND lease_until_us <= :now AND not_before_us <= :now "
            "AND due_us IS NOT NULL"
        )

    def create(self, new: NewExecution, max_bytes: int) -> AgentContext:
        execution_id = new_execution_id()
        with self._database.writing() as connection:
            header = encode_new(execution_id, new, self._clock.now_us(), max_bytes)
            extra = {"intents": "{}", "pending": "{}", "note_count": 0, "signal_count": 0}
            if connection.execute(self._create, header | extra).fetchall():
                return context_of(header)
            key = {"agent_id": new.agent_id, "key": new.idempotency_key}
            return self._context(connection, header_of(connection.execute(self._by_key, key).fetchone()))

    def get_context(self, execution_id: str) -> AgentContext | None:
        with self._database.reading() as connection:
            header = self._look(connection, execution_id)
            return None if header is None else self._context(connection, header)

    def claim(self, execution_id: str, owner: str, ttl: timedelta) -> Claim | None:
        with self._database.writing() as connection:
            header, now_us = self._look(connection, execution_id), self._clock.now_us()
            if header is None:
                return None
            require_readable(f"execution {execution_id}", header["format"])
            if (
                AgentState(header["state"]).is_over
                or header["lease_until_us"] > now_us
                or header["not_before_us"] > now_us
            ):
                return None
            until_us = now_us + duration_us(ttl)
            changes = {
                "state": AgentState.THINKING.value,
                "token": header["token"] + 1,
                "crashes": header["crashes"] + 1,
                "rings": 0,
                "owner": owner,
                "lease_until_us": until_us,
                "not_before_us": 0,
                "due_us": until_us,
                "updated_us": now_us,
            }
            self._update(connection, execution_id, changes)
            header |= changes
            return Claim(
                lease=Lease(
                    execution_id=execution_id,
                    token=header["token"],
                    owner=owner,
                    ttl=ttl,
                    expires_at=from_us(until_us),
                ),
                context=self._context(connection, header),
                now=from_us(now_us),
            )

    def renew(self, leases: Sequence[Lease], ttl: timedelta) -> Renewed:
        lost, cancelled = set(), set()
        if not leases:
            return Renewed()
        with self._database.writing() as connection:
            now_us = self._clock.now_us()
            params: dict[str, Any] = {"now": now_us, "until": now_us + duration_us(ttl)}
            for lease in leases:
                params |= {"execution_id": lease.execution_id, "token": lease.token}
                rows = connection.execute(self._renew, params).fetchall()
                if not rows:
                    lost.add(lease.execution_id)
                elif rows[0][0]:
                    cancelled.add(lease.execution_id)
        return Renewed(lost=frozenset(lost), cancel_requested=frozenset(cancelled))

    def checkpoint(self, execution_id: str, change: EncodedCheckpoint, lease: Lease | None) -> Checkpointed:
        with self._database.writing() as connection:
            header, now_us = self._look_briefly(connection, execution_id), self._clock.now_us()
            applied = check_checkpoint(execution_id, header, change, lease, now_us)
            if applied is not None:
                return applied
            assert header is not None
            notes = notes_of(change)
            changes = _changes(header, change, len(notes), now_us)
            if lease is None and change.state in WORKING_STATES:
                changes |= {"due_us": now_us, "not_before_us": 0}
            self._update(connection, execution_id, changes)
            for step in change.steps:
                connection.execute(self._put_step, (execution_id, step.number, step.name, step.is_done, step.text))
            for position, note in enumerate(notes, header["note_count"] + 1):
                connection.execute(self._put_note, (execution_id, position, *note))
            for value in values_of(change):
                connection.execute(self._put_value, (execution_id, *value))
            for name in change.forget:
                connection.execute(self._forget, (execution_id, name))
            return outcome(header | changes, now_us)

    def send(self, execution_id: str, signal: Signal, text: str) -> Sent:
        kind, key = signal.kind.value, signal.key
        with self._database.writing() as connection:
            header, now_us = self._look_briefly(connection, execution_id), self._clock.now_us()
            earlier = connection.execute(
                self._earlier,
                {"execution_id": execution_id, "signal_id": signal.signal_id, "kind": kind, "signal_key": key},
            ).fetchall()
            if header is not None and any(same for (same,) in earlier):
                return Sent(woke=False)
            check_signal(execution_id, header, signal, answered=bool(earlier))
            assert header is not None
            awaited = (header["wait_signal"], header["wait_key"]) == (kind, key)
            is_cancel = signal.kind is SignalKind.CANCEL
            changes: dict[str, Any] = {
                "pending": json.dumps(header["pending"] | {signal.signal_id: address_of(kind, key)}),
                "signal_count": header["signal_count"] + 1,
                "updated_us": now_us,
            }
            if is_cancel:
                changes["cancel_requested"] = 1
            woke = header["lease_until_us"] <= now_us and (
                is_cancel or (awaited and AgentState(header["state"]).is_paused)
            )
            if woke:
                changes |= {"due_us": now_us, "not_before_us": 0, "rings": 0}
            self._update(connection, execution_id, changes)
            connection.execute(
                self._put_signal, (execution_id, signal.signal_id, changes["signal_count"], kind, key, text)
            )
            return Sent(woke=woke)

    def take_due(self, limit: int, grace: timedelta) -> tuple[Due, ...]:
        with self._database.writing() as connection:
            now_us = self._clock.now_us()
            rows = connection.execute(self._due, {"now": now_us, "rows": limit}).fetchall()
            connection.executemany(self._move_due, [(now_us + duration_us(grace), row[0]) for row in rows])
        return tuple(
            Due(
                execution_id=execution_id,
                agent_id=agent_id,
                queue=queue,
                priority=priority,
                token=token,
                rings=rings,
                cancel_requested=bool(cancel_requested),
                over=bool(over),
            )
            for execution_id, agent_id, queue, priority, token, rings, cancel_requested, over in rows
        )

    def mark_rung(self, rung: Iterable[tuple[str, int]], first: timedelta, maximum: timedelta) -> None:
        pairs = list(rung)
        if not pairs:
            return
        with self._database.writing() as connection:
            params = {"now": self._clock.now_us(), "first": duration_us(first), "maximum": duration_us(maximum)}
            connection.executemany(
                self._mark_rung,
                [params | {"execution_id": execution_id, "token": token} for execution_id, token in pairs],
            )

    def durability_warning(self) -> str | None:
        """One sentence if SQLite acknowledges a write before it is safe on disk."""
        if self._database.settings.synchronous == "OFF":
            return "SQLite runs with synchronous=OFF: a power cut may lose or corrupt all executions."
        return None

    def now_us(self) -> int | None:
        """The time by this store's clock."""
        return self._clock.now_us()

    def _look(self, connection: sqlite3.Connection, execution_id: str) -> Header | None:
        row = connection.execute(self._header, {"execution_id": execution_id}).fetchone()
        return None if row is None else header_of(row)

    def _look_briefly(self, connection: sqlite3.Connection, execution_id: str) -> Header | None:
        row = connection.execute(self._decisive, {"execution_id": execution_id}).fetchone()
        return None if row is None else header_of(row, DECISIVE)

    def _context(self, connection: sqlite3.Connection, header: Header) -> AgentContext:
        params = {"execution_id": header["execution_id"]}
        pending = header["pending"]
        return context_of(
            header,
            steps=[text for (text,) in connection.execute(self._steps, params)],
            notes=connection.execute(self._notes, params).fetchall(),
            values=connection.execute(self._values, params).fetchall(),
            signals=[text for (text,) in connection.execute(self._mail, params | {"pending": json.dumps(pending)})]
            if pending
            else (),
        )

    def _update(self, connection: sqlite3.Connection, execution_id: str, changes: dict[str, Any]) -> None:
        sets = ", ".join(f"{name} = ?" for name in changes)
        connection.execute(
            f"UPDATE {self._contexts} SET {sets} WHERE execution_id = ?", (*changes.values(), execution_id)
        )


def _changes(header: Header, change: EncodedCheckpoint, notes: int, now_us: int) -> dict[str, Any]:
    """The columns that an accepted checkpoint changes, with their new values."""
    state, pending = change.state, header["pending"]
    changes: dict[str, Any] = {
        "version": header["version"] + 1,
        "checkpoint_id": change.checkpoint_id,
        "updated_us": now_us,
    }
    if change.steps:
        intents = dict(header["intents"])
        for step in change.steps:
            if step.is_done:
                intents.pop(str(step.number), None)
            else:
                intents[str(step.number)] = step.name
        if intents != header["intents"]:
            changes["intents"] = json.dumps(intents)
        changes |= {"step_count": max(header["step_count"], change.steps[-1].number), "crashes": 0}
    if notes:
        changes["note_count"] = header["note_count"] + notes
    if change.consumed:
        pending = {signal_id: address for signal_id, address in pending.items() if signal_id not in change.consumed}
        changes["pending"] = json.dumps(pending)
    if state is None:
        return changes
    changes |= {
        "state": state.value,
        "waiting": change.waiting,
        "wait_key": change.wait_key,
        "wait_signal": change.wait_signal,
    }
    if state.is_paused:
        changes["crashes"] = 0
        if header["cancel_requested"] or address_of(change.wait_signal, change.wait_key) in pending.values():
            changes |= {"due_us": now_us, "not_before_us": 0}
        else:
            changes["due_us"] = change.wake_us
            changes["not_before_us"] = NEVER_US if change.wake_us is None else change.wake_us
    if state.is_over:
        changes |= {
            "output": change.output,
            "error": change.error,
            "due_us": None if change.announce_us is None else now_us + change.announce_us,
        }
    if change.gives_back_lease:
        changes |= {"owner": None, "lease_until_us": 0, "rings": 0}
    if state is AgentState.IDLE:
        changes |= {"output": None, "error": None, "crashes": 0, "rings": 0, "not_before_us": 0, "due_us": now_us}
    return changes
