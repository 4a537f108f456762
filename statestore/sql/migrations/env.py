"""Alembic's entry. `statestore.sql.schema` runs it, with a connection, or without one to print the DDL."""

from typing import Any

from alembic import context

from statestore.sql.tables import Tables, metadata_of

attributes = context.config.attributes
prefix: str = attributes["table_prefix"]
options: dict[str, Any] = {
    "target_metadata": metadata_of(prefix),
    "version_table": Tables(prefix).version,
    # The user's own tables in the same database are none of our business.
    "include_name": lambda name, kind, _parents: kind != "table" or (name or "").startswith(prefix),
}

connection = attributes.get("connection")
if connection is None:
    context.configure(
        dialect_name=attributes["dialect"], literal_binds=True, output_buffer=attributes["output"], **options
    )
else:
    context.configure(connection=connection, **options)
with context.begin_transaction():
    context.run_migrations()
