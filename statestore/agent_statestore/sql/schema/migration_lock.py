"""One migration at a time, also of different processes."""

from hashlib import sha256
from typing import Final

from sqlalchemy.engine import Connection

from agent_statestore.errors import StoreUnavailable
from agent_statestore.sql.settings import SQLSettings

# An arbitrary number: PostgreSQL's advisory locks are shared by everything in one database.
_LOCK_KEY: Final = 0x61676E74
# How long one call waits: shorter than the time after which drivers are often told to give up on an answer.
_WAIT_SECONDS: Final = 5


def take_migration_lock(connection: Connection, settings: SQLSettings) -> None:
    """Wait for the migrations of other processes, however long they take, and then keep others waiting.

    A transaction must be open, and the connection must be closed afterwards: PostgreSQL frees the lock at the end of
    the transaction, MySQL at the end of the connection (for a killed process as soon as its last statement is through),
    and on SQLite the transaction is the lock.
    """
    if settings.dialect == "postgresql":
        # All prefixes of one schema wait for each other, because the first of them makes it.
        tables = settings.tables
        scope = tables.prefix if tables.schema is None else f"{tables.schema}."
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY}, hashtext('{scope}'))")
    elif settings.dialect == "mysql":
        ask = f"SELECT GET_LOCK('{_mysql_name(settings)}', {_WAIT_SECONDS})"
        while (answer := connection.exec_driver_sql(ask).scalar()) != 1:
            if answer is None:
                raise StoreUnavailable(settings.shown_url, "the server gives no lock for the migration")


def _mysql_name(settings: SQLSettings) -> str:
    # Locks belong to the whole server, and their names are limited to 64 characters.
    tables = settings.tables
    place = f"{tables.schema or settings.url.database}.{tables.prefix}"
    return f"celery-agents-{sha256(place.encode()).hexdigest()[:40]}"
