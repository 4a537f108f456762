"""The primitives on PostgreSQL: each is one statement in autocommit, so one round trip and one transaction."""

import contextlib
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from agent_statestore.checkpoint import NewExecution, new_execution_id
from agent_statestore.clock import Clock, duration_us, from_us
from agent_statestore.codec import EncodedCheckpoint, decode_context, encode_new, noted_as, stamp
from agent_statestore.codec.headers import new_bytes
from agent_statestore.codec.signals import address_of, mailbox_key
from agent_statestore.codec.waits import encode_awaited
from agent_statestore.envelope import format_of, octets
from agent_statestore.errors import ExecutionUnreadable, StoreUnavailable
from agent_statestore.records import AgentContext, Checkpointed, Claim, Lease, Sent, Signal
from agent_statestore.rules.checkpoints import check_checkpoint
from agent_statestore.rules.creating import same_execution, same_id
from agent_statestore.rules.growth import Growth
from agent_statestore.rules.leases import may_claim
from agent_statestore.rules.signals import MailBounds, check_signal
from agent_statestore.sql.database import Database, DuplicateKey
from agent_statestore.sql.headers import Header
from agent_statestore.sql.postgresql.moving import PostgreSQLMoving
from agent_statestore.sql.postgresql.rates import PostgreSQLRates
from agent_statestore.sql.postgresql.reading import context_in, parts_of
from agent_statestore.sql.postgresql.removing import PostgreSQLRemoving
from agent_statestore.sql.postgresql.repeating import ROUNDS
from agent_statestore.sql.postgresql.ringing import PostgreSQLRinging
from agent_statestore.sql.postgresql.sending import send_statement
from agent_statestore.sql.postgresql.shapes import Shape, shape_of
from agent_statestore.sql.postgresql.streaming import stream_params
from agent_statestore.sql.postgresql.streams import PostgreSQLStreams
from agent_statestore.sql.postgresql.writing import (
    checkpoint_statement,
    claim_statement,
    create_many_statement,
    create_statement,
    replaced_bytes,
)
from agent_statestore.sql.rows import notes_of, values_of
from agent_statestore.sql.tables import COLUMNS
from agent_statestore.sql.transaction import Row

_TOKEN: Final = COLUMNS.index("token")
_WATCHED: Final = 3
_NEW_OBJECTS: Final[dict[str, object]] = {"intents": {}, "pending": {}}
_NEW: Final = {"intents": "{}", "pending": "{}", "note_count": 0, "signal_count": 0, "audit_count": 1}


class PostgreSQLPrimitives(PostgreSQLRinging, PostgreSQLRemoving, PostgreSQLMoving, PostgreSQLRates, PostgreSQLStreams):
    """The primitives that differ on PostgreSQL; see `StorePrimitives` for each method."""

    def __init__(self, database: Database, clock: Clock | None) -> None:
        super().__init__(database, clock)
        tables = self._tables
        columns = ", ".join(f"c.{name}" for name in COLUMNS)
        self._get = (
            f"SELECT {columns}, {parts_of(tables, 'c')} FROM {tables.contexts} AS c WHERE c.deleted_us IS NULL AND "
        )
        self._claim = claim_statement(tables, database.now)

    def create(self, new: NewExecution, max_bytes: int) -> AgentContext:
        execution_id = new.execution_id or new_execution_id()
        header = encode_new(execution_id, new, None, max_bytes)
        statement = create_statement(self._tables, self._database.now, in_session=new.session_id is not None)
        params = _row_of(header, new) | {"now": self.now_us()}
        for _ in range(ROUNDS):
            for created_us, due_us in self._database.run(statement, params):
                return _created(header, created_us, due_us)
            if new.idempotency_key is not None:
                found = self.get_by_idempotency_key(new.agent_id, new.idempotency_key)
                if found is not None:
                    return same_execution(found, new)
            if new.execution_id is not None:
                found = self.get_context(execution_id)
                if found is not None or self._look_at_deleted(execution_id):
                    return same_id(found, new)
        raise self._unexplained("create", execution_id)

    def create_at_once(self, news: Sequence[NewExecution], max_bytes: int) -> Sequence[AgentContext | None]:
        headers = [encode_new(new.execution_id or new_execution_id(), new, None, max_bytes) for new in news]
        rows = [_row_of(header, new) | _NEW_OBJECTS for header, new in zip(headers, news, strict=True)]
        params = {"rows": json.dumps(rows), "now": self.now_us()}
        try:
            answered = self._database.run(create_many_statement(self._tables, self._database.now), params)
        except DuplicateKey:
            return [None] * len(news)  # others create the same at the same time
        made = {execution_id: (created_us, due_us) for execution_id, created_us, due_us in answered}
        return [
            _created(header, *made[header["execution_id"]]) if header["execution_id"] in made else None
            for header in headers
        ]

    def _look_at_deleted(self, execution_id: str) -> bool:
        """Return whether there is a row under this id that is deleted and not purged."""
        statement = f"SELECT 1 FROM {self._tables.contexts} WHERE execution_id = :id AND deleted_us IS NOT NULL"
        return bool(self._database.run(statement, {"id": execution_id}))

    def get_context(self, execution_id: str) -> AgentContext | None:
        rows = self._database.run(f"{self._get}c.execution_id = :execution_id", {"execution_id": execution_id})
        return context_in(rows[0]) if rows else None

    def get_by_idempotency_key(self, agent_id: str, idempotency_key: str) -> AgentContext | None:
        rows = self._database.run(
            f"{self._get}c.agent_id = :agent_id AND c.idempotency_key = :idempotency_key",
            {"agent_id": agent_id, "idempotency_key": idempotency_key},
        )
        return context_in(rows[0]) if rows else None

    def claim(self, execution_id: str, owner: str, ttl: timedelta) -> Claim | None:
        params = {"execution_id": execution_id, "owner": owner, "ttl": duration_us(ttl), "now": self.now_us()}
        for _ in range(ROUNDS):
            for row in self._database.run(self._claim, params):
                now_us = row[-1]
                lease = Lease(
                    execution_id=execution_id,
                    token=row[_TOKEN],
                    owner=owner,
                    ttl=ttl,
                    expires_at=from_us(now_us + duration_us(ttl)),
                )
                try:
                    return Claim(lease=lease, context=context_in(row), now=from_us(now_us))
                except ExecutionUnreadable as fault:
                    raise fault.under(lease) from fault
            header, now_us = self._look(execution_id)
            if header is None:
                return None
            if not may_claim(execution_id, header, now_us):
                return None
        raise self._unexplained("claim", execution_id)

    def checkpoint(self, execution_id: str, change: EncodedCheckpoint, lease: Lease | None) -> Checkpointed:
        params = checkpoint_params(execution_id, change, lease)
        is_leased = lease is not None
        shape = shape_of(change, leased=is_leased)
        for _ in range(ROUNDS):
            statement = checkpoint_statement(self._tables, shape, self._database.now)
            params["now"] = self.now_us()
            for row in self._database.run(statement, params):
                return checkpointed(row)
            general = shape_of(change, leased=is_leased, is_general=True)
            if shape != general:
                shape = general
                continue
            header, now_us = self._look(execution_id)
            intents = {} if header is None else header["intents"]
            growth = self._growth(header, change, shape, params)
            applied = check_checkpoint(execution_id, header, change, lease, intents, now_us, growth)
            if applied is not None:
                return applied
        raise self._unexplained("checkpoint", execution_id)

    def _growth(self, header: Header | None, change: EncodedCheckpoint, shape: Shape, params: dict[str, Any]) -> Growth:
        """Return how the size of the context would have changed, to say why a checkpoint was refused."""
        if header is None:
            return Growth(0, 0, 0)
        replaced = replaced_bytes(self._tables, shape)
        rows = self._database.run(
            f"SELECT {replaced} FROM {self._tables.contexts} AS c WHERE c.execution_id = :execution_id", params
        )
        return Growth(header["context_bytes"], change.added_bytes, sum(int(size) for (size,) in rows))

    def send(
        self, execution_id: str, signal: Signal, text: str, told: str | None, max_mailbox: int, max_bytes: int
    ) -> Sent:
        kind, key = signal.kind.value, mailbox_key(signal.key, signal.round)
        params = {
            "execution_id": execution_id,
            "signal_id": signal.signal_id,
            "kind": kind,
            "signal_key": key,
            "address": address_of(kind, key),
            "data": text,
            "who": signal.sender,
            "why": signal.reason,
            "max_mailbox": max_mailbox,
            "max_bytes": max_bytes,
            "told": told,
        }
        statement = send_statement(
            self._tables,
            signal.kind,
            format_of(text),
            noted_as(signal),
            self._database.now,
            is_told=told is not None,
        )
        signals = self._tables.signals
        for _ in range(ROUNDS):
            try:
                for woke, is_watched in self._database.run(statement, params | {"now": self.now_us()}):
                    if is_watched:
                        # The signal is accepted. Without a word readers see it with their next look.
                        with contextlib.suppress(StoreUnavailable):
                            self.tell_readers([execution_id])
                    return Sent(woke=woke)
            except DuplicateKey:
                pass  # sent before, or answered before: told apart below
            header, now_us = self._look(execution_id)
            earlier = self._database.run(
                f"SELECT signal_id = :signal_id FROM {signals} WHERE execution_id = :execution_id "
                "AND (signal_id = :signal_id OR (kind = :kind AND signal_key = :signal_key))",
                params,
            )
            sent = any(same for (same,) in earlier)
            applied = check_signal(
                execution_id,
                header,
                signal,
                sent=sent,
                answered=bool(earlier),
                waiting=0 if header is None else len(header["pending"]),
                bounds=MailBounds(
                    max_mailbox,
                    max_bytes,
                    octets(stamp(text, now_us)) + (0 if header is None else header["context_bytes"]),
                ),
            )
            if applied is not None:
                return applied
        raise self._unexplained("send", execution_id)


def checkpointed(row: Row) -> Checkpointed:
    """Return the outcome in a row of `checkpoint_statement`."""
    return Checkpointed(
        version=row[0], cancel_requested=bool(row[1]), due_now=row[2], is_watched=len(row) > _WATCHED and row[_WATCHED]
    )


def checkpoint_params(execution_id: str, change: EncodedCheckpoint, lease: Lease | None) -> dict[str, Any]:
    """Return the parameters of `checkpoint_statement`, but for the time."""
    params: dict[str, Any] = {
        "execution_id": execution_id,
        "checkpoint_id": change.checkpoint_id,
        "added_bytes": change.added_bytes,
        "max_bytes": change.max_context_bytes,
    }
    if lease is not None:
        params["token"] = lease.token
    if change.after_checkpoint is not None:
        params["after_checkpoint"] = change.after_checkpoint
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
        # Here begins the last run of numbers without a gap: it must join on to what is recorded.
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
    if change.stream is not None:
        params |= stream_params(change.stream)
    if change.state is not None:
        params |= {
            "waits": change.waits,
            "awaited": encode_awaited(change.awaited),
            "addresses": list(change.awaited),
            "wake_us": change.wake_us,
            "output": change.output,
            "error": change.error,
            "announce_us": change.announce_us,
            "who": change.by,
            "why": change.reason,
            "via": change.via,
        }
    return params


def _row_of(header: Header, new: NewExecution) -> dict[str, Any]:
    """Return the columns of a new execution, and `first_ring` in microseconds."""
    return header | _NEW | {"context_bytes": new_bytes(header), "first_ring": duration_us(new.first_ring)}


def _created(header: Header, created_us: int, due_us: int) -> AgentContext:
    return decode_context(header | {"created_us": created_us, "updated_us": created_us, "due_us": due_us})
