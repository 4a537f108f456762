"""The content of a store URL: the driver's part of it, and the store's own options."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from agent_statestore.drivers.masking import masked
from agent_statestore.errors import UnsupportedURL
from agent_statestore.sql.driver_options import check_file_options, check_pymysql_options
from agent_statestore.sql.tables import DEFAULT_PREFIX, Tables

Dialect = Literal["sqlite", "postgresql", "mysql"]

_DRIVERS: Final = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mysql+pymysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "mariadb+pymysql": "mariadb+pymysql",
}
_DIALECTS: Final[dict[str, Dialect]] = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}
_NAME: Final = "[a-z_][a-z0-9_]{0,30}"
_SPELLINGS: Final = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "sqlite": "sqlite",
}


@dataclass(frozen=True, slots=True)
class _Option:
    """An option in the URL's query: its pattern (a regular expression), its default, and how it is read."""

    default: str
    pattern: str
    read: Callable[[str], Any]
    name: str | None = None


def _option(default: str, pattern: str, read: Callable[[str], Any], name: str | None = None) -> Any:
    return field(metadata={"option": _Option(default, pattern, read, name)})


def _threshold(text: str) -> int | Literal["auto"] | None:
    if text == "auto":
        return "auto"
    return None if text == "none" else int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class SQLSettings:
    """A store URL, taken apart: the driver's part of it, and the store's own options.

    The options stand in the URL's query and are taken out before the driver sees it; all others are the driver's.

    * `table_prefix`: the start of all tables' names (`agent_`);
    * `soft_delete`: whether a deleted execution is kept, hidden, until `purge` (`on`) or removed at once (`off`);
    * PostgreSQL and MySQL: `schema`, in which the tables are (else where the connection's user finds them): a schema of
      PostgreSQL, which `migrate` makes, or a database of MySQL, which must exist; `pool_size` (5 connections per
      process), `max_overflow` (10 more under load), `answer_timeout_ms` (30000; a statement that the server does not
      answer in this time counts as a lost connection, except for migrations and transactional steps);
    * PostgreSQL: `prepare_threshold`, after how many uses of a statement a connection prepares it on the server
      (`auto`: five, and never if a pooler stands in between, which may give each transaction another session; `none`:
      never; or a number, for a pooler that knows about prepared statements, or is in session mode);
    * SQLite: `synchronous` (`FULL`: a checkpoint survives a power cut; `NORMAL`: the last ones may be lost then, but
      never to a killed process; `EXTRA`; `OFF`), `journal_mode` (`WAL`; one of `DELETE`, `TRUNCATE`, `PERSIST` for file
      systems without shared memory between processes, such as NFS: there readers and writers wait for each other),
      `busy_timeout_ms` (10000).

    An option of the store that does not depend on the others is one field here, which declares all of it.
    """

    shown_url: str
    url: URL
    tables: Tables
    synchronous: str = _option("FULL", "(?i:OFF|NORMAL|FULL|EXTRA)", str.upper)
    journal_mode: str = _option("WAL", "(?i:WAL|DELETE|TRUNCATE|PERSIST)", str.upper)
    busy_timeout_ms: int = _option("10000", "[0-9]{1,9}", int)
    pool_size: int = _option("5", "[0-9]{1,9}", int)
    max_overflow: int = _option("10", "[0-9]{1,9}", int)
    answer_timeout_ms: int = _option("30000", "[1-9][0-9]{0,8}", int)
    prepare_threshold: int | Literal["auto"] | None = _option("auto", "auto|none|[0-9]{1,9}", _threshold)
    keeps_deleted: bool = _option("on", "on|off", "on".__eq__, "soft_delete")

    @property
    def dialect(self) -> Dialect:
        """The SQL that the database speaks; "mysql" also for MariaDB."""
        return _DIALECTS[self.url.get_backend_name()]

    @property
    def is_sqlite(self) -> bool:
        return self.dialect == "sqlite"


def parse_url(url: str) -> SQLSettings:
    """Return the settings in `url`. Raise `UnsupportedURL`."""
    shown = masked(url)
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UnsupportedURL(shown, "it is not a database URL") from error
    except ValueError:
        # The parser's words are left out: they repeat what may be a piece of a password.
        raise UnsupportedURL(shown, "a host or port is malformed") from None
    if parsed.password is not None and url.partition("://")[2].partition(":")[2].count("@") > 1:
        # The parser ends the password at the first. It would take the rest for the host, which errors show.
        raise UnsupportedURL(shown, "an '@' in a password or an option must be written %40")
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        spelling = _SPELLINGS[parsed.drivername.partition("+")[0]]
        known = ", ".join(sorted(_DRIVERS))
        raise UnsupportedURL(shown, f"write {spelling}://; the driver must be one of {known}")

    def option(name: str, default: str, pattern: str) -> str:
        value = parsed.query.get(name, default)
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise UnsupportedURL(shown, f"{value!r} is no {name}")
        return value

    read: dict[str, Any] = {}
    for one in fields(SQLSettings):
        declared: _Option | None = one.metadata.get("option")
        if declared is not None:
            read[one.name] = declared.read(option(declared.name or one.name, declared.default, declared.pattern))
    tables = Tables(
        option("table_prefix", DEFAULT_PREFIX, _NAME), option("schema", "", _NAME) if "schema" in parsed.query else None
    )
    settings = SQLSettings(
        shown_url=shown,
        url=parsed.set(drivername=driver).difference_update_query(own_options()),
        tables=tables,
        **read,
    )
    if settings.pool_size + settings.max_overflow == 0:
        raise UnsupportedURL(shown, "pool_size and max_overflow are both 0, which leaves no connection")
    _check_place(settings)
    if settings.is_sqlite:
        check_file_options(settings.url, shown, own_options())
    elif settings.dialect == "mysql":
        check_pymysql_options(settings.url, shown, own_options())
    return settings


def own_options() -> set[str]:
    """Return the names of the store's own options."""
    declared = ((one.name, one.metadata.get("option")) for one in fields(SQLSettings))
    return {"table_prefix", "schema"} | {option.name or name for name, option in declared if option is not None}


def _check_place(settings: SQLSettings) -> None:
    url, schema = settings.url, settings.tables.schema
    if settings.is_sqlite:
        if not url.database or ":memory:" in url.database or "mode" in url.query:
            raise UnsupportedURL(settings.shown_url, "SQLite needs a file here; for executions in memory use memory://")
        if schema is not None:
            raise UnsupportedURL(settings.shown_url, "SQLite has no schemas: use another file, or a table_prefix")
    elif settings.dialect == "mysql" and not (url.database or schema):
        raise UnsupportedURL(settings.shown_url, "it needs the name of a database behind the host")
    if schema is not None and _is_reserved(url, schema):
        raise UnsupportedURL(settings.shown_url, f"the schema's name {schema!r} is reserved by the database")


def _is_reserved(url: URL, name: str) -> bool:
    """Return whether a name could only be used in quotes, or not at all: the store's statements quote nothing."""
    quote = url.get_dialect()().identifier_preparer.quote
    return quote(name) != name or name.startswith("pg_")
