"""Executions in SQLite (one file, no server), PostgreSQL, MariaDB or MySQL.

Reading order: `store` (which primitive goes where), then `locking` (SQLite, MariaDB, MySQL: one short transaction per
primitive, in which `agent_statestore.rules` decide) or `postgresql` (one statement per primitive). `sqlite` and `mysql`
hold the differences between those two. `tables` is the schema, `schema` its history.
"""

from agent_statestore.sql.schema.column_types import execution_id_type
from agent_statestore.sql.schema.structure import IncompleteSchema
from agent_statestore.sql.store import SQLStore
from agent_statestore.sql.tables import metadata_of, table_names

__all__ = ["IncompleteSchema", "SQLStore", "execution_id_type", "metadata_of", "table_names"]
