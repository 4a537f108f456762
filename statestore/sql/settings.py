"""What a store URL says: the driver's part of it, and the store's own options."""

import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from statestore.errors import UnsupportedURL
from statestore.opening import masked
from statestore.sql.tables import DEFAULT_PREFIX, Tables

_DRIVERS: Final = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_SYNCHRONOUS: Final = ("OFF", "NORMAL", "FULL", "EXTRA")


@dataclass(frozen=True, slots=True)
class Settings:
    """A store URL, taken apart."""

    shown_url: str
    url: URL
    tables: Tables
    synchronous: str
    busy_timeout_ms: int
    pool_size: int
    max_overflow: int

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"


def parse_url(url: str) -> Settings:
    """The settings in `url`; see `open_sql`. Raises `UnsupportedURL`."""
    shown = masked(url)
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UnsupportedURL(shown, "it is not a database URL") from error
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise UnsupportedURL(shown, f"the driver must be one of {', '.join(sorted(_DRIVERS))}")
    if driver.startswith("sqlite") and (not parsed.database or ":memory:" in parsed.database or "mode" in parsed.query):
        raise UnsupportedURL(shown, "SQLite needs a file here; for executions in memory use memory://")

    def option(name: str, default: str, pattern: str) -> str:
        value = parsed.query.get(name, default)
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise UnsupportedURL(shown, f"{value!r} is no {name}")
        return value

    synchronous = option("synchronous", "FULL", "(?i:" + "|".join(_SYNCHRONOUS) + ")").upper()
    prefix = option("table_prefix", DEFAULT_PREFIX, "[a-z_][a-z0-9_]{0,30}")
    numbers = {
        name: int(option(name, default, "[0-9]{1,9}"))
        for name, default in (("busy_timeout_ms", "10000"), ("pool_size", "5"), ("max_overflow", "10"))
    }
    own = ("synchronous", "table_prefix", *numbers)
    return Settings(
        shown_url=shown,
        url=parsed.set(drivername=driver).difference_update_query(own),
        tables=Tables(prefix),
        synchronous=synchronous,
        **numbers,
    )
