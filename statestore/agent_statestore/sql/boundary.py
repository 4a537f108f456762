"""The one boundary where a driver's errors become the store's."""

import re
import sqlite3
from typing import Final, NoReturn

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from agent_statestore.errors import InvalidRecord, SchemaMismatch, StoreUnavailable
from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.sqlite.lock_holder import busy_reason
from agent_statestore.sql.tables import REVISION

# A table or column that does not exist: the codes of PostgreSQL and MySQL, and SQLite's words.
_MISSING: Final = {"42P01", "42703", "42S02", "42S22"}
_MISSING_IN_MYSQL: Final = {1146, 1054}
_MISSING_IN_SQLITE: Final = re.compile(r"no such (table|column)|.* has no column named")
_TOO_LONG_FOR_INDEX: Final = "54000"
_DATA_CLASS: Final = "22"
# Wrong for the character set; not JSON; breaks a CHECK of the user's (MySQL, MariaDB).
_DATA_IN_MYSQL: Final = {1300, 3140, 3819, 4025}
_PACKET_TOO_LARGE: Final = 1153
# A constraint that the user has put on our tables, or on other tables in a step's transaction: PostgreSQL's class and
# MySQL's codes.
_CONSTRAINT_CLASS: Final = "23"
_CONSTRAINT_IN_MYSQL: Final = {1048, 1169, 1216, 1217, 1364, 1451, 1452}
_ABORTED: Final = "25P02"
# The server takes no writes: it follows another one, or was fenced off before a fail-over. Nothing was done.
READ_ONLY: Final = "25006"
# It shuts down, has crashed, starts, or has lost the database.
_GOING_AWAY: Final = {"57P01", "57P02", "57P03", "57P04"}
# The same of MySQL and MariaDB: read-only in several ways (the third is a group's), shutting down, offline.
_WRONG_IN_MYSQL: Final = {1290, 1792, 1836, 3100, 1053, 3032}

# The second of PostgreSQL and of MySQL are those of callers, in whose transactions the store may write.
_DRIVERS: Final = ("sqlite3", "psycopg", "psycopg2", "pymysql", "MySQLdb")


def reraise(error: BaseException, settings: SQLSettings) -> NoReturn:
    """Raise the store's error for an error of a driver or of SQLAlchemy, and any other error as it is."""
    original = error.orig if isinstance(error, DBAPIError) else error
    state, code, reason = sqlstate_of(original), mysql_code_of(original), _reason_of(original)
    url = settings.shown_url
    if (
        state in _MISSING
        or code in _MISSING_IN_MYSQL
        or (isinstance(original, sqlite3.OperationalError) and _MISSING_IN_SQLITE.match(reason))
    ):
        raise SchemaMismatch(url, None, REVISION) from error
    if isinstance(original, UnicodeEncodeError):
        raise InvalidRecord("value", f"the database cannot store it: {reason}") from error
    if (state or "").startswith(_DATA_CLASS) or code in _DATA_IN_MYSQL or _is_driver_error(original, "DataError"):
        raise InvalidRecord("value", f"the database cannot store it: {reason}") from error
    if (
        (state or "").startswith(_CONSTRAINT_CLASS)
        or code in _CONSTRAINT_IN_MYSQL
        or isinstance(original, sqlite3.IntegrityError)
    ):
        raise InvalidRecord("row", f"a constraint of the database refuses it: {reason}") from error
    if state == _ABORTED:
        raise InvalidRecord(
            "transaction", "an earlier statement in it failed: PostgreSQL takes no further ones, but after a savepoint"
        ) from error
    if state == _TOO_LONG_FOR_INDEX:
        raise InvalidRecord("key", f"too long for an index of the database: {reason}") from error
    if code == _PACKET_TOO_LARGE:
        raise InvalidRecord("value", f"larger than the server's max_allowed_packet: {reason}") from error
    if isinstance(error, PoolTimeoutError):
        raise StoreUnavailable(url, "no connection of the pool became free in time") from error
    busy = busy_reason(original, settings.url.database) if settings.is_sqlite else None
    if busy is not None:
        raise StoreUnavailable(url, busy) from error
    if isinstance(error, SQLAlchemyError) or is_driver_error(original):
        raise StoreUnavailable(url, reason) from error
    raise error


def sqlstate_of(error: BaseException | None) -> str | None:
    """Return the SQL standard's code of an error, if the driver tells it."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def mysql_code_of(error: BaseException | None) -> int | None:
    """Return the code of an error if it is one of MySQL's or MariaDB's."""
    if error is None or not _is_driver_error(error, "MySQLError") or not error.args:
        return None
    code = error.args[0]
    return code if isinstance(code, int) else None


def is_of_wrong_server(error: BaseException | None) -> bool:
    """Return whether an error says that this server is the wrong one, or about to be.

    After a fail-over the next connection may lead to the right one, while the sessions on the old server stay open.
    """
    original = error.orig if isinstance(error, DBAPIError) else error
    state = sqlstate_of(original)
    return state == READ_ONLY or state in _GOING_AWAY or mysql_code_of(original) in _WRONG_IN_MYSQL


def _reason_of(error: BaseException | None) -> str:
    said = str(error)
    if error is not None and mysql_code_of(error) is not None:
        # An error of pymysql consists of a code and a sentence.
        code, *sentences = error.args
        said = f"{'; '.join(str(sentence) for sentence in sentences)} ({code})"
    return said.strip().partition("\n")[0] or type(error).__name__


def is_driver_error(error: BaseException | None) -> bool:
    """Return whether the error comes from a driver."""
    return _is_driver_error(error, "Error")


def _is_driver_error(error: BaseException | None, name: str) -> bool:
    """Return whether it is the DB-API's exception `name`; told by name, because a driver may not be installed."""
    return any(kind.__name__ == name and kind.__module__.partition(".")[0] in _DRIVERS for kind in type(error).__mro__)
