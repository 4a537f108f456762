"""Which schema the database has, and how it gets the newest one."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from sqlalchemy import inspect
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from statestore.errors import SchemaMismatch, UnknownRevision
from statestore.sql.boundary import reraise
from statestore.sql.engine import create_migration_engine
from statestore.sql.fork_gate import sqlite_gate
from statestore.sql.settings import Settings
from statestore.sql.tables import REVISION

if TYPE_CHECKING:
    from alembic.config import Config

# Any number of our own: PostgreSQL's advisory locks are shared by everything in one database.
_LOCK_KEY: Final = 0x61676E74


def current_revision(connection: Connection, settings: Settings) -> str | None:
    """The revision of the database's schema; None without one."""
    table = settings.tables.version
    if not inspect(connection).has_table(table):
        return None
    revision: str | None = connection.exec_driver_sql(f'SELECT version_num FROM "{table}"').scalar()
    return revision


def read_revision(settings: Settings) -> str | None:
    """The revision of the database's schema; None without one."""
    with _migration_engine(settings) as engine, engine.connect() as connection:
        return current_revision(connection, settings)


def check_schema(settings: Settings) -> None:
    """Raises `SchemaMismatch` unless the schema is the one that this version of the package works on."""
    found = read_revision(settings)
    if found != REVISION:
        raise SchemaMismatch(settings.shown_url, found, REVISION)


def ensure_schema(settings: Settings) -> None:
    """Brings a SQLite file to the newest schema, unless it has it. Raises `SchemaMismatch` for a newer one."""
    found = read_revision(settings)
    if found == REVISION:
        return
    if found is not None and not _is_known(settings, found):
        raise SchemaMismatch(settings.shown_url, found, REVISION)
    migrate(settings, "head")


def migrate(settings: Settings, revision: str) -> None:
    """Brings the schema to `revision` ("head", "base" or a name), up or down, in one transaction.

    Of several processes one migrates while the others wait, and then find nothing left to do. Raises
    `UnknownRevision`.
    """
    from alembic import command

    config = _config(settings)
    target = _resolve(config, revision)
    # On SQLite the transaction takes the write lock.
    with _migration_engine(settings) as engine, engine.begin() as connection:
        if not settings.is_sqlite:
            connection.exec_driver_sql(
                f"SELECT pg_advisory_xact_lock({_LOCK_KEY}, hashtext('{settings.tables.prefix}'))"
            )
        found = current_revision(connection, settings)
        if found is not None and found not in _known(config):
            raise SchemaMismatch(settings.shown_url, found, REVISION)
        if found == target:
            return
        config.attributes["connection"] = connection
        if target is None or (found is not None and found in _above(config, target)):
            command.downgrade(config, target or "base")
        else:
            command.upgrade(config, target)


def print_ddl(settings: Settings, revision: str, output: TextIO | None = None) -> None:
    """Writes the SQL that leads from an empty database to `revision`, or from the newest schema down to "base".

    Connects to nothing. `output` None is the standard output. Raises `UnknownRevision`.
    """
    from alembic import command

    config = _config(settings)
    target = _resolve(config, revision)
    buffer = io.StringIO()
    config.attributes["output"] = buffer
    if target is None:
        command.downgrade(config, f"{REVISION}:base", sql=True)
    else:
        command.upgrade(config, target, sql=True)
    (output or sys.stdout).write(buffer.getvalue())


@contextmanager
def _migration_engine(settings: Settings) -> Iterator[Engine]:
    """An engine for one look or migration, inside the gate on SQLite; turns the driver's errors into the store's."""
    with sqlite_gate if settings.is_sqlite else nullcontext():
        engine = create_migration_engine(settings)
        try:
            yield engine
        except SQLAlchemyError as error:
            reraise(error, settings)
        finally:
            engine.dispose()


def _config(settings: Settings) -> "Config":
    from alembic.config import Config

    config = Config()
    # A percent sign in the path would be taken for an interpolation.
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["table_prefix"] = settings.tables.prefix
    config.attributes["dialect"] = settings.url.get_backend_name()
    return config


def _resolve(config: "Config", revision: str) -> str | None:
    """The full name of a revision; None for "base"."""
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


def _is_known(settings: Settings, revision: str) -> bool:
    return revision in _known(_config(settings))
