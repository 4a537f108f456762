"""Executions in SQLite (one file, no server) or PostgreSQL.

Reading order: `store` (which primitive goes where), `checks` (why a write is refused), then `sqlite` (one short
transaction per primitive) or `postgresql` and `postgresql_writing` (one statement per primitive). `tables` is the
schema, `migrations` its history.
"""

from statestore.sql.store import SQLStore

__all__ = ["SQLStore"]
