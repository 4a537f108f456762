"""The opener of `sqlite:///`, `postgresql://`, `mysql://` and `mariadb://` URLs."""

from agent_statestore.clock import Clock
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from agent_statestore.sql.store import SQLStore


def open_sql(url: str, *, max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES, clock: Clock | None = None) -> SQLStore:
    """The backend of `sqlite:///file.db`, `postgresql[+psycopg]://`, `mysql[+pymysql]://` and `mariadb[+pymysql]://`.

    Options in the URL's query, taken out before the driver sees it; all others are the driver's:

    * `table_prefix`: what the names of all tables start with (`agent_`);
    * `soft_delete`: whether a deleted execution is kept, hidden, until `purge` (`on`) or removed at once (`off`);
    * PostgreSQL and MySQL: `schema`, in which the tables are (else where the connection's user finds them): a schema
      of PostgreSQL, which `migrate` makes, or a database of MySQL, which has to be there; `pool_size` (5 connections
      per process), `max_overflow` (10 more under load), `answer_timeout_ms` (30000; a statement that the server does
      not answer in this time counts as a lost connection, but for migrations and transactional steps);
    * SQLite: `synchronous` (`FULL`: a checkpoint survives a power cut; `NORMAL`: the last ones may be lost then, but
      never to a killed process; `EXTRA`; `OFF`), `busy_timeout_ms` (10000).

    Raises `UnsupportedURL` for a database in memory or a bad option, and `ModuleNotFoundError` without the driver,
    which `open_store` turns into `MissingDriver`.
    """
    return SQLStore(url, max_value_bytes=max_value_bytes, clock=clock)
