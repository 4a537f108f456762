"""The one boundary where a driver's errors become the store's."""

import re
import sqlite3
from typing import Final, NoReturn

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from statestore.errors import InvalidRecord, SchemaMismatch, StoreUnavailable
from statestore.sql.settings import Settings
from statestore.sql.tables import REVISION

# PostgreSQL's codes for an undefined table or column, and what SQLite says.
_MISSING: Final = {"42P01", "42703"}
_MISSING_IN_SQLITE: Final = re.compile(r"no such (table|column)|.* has no column named")
_TOO_LONG_FOR_INDEX: Final = "54000"
_DATA_CLASS: Final = "22"


def reraise(error: BaseException, settings: Settings) -> NoReturn:
    """Raises the store's error for a driver's or SQLAlchemy's one, and any other error as it is."""
    original = error.orig if isinstance(error, DBAPIError) else error
    reason = str(original).strip().partition("\n")[0] or type(original).__name__
    state = sqlstate_of(original)
    url = settings.shown_url
    if state in _MISSING or (isinstance(original, sqlite3.OperationalError) and _MISSING_IN_SQLITE.match(reason)):
        raise SchemaMismatch(url, None, REVISION) from error
    if (state or "").startswith(_DATA_CLASS) or _is_driver_error(original, "DataError"):
        raise InvalidRecord("value", f"the database cannot store it: {reason}") from error
    if state == _TOO_LONG_FOR_INDEX:
        raise InvalidRecord("key", f"too long for an index of the database: {reason}") from error
    if isinstance(error, PoolTimeoutError):
        raise StoreUnavailable(url, "no connection of the pool became free in time") from error
    if isinstance(error, SQLAlchemyError) or _is_driver_error(original, "Error"):
        raise StoreUnavailable(url, reason) from error
    raise error


def sqlstate_of(error: BaseException | None) -> str | None:
    """PostgreSQL's error code, if it is an error of PostgreSQL."""
    return getattr(error, "sqlstate", None)


def _is_driver_error(error: BaseException | None, name: str) -> bool:
    """Whether it is the DB-API's exception `name`; told by name, because psycopg may not be installed."""
    return any(
        kind.__name__ == name and kind.__module__.partition(".")[0] in ("sqlite3", "psycopg")
        for kind in type(error).__mro__
    )
