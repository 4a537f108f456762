"""`SQLStore`: executions in SQLite, PostgreSQL, MariaDB or MySQL."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any, TextIO

from sqlalchemy.engine import Connection

from agent_statestore.checkpoint import (
    Checkpoint,
    LeasedWrite,
    NewExecution,
    StepTransaction,
    Via,
    require_lease_of,
    require_said,
)
from agent_statestore.clock import Clock, SystemClock, from_us
from agent_statestore.codec import EncodedCheckpoint, encode_checkpoint, encode_signal
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.codec.streams import EncodedPart, StoredStream, event_of_signal
from agent_statestore.contract.duties import Duty, check_duty
from agent_statestore.contract.mail import Heard
from agent_statestore.contract.streams import PollingListener, StreamListener
from agent_statestore.drivers import driver
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES, require_readable
from agent_statestore.errors import InvalidRecord, StoreError, StoreUnavailable
from agent_statestore.query import EVERYTHING, Query
from agent_statestore.recall.vectors import DocumentVectors, VectorIndex
from agent_statestore.records import (
    AgentContext,
    AgentStep,
    AuditEntry,
    Checkpointed,
    Claim,
    Due,
    ExecutionSummary,
    Lease,
    Page,
    Renewed,
    Sent,
    Signal,
    Turn,
)
from agent_statestore.rules.creating import create_each
from agent_statestore.rules.rates import asked
from agent_statestore.sql.activity import ActivityReading
from agent_statestore.sql.beside.documents import SQLDocuments
from agent_statestore.sql.beside.duties import DutyStatements
from agent_statestore.sql.beside.mail import MailReading
from agent_statestore.sql.database import Database
from agent_statestore.sql.driver_options import check_libpq_options
from agent_statestore.sql.joining import Create, Joining
from agent_statestore.sql.locking.joined import create_locked
from agent_statestore.sql.postgresql.primitives import PostgreSQLPrimitives
from agent_statestore.sql.primitives import Primitives
from agent_statestore.sql.reading import Reading
from agent_statestore.sql.schema import schema
from agent_statestore.sql.settings import own_options, parse_url
from agent_statestore.sql.single import SingleStatements
from agent_statestore.sql.sqlite.database import SQLiteDatabase
from agent_statestore.sql.sqlite.primitives import SQLitePrimitives, bind_sqlite, documents_in_file
from agent_statestore.sql.step_transaction import BoundDatabase, StepTransactions
from agent_statestore.states import AgentState
from agent_statestore.stats import Activity
from agent_statestore.store import Store
from agent_statestore.streams.records import Appended


class SQLStore(Store):
    """A store in a SQLite file, or in a database of PostgreSQL, MariaDB or MySQL.

    The first use of a SQLite file, by whichever process comes first, creates it and brings it to the newest schema.
    Only `migrate` ever changes a server's database; the store works on the newest schema only (`check`).

    On a server, the time is the database's; on SQLite, which only processes of one host share, it is that host's.
    """

    has_transactions = True

    def __init__(self, url: str, *, clock: Clock | None = None, max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES) -> None:
        """Connect to nothing yet. For `url` and the errors raised see `agent_statestore.sql.opening.open_sql`."""
        self._settings = settings = parse_url(url)
        self.url = settings.shown_url
        self.max_value_bytes = max_value_bytes
        self.keeps_deleted = settings.keeps_deleted
        self._database: Database
        self._primitives: Primitives
        self._documents: SQLDocuments
        self._find_vectors: Callable[[], VectorIndex] = lambda: DocumentVectors(self._documents)
        # Applies several checkpoints at once, where the database can.
        self._together: Callable[[Sequence[tuple[Lease, EncodedCheckpoint]]], list[Checkpointed | None]] | None = None
        # Where the database announces nothing, there is nothing to tell.
        self._listen: Callable[[], StreamListener] = PollingListener
        self._tell: Callable[[Iterable[str]], None] = super().tell_readers
        bind: Callable[[Connection], BoundDatabase]
        create: Create
        match settings.dialect:
            case "sqlite":
                sqlite = SQLiteDatabase(settings, lambda: schema.ensure_schema(settings))
                in_file = SQLitePrimitives(sqlite, clock or SystemClock())
                self._database, self._primitives = sqlite, in_file
                self.writes_together = True  # a file takes one writer at a time
                self._documents = documents_in_file(sqlite, clock or SystemClock())
                bind, create = partial(bind_sqlite, in_file), partial(create_locked, in_file, "?")
            case "postgresql":
                with driver("psycopg", extra="postgresql"):
                    from agent_statestore.sql.postgresql.bound import BoundPostgreSQL
                    from agent_statestore.sql.postgresql.database import PostgreSQLDatabase
                    from agent_statestore.sql.postgresql.documents import documents_of
                    from agent_statestore.sql.postgresql.joined import create_joined
                    from agent_statestore.sql.postgresql.listening import listen
                    from agent_statestore.sql.postgresql.together import checkpoint_together
                    from agent_statestore.sql.postgresql.vectors import vectors_of

                    check_libpq_options(settings.url, settings.shown_url, own_options())
                postgresql = PostgreSQLDatabase(settings)
                self._database, self._primitives = postgresql, (here := PostgreSQLPrimitives(postgresql, clock))
                self._listen, self._tell = partial(listen, postgresql, here.now_us), here.tell_readers
                self.writes_together = postgresql.can_run_together
                if self.writes_together:
                    self._together = partial(checkpoint_together, postgresql, self._primitives.now_us)
                self._documents = documents_of(postgresql, clock)
                self._find_vectors = partial(vectors_of, postgresql, self._documents)
                bind, create = partial(BoundPostgreSQL, settings, clock), partial(create_joined, settings, clock)
            case "mysql":
                with driver("pymysql", extra="mysql"):
                    from agent_statestore.sql.mysql.primitives import (
                        MySQLDatabase,
                        MySQLPrimitives,
                        bind_mysql,
                        documents_on_server,
                    )

                mysql = MySQLDatabase(settings)
                on_server = MySQLPrimitives(mysql, clock)
                self._database, self._primitives = mysql, on_server
                self._documents = documents_on_server(mysql, clock)
                bind, create = partial(bind_mysql, on_server), partial(create_locked, on_server, "%s")
        self._joining = Joining(settings, self._database, max_value_bytes, create)
        self._transactions = StepTransactions(settings, bind, max_value_bytes)
        self._reading = Reading(self._database)
        self._activity = ActivityReading(self._database)
        self._mail = MailReading(self._database)
        self._single = SingleStatements(self._database)
        self._duties = DutyStatements(self._database)

    def create(self, new: NewExecution) -> AgentContext:
        return self._primitives.create(new, self.max_value_bytes)

    def create_many(self, news: Sequence[NewExecution]) -> tuple[AgentContext, ...]:
        """Create many in one transaction; see `Store.create_many`."""
        return create_each(news, self.create, lambda: self._primitives.create_at_once(news, self.max_value_bytes))

    def create_in(self, connection: Any, new: NewExecution) -> AgentContext:
        """Create an execution in the caller's transaction; see `StorePrimitives.create_in`.

        On SQLite, the caller's transaction keeps all other writers of the file waiting until it ends.
        """
        return self._joining.create(connection, new)

    def get_context(self, execution_id: str) -> AgentContext | None:
        return self._primitives.get_context(execution_id)

    def get_summary(self, execution_id: str) -> ExecutionSummary | None:
        return self._reading.summary(execution_id)

    def get_steps(self, execution_id: str, after: int = 0, limit: int | None = None) -> tuple[AgentStep, ...]:
        return self._reading.steps(execution_id, after, limit)

    def find(self, query: Query = EVERYTHING) -> Page:
        return self._reading.find(query)

    def get_by_idempotency_key(self, agent_id: str, idempotency_key: str) -> AgentContext | None:
        return self._primitives.get_by_idempotency_key(agent_id, idempotency_key)

    def get_audit(self, execution_id: str) -> tuple[AuditEntry, ...]:
        return self._reading.audit(execution_id)

    def get_activity(self, execution_ids: Sequence[str]) -> Mapping[str, Activity]:
        return self._activity.of(execution_ids)

    def find_ended(
        self,
        before: datetime,
        *,
        after: datetime | None = None,
        states: Iterable[AgentState] | None = None,
        limit: int = 100,
    ) -> tuple[str, ...]:
        return self._reading.ended(before, after, states, limit)

    def claim(self, execution_id: str, owner: str, ttl: timedelta) -> Claim | None:
        return self._primitives.claim(execution_id, owner, ttl)

    def renew(self, leases: Sequence[Lease], ttl: timedelta) -> Renewed:
        return self._primitives.renew(leases, ttl)

    def get_mailbox(self, execution_id: str) -> tuple[Signal, ...]:
        return self._mail.mailbox(execution_id)

    def hear(self, leases: Sequence[Lease]) -> Heard:
        return self._mail.hear(leases)

    def release(self, lease: Lease, *, crashed: bool = False) -> bool:
        return self._single.release(lease, crashed, self._primitives.now_us())

    def forgive(self, lease: Lease, crashes: int) -> bool:
        return self._single.forgive(lease, crashes, self._primitives.now_us())

    def find_leases(self, owner_prefix: str) -> tuple[Lease, ...]:
        return self._reading.leases(owner_prefix, self._primitives.now_us())

    def checkpoint(self, execution_id: str, checkpoint: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        require_lease_of(execution_id, lease)
        change = encode_checkpoint(checkpoint, self.max_value_bytes, self.max_context_bytes)
        return self._primitives.checkpoint(execution_id, change, lease)

    def checkpoint_each(self, writes: Sequence[LeasedWrite]) -> list[Checkpointed | StoreError]:
        """Write each; on PostgreSQL in one round trip and one commit. See `Store.checkpoint_each`."""
        if len(writes) < 2 or self._together is None:
            return super().checkpoint_each(writes)
        outcomes: list[Checkpointed | StoreError | None] = [None] * len(writes)
        changes: dict[int, tuple[Lease, EncodedCheckpoint]] = {}
        for number, write in enumerate(writes):
            try:
                change = encode_checkpoint(write.checkpoint, self.max_value_bytes, self.max_context_bytes)
            except InvalidRecord as error:
                outcomes[number] = error
            else:
                changes[number] = write.lease, change
        try:
            for number, applied in zip(changes, self._together(tuple(changes.values())), strict=True):
                outcomes[number] = applied
        except StoreUnavailable as error:
            return [error if outcome is None else outcome for outcome in outcomes]
        except StoreError:
            pass  # one that the database cannot hold: each alone says which
        alone = [number for number, outcome in enumerate(outcomes) if outcome is None]
        for number, outcome in zip(alone, super().checkpoint_each([writes[each] for each in alone]), strict=True):
            outcomes[number] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def transaction(self, execution_id: str, lease: Lease) -> AbstractContextManager[StepTransaction]:
        """Open a step's transaction; see `StorePrimitives.transaction`.

        On SQLite the whole block keeps all other writers waiting.
        """
        require_lease_of(execution_id, lease)
        return self._transactions.open(execution_id, lease, self.max_context_bytes)

    def send(self, execution_id: str, signal: Signal) -> Sent:
        text, told = encode_signal(signal, self.max_value_bytes), event_of_signal(signal, self.max_value_bytes)
        return self._primitives.send(execution_id, signal, text, told, self.max_mailbox, self.max_context_bytes)

    def append_streams(self, parts: Sequence[tuple[Lease, EncodedPart]]) -> Sequence[Appended]:
        return self._primitives.append_streams(parts) if parts else ()

    def read_streams(self, cursors: Mapping[str, int], limit: int) -> Mapping[str, StoredStream]:
        return self._primitives.read_streams(cursors, limit) if cursors else {}

    def trim_stream(self, execution_id: str, keep: int) -> int:
        return self._primitives.trim_stream(execution_id, keep)

    def listen_streams(self) -> StreamListener:
        return self._listen()

    def tell_readers(self, execution_ids: Iterable[str]) -> None:
        self._tell(execution_ids)

    def count_descendant(self, execution_id: str, limit: int) -> bool:
        return self._single.count_descendant(execution_id, limit)

    def take_due(self, limit: int, grace: timedelta) -> tuple[Due, ...]:
        return self._primitives.take_due(limit, grace)

    def mark_rung(self, rung: Iterable[tuple[str, int]], first: timedelta, maximum: timedelta) -> None:
        self._primitives.mark_rung(rung, first, maximum)

    def settle(self, execution_id: str) -> None:
        self._single.settle(execution_id)

    def take_rate(
        self,
        bucket: str,
        limit: int,
        per: timedelta,
        *,
        within: timedelta = timedelta(0),
        promised: bool = False,
    ) -> Turn:
        return self._primitives.take_rate(bucket, asked(bucket, limit, per, within, promised))

    @property
    def documents(self) -> SQLDocuments:
        return self._documents

    @cached_property
    def vectors(self) -> VectorIndex:
        """The index of the vectors of facts; on PostgreSQL with pgvector where that is. One round trip at first."""
        return self._find_vectors()

    def take_duty(self, duty: str, owner: str, ttl: timedelta, *, instead: bool = False) -> Duty:
        check_duty(duty, owner, ttl)
        return self._duties.take(duty, owner, ttl, instead, self._primitives.now_us())

    def delete_context(
        self, execution_id: str, *, by: str | None = None, reason: str | None = None, via: Via | None = None
    ) -> bool:
        require_said(by, reason)
        return self._primitives.delete_context(execution_id, by=by, reason=reason, via=via)

    def purge(self, execution_id: str) -> bool:
        return self._primitives.purge(execution_id)

    def find_deleted(self, before: datetime, limit: int = 100) -> tuple[str, ...]:
        return self._reading.deleted(before, limit)

    def clear(self) -> int:
        return self._primitives.clear()

    def tidy(self, limit: int = 1000) -> int:
        """Remove rates that nobody has asked for in a long time, and documents that have expired.

        See `StorePrimitives.tidy`.
        """
        return self._single.forget_rates(limit, self._primitives.now_us()) + self._documents.tidy(limit)

    def export(self, execution_id: str) -> ExportedExecution | None:
        return self._primitives.export(execution_id)

    def restore(self, exported: ExportedExecution) -> bool:
        require_readable(f"execution {exported.execution_id}", exported.header["format"])
        return self._primitives.restore(exported)

    def drop_archived(self, execution_id: str, place: tuple[int, int, int]) -> bool:
        return self._primitives.drop_archived(execution_id, place)

    def now(self) -> datetime:
        now_us = self._primitives.now_us()
        return from_us(self._reading.now_us() if now_us is None else now_us)

    def check(self) -> None:
        """Raise `StoreUnavailable` or `SchemaMismatch`. A SQLite file is made and migrated first."""
        if isinstance(self._database, SQLiteDatabase):
            self._database.is_ready = False
            self._database.run("SELECT 1", {})
        else:
            schema.check_schema(self._settings)

    def durability_warning(self) -> str | None:
        return self._primitives.durability_warning()

    def close(self) -> None:
        self._database.dispose()
        self._transactions.dispose()

    # -- the schema ----------------------------------------------------------------------------------------------------

    def migrate(self, revision: str = "head", *, sql: bool = False, output: TextIO | None = None) -> None:
        """Bring the schema to `revision`, up or down: "head", "base" (which drops the tables), or a revision's name.

        With `sql` nothing is changed and nothing connected to: the statements that lead from an empty database there
        (for "base": from the newest schema; for "FROM:TO": from one revision to another) are written to `output`, by
        default the standard output.

        Raise `UnknownRevision`, `SchemaMismatch` for a schema that only a newer version of this package knows, and
        `StoreUnavailable`. Concurrent calls are harmless.
        """
        if sql:
            schema.print_ddl(self._settings, revision, output)
            return
        if isinstance(self._database, SQLiteDatabase):
            self._database.is_ready = False
        schema.migrate(self._settings, revision)

    def downgrade(self, revision: str = "base") -> None:
        """Bring the schema to `revision`; like `migrate`, with the other default."""
        self.migrate(revision)

    def leads_down(self, revision: str) -> bool:
        """Return whether `migrate(revision)` would go down, and remove what only the newer schema keeps."""
        return schema.leads_down(self._settings, revision)

    def revision(self) -> str | None:
        """Return the revision of the database's schema; None without one."""
        return schema.read_revision(self._settings)
