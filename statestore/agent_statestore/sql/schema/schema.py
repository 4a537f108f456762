"""The schema that the database has, and how it gets the newest one."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from sqlalchemy import inspect
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from agent_statestore.errors import SchemaMismatch, UnknownRevision
from agent_statestore.sql.boundary import reraise
from agent_statestore.sql.engine import create_migration_engine
from agent_statestore.sql.schema.migration_lock import take_migration_lock
from agent_statestore.sql.schema.quiet_alembic import quiet_alembic
from agent_statestore.sql.schema.structure import IncompleteSchema, has_any_table, kind_of, missing_parts
from agent_statestore.sql.schema.vectors_table import dropping_of_table, making_of_table
from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.sqlite.fork_gate import sqlite_gate
from agent_statestore.sql.tables import REVISION, UNFINISHED, VERSION

if TYPE_CHECKING:
    from alembic.config import Config

# Stands in the place of a revision: a migration was interrupted, or is running. Only MySQL and MariaDB show such a
# state.
IN_BETWEEN: Final = "unfinished"


def current_revision(connection: Connection, settings: SQLSettings) -> str | None:
    """Return the schema's revision; None without one, and `IN_BETWEEN` while a change of it is unfinished.

    Tables that other migrations made, and that have everything which the store uses, count as the newest. Raise
    `IncompleteSchema` if they do not have it.
    """
    if _is_unfinished(connection, settings):
        return IN_BETWEEN
    if _has_table(connection, settings, VERSION):
        return _written_revision(connection, settings)
    if not has_any_table(connection, settings):
        return None
    missing = missing_parts(connection, settings)
    if missing:
        raise IncompleteSchema(settings.shown_url, missing)
    return REVISION


def read_revision(settings: SQLSettings) -> str | None:
    """Return the revision of the database's schema; see `current_revision`."""
    # Without a lock on SQLite: a look must not wait for a transaction of the caller's.
    with _migration_engine(settings, writes=False) as engine, engine.connect() as connection:
        return current_revision(connection, settings)


def check_schema(settings: SQLSettings) -> None:
    """Raise `SchemaMismatch` unless the schema is the one that this version of the package works on."""
    found = read_revision(settings)
    if found != REVISION:
        raise SchemaMismatch(settings.shown_url, found, REVISION)


def ensure_schema(settings: SQLSettings) -> None:
    """Bring a SQLite file to the newest schema, unless it has it. Raise `SchemaMismatch` for a newer one."""
    if read_revision(settings) != REVISION:
        migrate(settings, "head")


def migrate(settings: SQLSettings, revision: str) -> None:
    """Bring the schema to `revision` ("head", "base" or a name), up or down.

    PostgreSQL gets a table of vectors besides, if it has the extension pgvector by now and the tables of documents are
    there; a call that finds the schema at `revision` makes it, too.

    One of several processes migrates while the others wait, and then find nothing left to do. PostgreSQL and SQLite do
    it in one transaction. MySQL and MariaDB cannot: there the next call mends what an interrupted one left behind. On
    PostgreSQL a schema that does not exist is made.

    Raise `UnknownRevision`, and `SchemaMismatch` for a schema that only a newer version of this package knows.
    """
    with quiet_alembic():
        config = _config(settings)
        target = _resolve(config, revision)
        # On SQLite the transaction takes the write lock.
        with _migration_engine(settings) as engine, engine.begin() as connection:
            take_migration_lock(connection, settings)
            found = current_revision(connection, settings)
            has_version = _has_table(connection, settings, VERSION)
            written = _written_revision(connection, settings) if has_version else None
            if written is not None and written not in _known(config):
                raise SchemaMismatch(settings.shown_url, written, REVISION)
            # An empty table of versions may be left where there are no other tables.
            if found == target and not (target is None and has_version):
                if has_version:
                    _make_vectors(connection, settings)
                return
            if found is not None and found != IN_BETWEEN and not has_version:
                raise UnknownRevision(revision, "its tables are kept by other migrations than this package's")
            config.attributes |= {"connection": connection, "dialect": kind_of(connection)}
            with _marked_unfinished(connection, settings):
                if found == IN_BETWEEN:
                    _mend(config, target)
                else:
                    _make_schema(connection, settings)
                    if settings.dialect == "postgresql":
                        connection.exec_driver_sql(dropping_of_table(settings.tables))
                    _move(config, found, target)
                    _make_vectors(connection, settings)
                if target is None:
                    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {settings.tables.version}")


def leads_down(settings: SQLSettings, revision: str) -> bool:
    """Return whether a migration to `revision` would go below the present one. Raise `UnknownRevision`."""
    config = _config(settings)
    target, found = _resolve(config, revision), read_revision(settings)
    return found is not None and (target is None or found in _above(config, target))


def print_ddl(settings: SQLSettings, revision: str, output: TextIO | None = None) -> None:
    """Write the SQL that leads from an empty database to `revision`, or from the newest schema down to "base".

    "FROM:TO" leads from one revision to another, up or down, with the stored data. Connect to nothing, and rely on the
    database being at the revision from which it starts. `output` None is the standard output. Raise `UnknownRevision`,
    also for a way from a revision to itself.
    """
    buffer = io.StringIO()
    with quiet_alembic():
        from alembic import command

        config = _config(settings)
        first, colon, last = revision.partition(":")
        if colon:
            start, target = _resolve(config, first), _resolve(config, last)
            if start == target:
                raise UnknownRevision(revision, "it leads nowhere")
        else:
            target = _resolve(config, revision)
            start = REVISION if target is None else None
        config.attributes["output"] = buffer
        tables = settings.tables
        way = f"{start or 'base'}:{target or 'base'}"
        if target is None or (start is not None and start in _above(config, target)):
            if target is None:
                config.attributes["after"] = (f"DROP TABLE {tables.version}",)
            if settings.dialect == "postgresql":
                config.attributes["before"] = (dropping_of_table(tables),)
            if settings.is_sqlite:
                # Without it the parts of a removed execution stay. Inside a transaction it has no effect.
                buffer.write("PRAGMA foreign_keys = ON;\n\n")
            command.downgrade(config, way, sql=True)
        else:
            if start is None and settings.dialect == "postgresql" and tables.schema is not None:
                config.attributes["before"] = (f"CREATE SCHEMA IF NOT EXISTS {tables.schema}",)
            if settings.dialect == "postgresql" and target == REVISION:
                config.attributes["after"] = (making_of_table(tables),)
            command.upgrade(config, way, sql=True)
    (output or sys.stdout).write(buffer.getvalue())


@contextmanager
def _migration_engine(settings: SQLSettings, *, writes: bool = True) -> Iterator[Engine]:
    """Give an engine for one look or migration, inside the gate on SQLite.

    The driver's errors become the store's.
    """
    with sqlite_gate if settings.is_sqlite else nullcontext():
        engine = create_migration_engine(settings, writes=writes)
        try:
            yield engine
        except SQLAlchemyError as error:
            reraise(error, settings)
        finally:
            engine.dispose()


def _has_table(connection: Connection, settings: SQLSettings, name: str) -> bool:
    tables = settings.tables
    return inspect(connection).has_table(f"{tables.prefix}{name}", schema=tables.schema)


def _is_unfinished(connection: Connection, settings: SQLSettings) -> bool:
    return settings.dialect == "mysql" and _has_table(connection, settings, UNFINISHED)


def _written_revision(connection: Connection, settings: SQLSettings) -> str | None:
    revision: str | None = connection.exec_driver_sql(f"SELECT version_num FROM {settings.tables.version}").scalar()
    return revision


def _make_schema(connection: Connection, settings: SQLSettings) -> None:
    schema = settings.tables.schema
    # IF NOT EXISTS would ask for the right to make schemas even where it has nothing to do.
    if settings.dialect == "postgresql" and schema is not None and not inspect(connection).has_schema(schema):
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")


def _make_vectors(connection: Connection, settings: SQLSettings) -> None:
    if settings.dialect == "postgresql":
        connection.exec_driver_sql(making_of_table(settings.tables))


@contextmanager
def _marked_unfinished(connection: Connection, settings: SQLSettings) -> Iterator[None]:
    """Leave a mark in a database that cannot undo a migration which does not come to its end."""
    if settings.dialect != "mysql":
        yield
        return
    connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {settings.tables.unfinished} (since TIMESTAMP)")
    yield
    connection.exec_driver_sql(f"DROP TABLE {settings.tables.unfinished}")


def _move(config: "Config", found: str | None, target: str | None) -> None:
    from alembic import command

    if target is None or (found is not None and found in _above(config, target)):
        command.downgrade(config, target or "base")
    else:
        command.upgrade(config, target)


def _mend(config: "Config", target: str | None) -> None:
    """Lead to `target` from anywhere between two revisions: each change is made only if it is not there."""
    from alembic import command

    command.stamp(config, REVISION)
    if target != REVISION:
        command.downgrade(config, target or "base")
    command.stamp(config, "base")
    if target is not None:
        command.upgrade(config, target)


def _config(settings: SQLSettings) -> "Config":
    from alembic.config import Config

    config = Config()
    # A percent sign in the path would be taken for an interpolation.
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes |= {
        "table_prefix": settings.tables.prefix,
        "schema": settings.tables.schema,
        "dialect": settings.url.get_backend_name(),
        "shown_url": settings.shown_url,
    }
    return config


def _resolve(config: "Config", revision: str) -> str | None:
    """Return the full name of a revision; None for "base"."""
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    if not revision:
        raise UnknownRevision(revision, "it needs a name")
    try:
        script: Any = ScriptDirectory.from_config(config).get_revision(revision)
    except CommandError as error:
        raise UnknownRevision(revision, str(error)) from error
    if script is None and revision != "base":
        raise UnknownRevision(revision, "there is none of this name")
    return None if script is None else script.revision


def _known(config: "Config") -> tuple[str, ...]:
    from alembic.script import ScriptDirectory

    return tuple(script.revision for script in ScriptDirectory.from_config(config).walk_revisions())


def _above(config: "Config", target: str) -> tuple[str, ...]:
    names = _known(config)  # newest first
    return names[: names.index(target)]
