"""What a store URL says: the driver's part of it, and the store's own options."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from agent_statestore.errors import UnsupportedURL
from agent_statestore.masking import masked
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
_SYNCHRONOUS: Final = ("OFF", "NORMAL", "FULL", "EXTRA")
_NAME: Final = "[a-z_][a-z0-9_]{0,30}"


@dataclass(frozen=True, slots=True)
class SQLSettings:
    """A store URL, taken apart. `keeps_deleted` is the store's: see `StorePrimitives`."""

    shown_url: str
    url: URL
    tables: Tables
    synchronous: str
    busy_timeout_ms: int
    pool_size: int
    max_overflow: int
    answer_timeout_ms: int
    keeps_deleted: bool = True

    @property
    def dialect(self) -> Dialect:
        """Whose SQL the database speaks; "mysql" also for MariaDB."""
        return _DIALECTS[self.url.get_backend_name()]

    @property
    def is_sqlite(self) -> bool:
        return self.dialect == "sqlite"


def parse_url(url: str) -> SQLSettings:
    """The settings in `url`; see `open_sql`. Raises `UnsupportedURL`."""
    shown = masked(url)
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UnsupportedURL(shown, "it is not a database URL") from error
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise UnsupportedURL(shown, f"the driver must be one of {', '.join(sorted(_DRIVERS))}")

    def option(name: str, default: str, pattern: str) -> str:
        value = parsed.query.get(name, default)
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise UnsupportedURL(shown, f"{value!r} is no {name}")
        return value

    synchronous = option("synchronous", "FULL", "(?i:" + "|".join(_SYNCHRONOUS) + ")").upper()
    keeps_deleted = option("soft_delete", "on", "on|off") == "on"
    tables = Tables(
        option("table_prefix", DEFAULT_PREFIX, _NAME), option("schema", "", _NAME) if "schema" in parsed.query else None
    )
    numbers = {
        name: int(option(name, default, "[0-9]{1,9}"))
        for name, default in (("busy_timeout_ms", "10000"), ("pool_size", "5"), ("max_overflow", "10"))
    }
    numbers["answer_timeout_ms"] = int(option("answer_timeout_ms", "30000", "[1-9][0-9]{0,8}"))
    if numbers["pool_size"] + numbers["max_overflow"] == 0:
        raise UnsupportedURL(shown, "pool_size and max_overflow are both 0, which leaves no connection")
    own = ("synchronous", "soft_delete", "table_prefix", "schema", *numbers)
    settings = SQLSettings(
        shown_url=shown,
        url=parsed.set(drivername=driver).difference_update_query(own),
        tables=tables,
        synchronous=synchronous,
        keeps_deleted=keeps_deleted,
        **numbers,
    )
    _check_place(settings)
    return settings


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
    """Whether a name could only be used in quotes, or not at all: the store's statements quote nothing."""
    quote = url.get_dialect()().identifier_preparer.quote
    return quote(name) != name or name.startswith("pg_")
