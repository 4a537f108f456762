"""`SQLStore`: executions in SQLite or PostgreSQL."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TextIO

from statestore.checkpoint import Checkpoint, NewExecution, require_lease_of
from statestore.clock import Clock, SystemClock
from statestore.codec import encode_checkpoint, encode_signal
from statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from statestore.operations import Store
from statestore.records import (
    AgentContext,
    AgentStep,
    Checkpointed,
    Claim,
    Due,
    ExecutionSummary,
    Lease,
    Page,
    Renewed,
    Sent,
    Signal,
)
from statestore.sql import schema
from statestore.sql.database import Database, PostgreSQLDatabase, SQLiteDatabase
from statestore.sql.postgresql import PostgreSQLPrimitives
from statestore.sql.reading import Reading
from statestore.sql.settings import parse_url
from statestore.sql.single import SingleStatements
from statestore.sql.sqlite import SQLitePrimitives
from statestore.states import AgentState


class SQLStore(Store):
    """Keeps executions in a SQLite file or a PostgreSQL database.

    A SQLite file is created and brought to the newest schema at the first use, by whichever process comes first. A
    PostgreSQL database is only ever changed by `migrate`, and works on the newest schema only (`check`).

    PostgreSQL's time is the database's; SQLite's, which only processes of one host share, is that host's.
    """

    def __init__(self, url: str, *, clock: Clock | None = None, max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES) -> None:
        """Connects to nothing yet. For `url` and what it raises see `statestore.sql.opening.open_sql`."""
        self._settings = settings = parse_url(url)
        self.url = settings.shown_url
        self.max_value_bytes = max_value_bytes
        self._database: Database
        self._primitives: SQLitePrimitives | PostgreSQLPrimitives
        if settings.is_sqlite:
            sqlite = SQLiteDatabase(settings, lambda: schema.ensure_schema(settings))
            self._database, self._primitives = sqlite, SQLitePrimitives(sqlite, clock or SystemClock())
        else:
            postgresql = PostgreSQLDatabase(settings)
            self._database, self._primitives = postgresql, PostgreSQLPrimitives(postgresql, clock)
        self._reading = Reading(self._database)
        self._single = SingleStatements(self._database)

    def create(self, new: NewExecution) -> AgentContext:
        return self._primitives.create(new, self.max_value_bytes)

    def get_context(self, execution_id: str) -> AgentContext | None:
        return self._primitives.get_context(execution_id)

    def get_summary(self, execution_id: str) -> ExecutionSummary | None:
        return self._reading.summary(execution_id)

    def get_steps(self, execution_id: str, after: int = 0) -> tuple[AgentStep, ...]:
        return self._reading.steps(execution_id, after)

    def find(
        self,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        states: Iterable[AgentState] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        equal = {"session_id": session_id, "user_id": user_id, "agent_id": agent_id}
        return self._reading.find(equal, states, created_after, created_before, limit, cursor)

    def claim(self, execution_id: str, owner: str, ttl: timedelta) -> Claim | None:
        return self._primitives.claim(execution_id, owner, ttl)

    def renew(self, leases: Sequence[Lease], ttl: timedelta) -> Renewed:
        return self._primitives.renew(leases, ttl)

    def release(self, lease: Lease, *, crashed: bool = False) -> bool:
        return self._single.release(lease, crashed, self._primitives.now_us())

    def find_leases(self, owner_prefix: str) -> tuple[Lease, ...]:
        return self._reading.leases(owner_prefix, self._primitives.now_us())

    def checkpoint(self, execution_id: str, checkpoint: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        require_lease_of(execution_id, lease)
        change = encode_checkpoint(checkpoint, self.max_value_bytes)
        return self._primitives.checkpoint(execution_id, change, lease)

    def send(self, execution_id: str, signal: Signal) -> Sent:
        return self._primitives.send(execution_id, signal, encode_signal(signal, self.max_value_bytes))

    def take_due(self, limit: int, grace: timedelta) -> tuple[Due, ...]:
        return self._primitives.take_due(limit, grace)

    def mark_rung(self, rung: Iterable[tuple[str, int]], first: timedelta, maximum: timedelta) -> None:
        self._primitives.mark_rung(rung, first, maximum)

    def settle(self, execution_id: str) -> None:
        self._single.settle(execution_id)

    def delete_context(self, execution_id: str) -> bool:
        return self._single.delete(execution_id)

    def clear(self) -> int:
        return self._single.clear()

    def check(self) -> None:
        """Raises `StoreUnavailable` or `SchemaMismatch`. A SQLite file is made and migrated first."""
        if isinstance(self._database, SQLiteDatabase):
            self._database.is_ready = False
            self._database.run("SELECT 1", {})
        else:
            schema.check_schema(self._settings)

    def durability_warning(self) -> str | None:
        return self._primitives.durability_warning()

    def close(self) -> None:
        self._database.dispose()

    # -- the schema ----------------------------------------------------------------------------------------------------

    def migrate(self, revision: str = "head", *, sql: bool = False, output: TextIO | None = None) -> None:
        """Brings the schema to `revision`, up or down: "head", "base" (which drops the tables), or a revision's name.

        With `sql` nothing is changed and nothing connected to: the statements that lead from an empty database there
        (for "base": from the newest schema) are written to `output`, by default the standard output.

        Raises `UnknownRevision`, `SchemaMismatch` for a schema that only a newer version of this package knows, and
        `StoreUnavailable`. Concurrent calls are harmless.
        """
        if sql:
            schema.print_ddl(self._settings, revision, output)
            return
        if isinstance(self._database, SQLiteDatabase):
            self._database.is_ready = False
        schema.migrate(self._settings, revision)

    def downgrade(self, revision: str = "base") -> None:
        """Like `migrate`, with the other default."""
        self.migrate(revision)

    def revision(self) -> str | None:
        """The revision of the database's schema; None without one."""
        return schema.read_revision(self._settings)
