"""The opener of `sqlite:///`, `postgresql://`, `mysql://` and `mariadb://` URLs."""

from agent_statestore.clock import Clock
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from agent_statestore.sql.store import SQLStore


def open_sql(url: str, *, max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES, clock: Clock | None = None) -> SQLStore:
    """Return the store at the URL.

    The URL is `sqlite:///file.db`, `postgresql[+psycopg]://`, `mysql[+pymysql]://` or `mariadb[+pymysql]://`. For the
    options in the URL's query see `agent_statestore.sql.settings.SQLSettings`.

    Raise `UnsupportedURL` for a database in memory or a bad option, and `ModuleNotFoundError` without the driver, which
    `open_store` turns into `MissingDriver`.
    """
    return SQLStore(url, max_value_bytes=max_value_bytes, clock=clock)
