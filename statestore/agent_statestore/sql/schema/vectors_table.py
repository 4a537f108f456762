"""The table of vectors on PostgreSQL, which is made only where the extension pgvector is.

It is no part of a revision: it holds copies only, and the extension may come at any time. The statement that makes it
looks for the extension itself, so that it does the same in a migration and in a script.
"""

from typing import Final

from agent_statestore.sql.tables import Tables

# Finds the extension's schema.
EXTENSION: Final = (
    "SELECT quote_ident(n.nspname) FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace "
    "WHERE e.extname = 'vector'"
)


def making_of_table(tables: Tables) -> str:
    """Return the statement that makes the table of vectors if the extension is there, and does nothing if not."""
    name = f"{tables.prefix}vectors"
    columns = (
        "place varchar(700) COLLATE \"C\" NOT NULL, version bigint NOT NULL, embedding ' || extension || '.vector, "
        f"CONSTRAINT {name}_pkey PRIMARY KEY (place), CONSTRAINT {name}_place_fkey "
        f"FOREIGN KEY (place) REFERENCES {tables.documents} (place) ON DELETE CASCADE"
    )
    return (
        "DO $$ DECLARE extension text; BEGIN "
        f"SELECT found.name INTO extension FROM ({EXTENSION}) AS found (name); "
        f"IF extension IS NOT NULL AND to_regclass('{tables.documents}') IS NOT NULL "
        f"AND to_regclass('{tables.vectors}') IS NULL THEN "
        f"EXECUTE 'CREATE TABLE {tables.vectors} ({columns})'; "
        "END IF; END $$"
    )


def dropping_of_table(tables: Tables) -> str:
    """Return the statement that drops the table of vectors if it is there."""
    return f"DROP TABLE IF EXISTS {tables.vectors}"
