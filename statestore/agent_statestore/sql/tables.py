"""The tables of the SQL store, as SQLAlchemy Core metadata, to which the migrations lead.

One row per execution (`contexts`), and one per step, note (message, fact or retrieved passage), memory value, signal,
entry of the audit trail and event of the stream (`events`), so that a checkpoint writes only what changed; one per
session; and one in `rates` per bucket of `take_rate` (`next_us`, `end_us`: see
`agent_statestore.rules.rates.BucketState`; `turn_us`: the last answer); and one in `documents` per document
(`agent_statestore.documents.codec.StoredDocument`). MySQL and MariaDB have one more table, `document_locks`, of rows to
lock (see `agent_statestore.sql.locking.documents`). PostgreSQL has `vectors` where the extension pgvector is (see
`agent_statestore.sql.postgresql.vectors`); it is no part of the metadata.

The columns of `contexts` are those of `agent_statestore.codec.HEADER_FIELDS`, and more that let a conditional UPDATE of
that one row decide everything (a row is read again after waiting for its lock, but a subselect of another table is
not):

* `intents`: JSON object, number of each step without a result -> its name;
* `pending`: JSON object, id of each unconsumed signal -> its address (`address_of`);
* `note_count`, `signal_count`, `audit_count`: the last `position` given out in the other tables;
* `context_bytes`: the bytes of all texts of the context, as `StorePrimitives.max_context_bytes` counts them;
* `descendants`: what `count_descendant` has counted; unlike those before it is not one of `COLUMNS`;
* `STREAM_COLUMNS`: where the stream ends (`agent_statestore.rules.streams.StreamEnd`), and up to which number it was
  trimmed; `watched_until_us`: until when somebody on PostgreSQL wants to be told of its events;
* `deleted_us`: when the execution was deleted, else null. A deleted row has no lease, no `due_us` and no
  `idempotency_key`, and only the audit trail, `purge` and `restore` still see it.

A user may add columns (nullable, or with a default) and relations: every statement names the columns that it uses.

MySQL and MariaDB have no partial indexes: there each index covers all rows, and `answered` is not unique, because
events may repeat a key. The row's lock alone then keeps a second answer out.

The columns that an ordinary step changes are not indexed, so that PostgreSQL updates the row in place (HOT);
`fillfactor` leaves the room for it.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    text,
)

from agent_statestore.codec import HEADER_FIELDS
from agent_statestore.codec.signals import ANSWERING
from agent_statestore.sql.schema.column_types import (
    MYSQL,
    bytes_type,
    execution_id_type,
    json_type,
    key_type,
    ordered_type,
    table_options,
    text_type,
)

DEFAULT_PREFIX: Final = "agent_"

# The tables of the migrations, without the prefix.
VERSION: Final = "alembic_version"
UNFINISHED: Final = "alembic_unfinished"

# The newest revision in `migrations/versions`, which makes the tables below. Alembic is slow to import, and not asked.
REVISION: Final = "0007"

# Values of `memory.kind` and `notes.kind`.
WORKING: Final = "working"
ENTITY: Final = "entity"
MESSAGE: Final = "message"
FACT: Final = "fact"
RAG: Final = "rag"

EXTRA_COLUMNS: Final = ("intents", "pending", "note_count", "signal_count", "audit_count", "context_bytes")
COLUMNS: Final = (*HEADER_FIELDS, *EXTRA_COLUMNS)
# No claim and no checkpoint without events reads or writes these.
STREAM_COLUMNS: Final = ("stream_last", "stream_place", "stream_trimmed")

# The columns of `audit` behind `execution_id`, in the order of `agent_statestore.codec.AuditRow`: `by`, `reason` and
# `signal` have other names here, because they are words of SQL.
AUDIT_COLUMNS: Final = (
    "position",
    "at_us",
    "event",
    "from_state",
    "to_state",
    "attempt",
    "worker",
    "who",
    "why",
    "data",
)


@dataclass(frozen=True, slots=True)
class Tables:
    """The names of one store's tables as statements use them: with the schema in front, if there is one."""

    prefix: str = DEFAULT_PREFIX
    schema: str | None = None

    @property
    def contexts(self) -> str:
        return self.qualified("contexts")

    @property
    def steps(self) -> str:
        return self.qualified("steps")

    @property
    def notes(self) -> str:
        return self.qualified("notes")

    @property
    def memory(self) -> str:
        return self.qualified("memory")

    @property
    def signals(self) -> str:
        return self.qualified("signals")

    @property
    def audit(self) -> str:
        return self.qualified("audit")

    @property
    def events(self) -> str:
        return self.qualified("events")

    @property
    def sessions(self) -> str:
        return self.qualified("sessions")

    @property
    def rates(self) -> str:
        return self.qualified("rates")

    @property
    def duties(self) -> str:
        return self.qualified("duties")

    @property
    def documents(self) -> str:
        return self.qualified("documents")

    @property
    def document_locks(self) -> str:
        return self.qualified("document_locks")

    @property
    def vectors(self) -> str:
        """The table that PostgreSQL has with the extension pgvector; see `agent_statestore.sql.postgresql.vectors`."""
        return self.qualified("vectors")

    @property
    def version(self) -> str:
        """Alembic's table; the prefix keeps it from colliding with the table of the user's own migrations."""
        return self.qualified(VERSION)

    @property
    def unfinished(self) -> str:
        """The table that exists while a migration runs which the database could not undo."""
        return self.qualified(UNFINISHED)

    def qualified(self, name: str) -> str:
        """Return a table's name as a statement uses it, from the name without its prefix."""
        # A schema's name contains nothing that needs quotes: see `agent_statestore.sql.settings`.
        return f"{self.prefix}{name}" if self.schema is None else f"{self.schema}.{self.prefix}{name}"


# How many characters of an owner MySQL and MariaDB index: they do not index a text of any length.
OWNER_INDEXED: Final = 255


def table_names(prefix: str = DEFAULT_PREFIX) -> frozenset[str]:
    """Return the names of all tables that the store and its `migrate` keep under `prefix`, without the schema.

    Use them in the `include_name` of another Alembic environment that must leave these tables alone.
    """
    parts = ("steps", "notes", "memory", "signals", "audit", "events")
    beside = ("sessions", "rates", "duties", "documents", "document_locks", "vectors")
    names = ("contexts", *parts, *beside, VERSION, UNFINISHED)
    return frozenset(f"{prefix}{name}" for name in names)


def metadata_of(
    prefix: str = DEFAULT_PREFIX,
    schema: str | None = None,
    metadata: MetaData | None = None,
    *,
    dialect: str | None = None,
) -> MetaData:
    """Put the newest schema's tables into `metadata`, or into a new one, and return it.

    With the `MetaData` of a user's Alembic environment, its autogenerate makes these tables and keeps them; the store's
    own `migrate` is then not used. `prefix` and `schema` are the `table_prefix` and `schema` of the store's URL.
    `dialect` names the kind of database: "mysql" or "mariadb" must be given, because neither has partial indexes (a
    `mysql://` URL that leads to a MariaDB needs "mariadb" too: their collations differ). For PostgreSQL and SQLite it
    may be left out. Raise `sqlalchemy.exc.InvalidRequestError` if `metadata` holds such tables already.
    """
    metadata = MetaData() if metadata is None else metadata
    options: dict[str, Any] = table_options(dialect)
    schema_prefix = "" if schema is None else f"{schema}."
    contexts_name = f"{prefix}contexts"

    def part(name: str, *columns: Column[Any], key: tuple[str, ...], **more: Any) -> Table:
        owner = Column(
            "execution_id",
            execution_id_type(dialect),
            ForeignKey(
                f"{schema_prefix}{contexts_name}.execution_id",
                ondelete="CASCADE",
                name=f"{prefix}{name}_execution_fkey",
            ),
            nullable=False,
        )
        primary_key = PrimaryKeyConstraint(*key, name=f"{prefix}{name}_pkey")
        return Table(f"{prefix}{name}", metadata, owner, *columns, primary_key, schema=schema, **options, **more)

    contexts = Table(
        contexts_name,
        metadata,
        Column("execution_id", execution_id_type(dialect), nullable=False),
        Column("format", Integer, nullable=False),
        Column("agent_id", String(255), nullable=False),
        Column("session_id", String(255)),
        Column("user_id", String(255)),
        Column("parent_execution_id", String(255)),
        Column("idempotency_key", String(255)),
        Column("queue", String(255)),
        Column("priority", BigInteger),
        Column("metadata", text_type(), nullable=False),
        Column("input", text_type(), nullable=False),
        Column("state", String(32), nullable=False),
        Column("waits", text_type()),
        Column("awaited", text_type()),
        Column("output", text_type()),
        Column("error", text_type()),
        Column("version", BigInteger, nullable=False),
        Column("token", BigInteger, nullable=False),
        Column("crashes", Integer, nullable=False),
        Column("rings", Integer, nullable=False),
        Column("cancel_requested", SmallInteger, nullable=False),
        Column("owner", text_type()),
        Column("lease_until_us", BigInteger, nullable=False),
        Column("not_before_us", BigInteger, nullable=False),
        Column("due_us", BigInteger),
        Column("step_count", Integer, nullable=False),
        Column("checkpoint_id", text_type()),
        Column("created_us", BigInteger, nullable=False),
        Column("updated_us", BigInteger, nullable=False),
        Column("intents", json_type(), nullable=False),
        Column("pending", json_type(), nullable=False),
        Column("note_count", Integer, nullable=False),
        Column("signal_count", Integer, nullable=False),
        Column("ended_us", BigInteger),
        Column("audit_count", Integer, nullable=False, server_default=text("0")),
        Column("deleted_us", BigInteger),
        Column("context_bytes", BigInteger, nullable=False, server_default=text("0")),
        Column("descendants", Integer, nullable=False, server_default=text("0")),
        *(
            Column(name, BigInteger, nullable=False, server_default=text("0"))
            for name in (*STREAM_COLUMNS, "watched_until_us")
        ),
        PrimaryKeyConstraint("execution_id", name=f"{contexts_name}_pkey"),
        schema=schema,
        postgresql_with={"fillfactor": 70},
        **options,
    )

    def index(
        name: str, *columns: str, only: str | None = None, on: Table = contexts, unique: bool = False, **more: Any
    ) -> None:
        where = None if only is None else text(only)
        Index(
            f"{on.name}_{name}",
            *(on.c[column] for column in columns),
            unique=unique,
            postgresql_where=where,
            sqlite_where=where,
            **more,
        )

    index("due", "due_us", "execution_id", only="due_us IS NOT NULL")
    start = {"owner": OWNER_INDEXED}
    # In the order of bytes, whatever the order of texts in the database, so that the start of an owner can be looked
    # up.
    bytewise = {"owner": "text_pattern_ops"}
    index(
        "leased", "owner", only="owner IS NOT NULL", mysql_length=start, mariadb_length=start, postgresql_ops=bytewise
    )
    index("idempotency", "agent_id", "idempotency_key", only="idempotency_key IS NOT NULL", unique=True)
    # The order of `find`, read backwards, alone and behind each of its filters.
    index("created", "created_us", "execution_id", only="deleted_us IS NULL")
    for name in ("session", "user"):
        there = f"{name}_id IS NOT NULL AND deleted_us IS NULL"
        index(name, f"{name}_id", "created_us", "execution_id", only=there)
    index("agent", "agent_id", "created_us", "execution_id", only="deleted_us IS NULL")
    index("state", "state", "created_us", "execution_id", only="deleted_us IS NULL")
    # Operators ask which executions of this agent have failed. There may be none among thousands.
    index("agent_state", "agent_id", "state", "created_us", "execution_id", only="deleted_us IS NULL")
    # The orders of `find_ended` and `find_deleted`.
    index("ended", "ended_us", "execution_id", only="ended_us IS NOT NULL AND due_us IS NULL AND deleted_us IS NULL")
    index("deleted", "deleted_us", "execution_id", only="deleted_us IS NOT NULL")
    # A purge asks whether anything is left of the session; elsewhere the index `session` tells of deleted ones, too.
    if dialect not in MYSQL:
        index("left", "session_id", only="session_id IS NOT NULL AND deleted_us IS NOT NULL")

    part(
        "steps",
        Column("step_number", Integer, nullable=False),
        Column("name", key_type(), nullable=False),
        Column("is_done", Boolean, nullable=False),
        Column("data", text_type(), nullable=False),
        key=("execution_id", "step_number"),
    )
    part(
        "notes",
        Column("position", Integer, nullable=False),
        Column("kind", String(32), nullable=False),
        Column("data", text_type(), nullable=False),
        key=("execution_id", "position"),
    )
    part(
        "memory",
        Column("kind", String(32), nullable=False),
        Column("name", String(255), nullable=False),
        Column("data", text_type(), nullable=False),
        key=("execution_id", "kind", "name"),
    )
    signals = part(
        "signals",
        Column("signal_id", key_type(), nullable=False),
        Column("position", Integer, nullable=False),
        Column("kind", String(32), nullable=False),
        Column("signal_key", key_type(), nullable=False),
        Column("data", text_type(), nullable=False),
        key=("execution_id", "signal_id"),
    )
    accepted = ", ".join(f"'{kind}'" for kind in ANSWERING)
    one = dialect not in MYSQL
    index("answered", "execution_id", "kind", "signal_key", only=f"kind IN ({accepted})", on=signals, unique=one)

    audit = part(
        "audit",
        Column("position", Integer, nullable=False),
        Column("at_us", BigInteger, nullable=False),
        Column("event", String(32), nullable=False),
        Column("from_state", String(32)),
        Column("to_state", String(32)),
        Column("attempt", BigInteger, nullable=False),
        Column("worker", text_type()),
        Column("who", text_type()),
        Column("why", text_type()),
        Column("data", text_type()),
        key=("execution_id", "position"),
    )
    index("at", "at_us", on=audit)

    part(
        "events",
        Column("number", BigInteger, autoincrement=False, nullable=False),
        Column("data", text_type(), nullable=False),
        key=("execution_id", "number"),
        sqlite_with_rowid=False,  # an event is then written to one place of the file, not to two
    )

    sessions = Table(
        f"{prefix}sessions",
        metadata,
        Column("session_id", String(255), nullable=False),
        Column("user_id", String(255)),
        Column("created_us", BigInteger, nullable=False),
        # The time when its latest execution was created.
        Column("updated_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("session_id", name=f"{prefix}sessions_pkey"),
        schema=schema,
        **options,
    )
    index("user", "user_id", "updated_us", on=sessions)

    Table(
        f"{prefix}rates",
        metadata,
        Column("bucket", String(255), nullable=False),
        Column("next_us", BigInteger, nullable=False),
        Column("end_us", BigInteger, nullable=False),
        Column("turn_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("bucket", name=f"{prefix}rates_pkey"),
        schema=schema,
        **options,
    )
    Table(
        f"{prefix}duties",
        metadata,
        Column("duty", String(255), nullable=False),
        Column("owner", String(255), nullable=False),
        Column("until_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("duty", name=f"{prefix}duties_pkey"),
        schema=schema,
        **options,
    )
    documents = Table(
        f"{prefix}documents",
        metadata,
        Column("place", ordered_type(700, dialect), nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("write_id", String(255)),
        Column("format", Integer, nullable=False),
        Column("metadata", text_type(), nullable=False),
        Column("created_us", BigInteger, nullable=False),
        Column("updated_us", BigInteger, nullable=False),
        Column("expires_us", BigInteger),
        # The values come last: SQLite reads a row from its beginning to what is asked for.
        Column("text", text_type()),
        Column("content", bytes_type()),
        PrimaryKeyConstraint("place", name=f"{prefix}documents_pkey"),
        schema=schema,
        **options,
    )
    index("expires", "expires_us", only="expires_us IS NOT NULL", on=documents)
    if dialect in MYSQL:
        Table(
            f"{prefix}document_locks",
            metadata,
            Column("slot", Integer, autoincrement=False, nullable=False),
            PrimaryKeyConstraint("slot", name=f"{prefix}document_locks_pkey"),
            schema=schema,
            **options,
        )
    return metadata
