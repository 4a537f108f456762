"""The tables of the SQL store, as SQLAlchemy Core metadata: what the migrations lead to.

One row per execution (`contexts`), and one per step, note, memory value and signal, so that a checkpoint writes only
what changed. The columns of `contexts` are those of `statestore.codec.HEADER_FIELDS`, and four more that let a
conditional UPDATE of that one row decide everything (a row is read again after waiting for its lock, a subselect of
another table is not):

* `intents`: JSON object, number of each step without a result -> its name;
* `pending`: JSON object, id of each unconsumed signal -> its address (`address_of`);
* `note_count`, `signal_count`: the last `position` given out in the other tables.

No column that an ordinary step changes is indexed, so that PostgreSQL updates the row in place (HOT); `fillfactor`
leaves the room for it.
"""

from dataclasses import dataclass
from typing import Final

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
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from statestore.codec import HEADER_FIELDS
from statestore.records import SignalKind

DEFAULT_PREFIX: Final = "agent_"

# The newest revision in `migrations/versions`, which makes the tables below. Alembic, slow to import, is not asked.
REVISION: Final = "0001"

# Values of `memory.kind` and `notes.kind`.
WORKING: Final = "working"
ENTITY: Final = "entity"
MESSAGE: Final = "message"
FACT: Final = "fact"
RAG: Final = "rag"

EXTRA_COLUMNS: Final = ("intents", "pending", "note_count", "signal_count")
COLUMNS: Final = (*HEADER_FIELDS, *EXTRA_COLUMNS)

# Only the first signal of these kinds under one key is ever accepted.
ANSWERING: Final = (SignalKind.ANSWER.value, SignalKind.APPROVAL.value)


def address_of(kind: str | None, key: str | None) -> str:
    """What a signal is for, as one text. A kind contains no colon, so two addresses are never mixed up."""
    return f"{kind}:{key}"


@dataclass(frozen=True, slots=True)
class Tables:
    """The names of one store's tables."""

    prefix: str = DEFAULT_PREFIX

    @property
    def contexts(self) -> str:
        return f"{self.prefix}contexts"

    @property
    def steps(self) -> str:
        return f"{self.prefix}steps"

    @property
    def notes(self) -> str:
        return f"{self.prefix}notes"

    @property
    def memory(self) -> str:
        return f"{self.prefix}memory"

    @property
    def signals(self) -> str:
        return f"{self.prefix}signals"

    @property
    def version(self) -> str:
        """Alembic's table; with the prefix, so that it does not collide with that of the user's own migrations."""
        return f"{self.prefix}alembic_version"


# An id is compared byte by byte, as Python does: `find` orders by it, and a cursor compares with it.
def execution_id_type() -> TypeEngine[str]:
    return String(255).with_variant(String(255, collation="C"), "postgresql")


def json_type() -> TypeEngine[str]:
    return Text().with_variant(JSONB(), "postgresql")


def metadata_of(prefix: str = DEFAULT_PREFIX) -> MetaData:
    """The newest schema under this prefix."""
    names = Tables(prefix)
    metadata = MetaData()

    def part(name: str, *columns: Column[object], key: tuple[str, ...]) -> Table:
        owner = Column(
            "execution_id",
            execution_id_type(),
            ForeignKey(f"{names.contexts}.execution_id", ondelete="CASCADE", name=f"{name}_execution_fkey"),
            nullable=False,
        )
        return Table(name, metadata, owner, *columns, PrimaryKeyConstraint(*key, name=f"{name}_pkey"))

    contexts = Table(
        names.contexts,
        metadata,
        Column("execution_id", execution_id_type(), nullable=False),
        Column("format", Integer, nullable=False),
        Column("agent_id", String(255), nullable=False),
        Column("session_id", String(255)),
        Column("user_id", String(255)),
        Column("parent_execution_id", String(255)),
        Column("idempotency_key", String(255)),
        Column("queue", String(255)),
        Column("priority", BigInteger),
        Column("metadata", Text, nullable=False),
        Column("input", Text, nullable=False),
        Column("state", String(32), nullable=False),
        Column("waiting", Text),
        Column("wait_key", Text),
        Column("wait_signal", String(32)),
        Column("output", Text),
        Column("error", Text),
        Column("version", BigInteger, nullable=False),
        Column("token", BigInteger, nullable=False),
        Column("crashes", Integer, nullable=False),
        Column("rings", Integer, nullable=False),
        Column("cancel_requested", SmallInteger, nullable=False),
        Column("owner", Text),
        Column("lease_until_us", BigInteger, nullable=False),
        Column("not_before_us", BigInteger, nullable=False),
        Column("due_us", BigInteger),
        Column("step_count", Integer, nullable=False),
        Column("checkpoint_id", Text),
        Column("created_us", BigInteger, nullable=False),
        Column("updated_us", BigInteger, nullable=False),
        Column("intents", json_type(), nullable=False),
        Column("pending", json_type(), nullable=False),
        Column("note_count", Integer, nullable=False),
        Column("signal_count", Integer, nullable=False),
        PrimaryKeyConstraint("execution_id", name=f"{names.contexts}_pkey"),
        postgresql_with={"fillfactor": 70},
    )

    def index(name: str, *columns: str, only: str | None = None, unique: bool = False, on: Table = contexts) -> None:
        where = None if only is None else text(only)
        Index(
            f"{on.name}_{name}",
            *(on.c[column] for column in columns),
            unique=unique,
            postgresql_where=where,
            sqlite_where=where,
        )

    index("due", "due_us", "execution_id", only="due_us IS NOT NULL")
    index("leased", "owner", only="owner IS NOT NULL")
    index("idempotency", "agent_id", "idempotency_key", only="idempotency_key IS NOT NULL", unique=True)
    # The order of `find`, read backwards, alone and behind each of its filters.
    index("created", "created_us", "execution_id")
    index("session", "session_id", "created_us", "execution_id", only="session_id IS NOT NULL")
    index("user", "user_id", "created_us", "execution_id", only="user_id IS NOT NULL")
    index("agent", "agent_id", "created_us", "execution_id")
    index("state", "state", "created_us", "execution_id")

    part(
        names.steps,
        Column("step_number", Integer, nullable=False),
        Column("name", Text, nullable=False),
        Column("is_done", Boolean, nullable=False),
        Column("data", Text, nullable=False),
        key=("execution_id", "step_number"),
    )
    part(
        names.notes,
        Column("position", Integer, nullable=False),
        Column("kind", String(32), nullable=False),
        Column("data", Text, nullable=False),
        key=("execution_id", "position"),
    )
    part(
        names.memory,
        Column("kind", String(32), nullable=False),
        Column("name", String(255), nullable=False),
        Column("data", Text, nullable=False),
        key=("execution_id", "kind", "name"),
    )
    signals = part(
        names.signals,
        Column("signal_id", Text, nullable=False),
        Column("position", Integer, nullable=False),
        Column("kind", String(32), nullable=False),
        Column("signal_key", Text, nullable=False),
        Column("data", Text, nullable=False),
        key=("execution_id", "signal_id"),
    )
    accepted = ", ".join(f"'{kind}'" for kind in ANSWERING)
    index("answered", "execution_id", "kind", "signal_key", only=f"kind IN ({accepted})", unique=True, on=signals)
    return metadata
