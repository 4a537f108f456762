"""What the tests of the SQL schema share: databases, and everything that a database says of its tables."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, inspect

from agent_statestore.sql import metadata_of, table_names
from agent_statestore.sql.schema import schema
from agent_statestore.sql.schema.structure import kind_of
from agent_statestore.sql.settings import parse_url
from tests.conftest import fresh_database

DATABASES = ("sqlite", "postgresql", pytest.param("postgresql18", marks=pytest.mark.full), "mariadb")

_CONTEXT = {
    "execution_id": "one",
    "format": 1,
    "agent_id": "agent",
    "session_id": "session",
    "metadata": "{}",
    "input": "null",
    "state": "idle",
    "version": 1,
    "token": 1,
    "crashes": 0,
    "rings": 0,
    "cancel_requested": 0,
    "lease_until_us": 0,
    "not_before_us": 0,
    "step_count": 1,
    "created_us": 1000,
    "updated_us": 2000,
    "intents": "{}",
    "pending": "{}",
    "note_count": 0,
    "signal_count": 0,
}


def insert(table: str, **values: object) -> str:
    written = ", ".join("NULL" if value is None else repr(value) for value in values.values())
    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({written})"


def context(execution_id: str, **values: object) -> str:
    return insert("agent_contexts", **_CONTEXT | {"execution_id": execution_id} | values)


@contextmanager
def empty_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The URL of an empty database of one of `DATABASES`."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'store.db'}"
    elif kind == "postgresql18":
        with fresh_database(request.getfixturevalue("postgresql18_url")) as url:
            yield url
    else:
        yield str(request.getfixturevalue(f"{kind}_database_url"))


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection of SQLAlchemy's, to look and to write with; it commits in the end."""
    engine = create_engine(parse_url(url).url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def migrate(url: str, revision: str = "head") -> None:
    schema.migrate(parse_url(url), revision)


def create_declared(url: str) -> None:
    """The newest schema, made without migrations."""
    with connected(url) as connection:
        tables = parse_url(url).tables
        metadata_of(tables.prefix, tables.schema, dialect=kind_of(connection)).create_all(connection)


def run(url: str, *statements: str) -> None:
    with connected(url) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with connected(url) as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def tables(url: str) -> set[str]:
    """The names of all tables in the URL's schema."""
    with connected(url) as connection:
        return set(inspect(connection).get_table_names(schema=parse_url(url).tables.schema))


def count_of_tables(url: str) -> int:
    """How many tables the newest schema has, without those of its migrations."""
    return 12 if parse_url(url).dialect == "mysql" else 11


def our_tables(url: str) -> set[str]:
    """The tables of the store itself, without those of its migrations."""
    prefix = parse_url(url).tables.prefix
    own = {name for name in table_names(prefix) if not name.startswith(f"{prefix}alembic_")}
    return tables(url) & own


def described(url: str) -> dict[str, object]:
    """The store's tables as the database tells of them: columns in order with type, collation, null and default, keys,
    references, and indexes with their conditions."""
    look = {"sqlite": _of_sqlite, "postgresql": _of_postgresql, "mysql": _of_mysql}[parse_url(url).dialect]
    names = sorted(our_tables(url))
    with connected(url) as connection:
        return {name: look(connection, name, parse_url(url).tables.schema) for name in names}


def _of_sqlite(connection: Connection, table: str, schema: str | None) -> object:
    assert schema is None

    def all_of(statement: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in connection.exec_driver_sql(statement)]

    return {
        "columns": all_of(f"PRAGMA table_info({table})"),
        "references": all_of(f"PRAGMA foreign_key_list({table})"),
        "indexes": sorted(
            all_of(
                f"SELECT name, replace(sql, '\"', '') FROM sqlite_master WHERE type = 'index' AND tbl_name = '{table}'"
            ),
            key=str,
        ),
    }


def _of_postgresql(connection: Connection, table: str, schema: str | None) -> object:
    def all_of(statement: str) -> list[tuple[object, ...]]:
        found = connection.exec_driver_sql(statement, {"table": f"{schema or 'public'}.{table}"})
        return [tuple(row) for row in found]

    return {
        "columns": all_of(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull, collname, pg_get_expr(adbin, adrelid) "
            "FROM pg_attribute LEFT JOIN pg_collation c ON c.oid = attcollation "
            "LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum "
            "WHERE attrelid = CAST(%(table)s AS regclass) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        ),
        "constraints": all_of(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conrelid = CAST(%(table)s AS regclass) ORDER BY conname"
        ),
        "indexes": all_of(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = CAST(%(table)s AS regclass) ORDER BY 1"
        ),
        "options": all_of("SELECT reloptions FROM pg_class WHERE oid = CAST(%(table)s AS regclass)"),
    }


def _of_mysql(connection: Connection, table: str, schema: str | None) -> object:
    place = table if schema is None else f"{schema}.{table}"
    ((_, text),) = connection.exec_driver_sql(f"SHOW CREATE TABLE {place}")
    head, *lines, tail = str(text).splitlines()
    columns = [line.rstrip(",") for line in lines if re.match(r"\s*`", line)]
    # Indexes come in the order in which they were made.
    return head, columns, sorted(line.rstrip(",") for line in lines if not re.match(r"\s*`", line)), tail
