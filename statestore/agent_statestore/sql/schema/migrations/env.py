"""Alembic's entry. `agent_statestore.sql.schema.schema` runs it, with a connection, or without one to print the DDL."""

from typing import Any

from alembic import context

from agent_statestore.sql.tables import VERSION, metadata_of, table_names

attributes = context.config.attributes
prefix: str = attributes["table_prefix"]
schema: str | None = attributes["schema"]
# The user's own tables in the same database are none of our business.
own = table_names(prefix) - {f"{prefix}vectors"}  # it is no part of a revision
options: dict[str, Any] = {
    "target_metadata": metadata_of(prefix, schema, dialect=attributes["dialect"]),
    "version_table": f"{prefix}{VERSION}",
    "version_table_schema": schema,
    "include_name": lambda name, kind, _parents: kind != "table" or name in own,
}

connection = attributes.get("connection")
if connection is None:
    context.configure(
        dialect_name=attributes["dialect"],
        literal_binds=True,
        output_buffer=attributes["output"],
        # SQLite's is, whatever Alembic says: a script that stops in the middle leaves nothing.
        transactional_ddl=attributes["dialect"] not in ("mysql", "mariadb"),
        **options,
    )
else:
    context.configure(connection=connection, **options)
with context.begin_transaction():
    for statement in attributes.get("before", ()):
        context.execute(statement)
    context.run_migrations()
    for statement in attributes.get("after", ()):
        context.execute(statement)
