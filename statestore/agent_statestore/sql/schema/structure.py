"""Whether the tables are those that the store works on, whoever made them: a look at the structure itself."""

from typing import Final

from sqlalchemy import MetaData, Table, inspect
from sqlalchemy.engine import Connection, Inspector
from sqlalchemy.engine.interfaces import ReflectedColumn

from agent_statestore.errors import SchemaMismatch
from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.tables import REVISION, metadata_of

# The unique indexes besides the primary keys: without them two callers could both create one execution, or both answer.
_IDEMPOTENCY: Final = ("contexts", ("agent_id", "idempotency_key"))
_ANSWERED: Final = ("signals", ("execution_id", "kind", "signal_key"))


class IncompleteSchema(SchemaMismatch):
    """Tables have the store's names, but `migrate` did not make them, and something is missing in them.

    `missing` names tables, columns (`table.column`), and anything else in words.
    """

    def __init__(self, url: str, missing: tuple[str, ...]) -> None:
        super().__init__(url, None, REVISION)
        self.args = (url, missing)
        self.missing = missing

    def __str__(self) -> str:
        return (
            f"{self.url} has tables of the store's names that `celery -A celery_agents agents migrate` did not make, "
            f"and they are not what revision {self.expected} needs; missing: {', '.join(self.missing)}. Complete them "
            "with the Alembic environment that made them (see `agent_statestore.sql.metadata_of`), or choose another "
            "table_prefix"
        )


def kind_of(connection: Connection) -> str:
    """Return the kind of database as `metadata_of` takes it: the server that answers, which the URL need not tell."""
    return "mariadb" if getattr(connection.dialect, "is_mariadb", False) else connection.dialect.name


def has_any_table(connection: Connection, settings: SQLSettings) -> bool:
    """Return whether there is a table of one of the store's names."""
    inspector = inspect(connection)
    declared = _declared(connection, settings).tables.values()
    return any(inspector.has_table(table.name, schema=table.schema) for table in declared)


def missing_parts(connection: Connection, settings: SQLSettings) -> tuple[str, ...]:
    """Return what the store works with and the database lacks, as `IncompleteSchema.missing` names it.

    Other contents, such as a user's own columns, do no harm, unless such a column demands a value.
    """
    inspector, metadata = inspect(connection), _declared(connection, settings)
    missing: list[str] = []
    for table in metadata.sorted_tables:
        if inspector.has_table(table.name, schema=table.schema):
            missing += _missing_in(inspector, table)
        else:
            missing.append(table.fullname)
    return tuple(missing) or _missing_uniqueness(inspector, settings)


def _missing_in(inspector: Inspector, table: Table) -> list[str]:
    there = {column["name"]: column for column in inspector.get_columns(table.name, schema=table.schema)}
    lacking = [f"{table.fullname}.{column.name}" for column in table.columns if column.name not in there]
    demanding = [name for name, column in there.items() if name not in table.columns and _demands_value(column)]
    return lacking + [f"a default of {table.fullname}.{name}" for name in demanding]


def _demands_value(column: ReflectedColumn) -> bool:
    fills_itself = "computed" in column or "identity" in column or column.get("autoincrement") is True
    return not (column["nullable"] or column["default"] is not None or fills_itself)


def _missing_uniqueness(inspector: Inspector, settings: SQLSettings) -> tuple[str, ...]:
    def is_unique(place: tuple[str, tuple[str, ...]]) -> bool:
        table = f"{settings.tables.prefix}{place[0]}"
        indexes = inspector.get_indexes(table, schema=settings.tables.schema)
        return any(index["unique"] and tuple(index["column_names"]) == place[1] for index in indexes)

    missing = []
    if not is_unique(_IDEMPOTENCY):
        missing.append(f"a unique index of {settings.tables.contexts} ({', '.join(_IDEMPOTENCY[1])})")
    answered = f"index of {settings.tables.signals} ({', '.join(_ANSWERED[1])})"
    # Events may repeat a key, and MySQL cannot leave them out of the index.
    if settings.dialect == "mysql" and is_unique(_ANSWERED):
        missing.append(f"a non-unique {answered}: give metadata_of the dialect")
    elif settings.dialect != "mysql" and not is_unique(_ANSWERED):
        missing.append(f"a unique {answered} of answers and approvals")
    return tuple(missing)


def _declared(connection: Connection, settings: SQLSettings) -> MetaData:
    return metadata_of(settings.tables.prefix, settings.tables.schema, dialect=kind_of(connection))
