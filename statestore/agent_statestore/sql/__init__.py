"""Executions in SQLite (one file, no server), PostgreSQL, MariaDB or MySQL.

Reading order: `store` (which primitive goes where), `checks` (why a write is refused), then `postgresql` and
`postgresql_writing` (one statement per primitive), or `locked` (one short transaction per primitive) with `sqlite` and
`mysql`, which say in what the two differ. `tables` is the schema, `migrations` its history.
"""

from agent_statestore.sql.schema.structure import IncompleteSchema
from agent_statestore.sql.store import SQLStore
from agent_statestore.sql.tables import execution_id_type, metadata_of, table_names

__all__ = ["IncompleteSchema", "SQLStore", "execution_id_type", "metadata_of", "table_names"]
