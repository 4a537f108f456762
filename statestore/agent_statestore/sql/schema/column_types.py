"""The types of the store's columns in each kind of database; for the tables see `agent_statestore.sql.tables`."""

from typing import Final

from sqlalchemy import LargeBinary, String, Text
from sqlalchemy.dialects.mysql import LONGBLOB, LONGTEXT, VARCHAR
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

# SQLAlchemy's names of MySQL and MariaDB; a URL of either may lead to a server of the other.
MYSQL: Final = ("mysql", "mariadb")

# Texts are compared byte by byte, as Python does: upper and lower case, accents and trailing spaces all count.
COLLATIONS: Final = {"mysql": "utf8mb4_0900_bin", "mariadb": "utf8mb4_nopad_bin"}


def execution_id_type(dialect: str | None = None) -> TypeEngine[str]:
    """Return the type of an execution's id, also for a user's column that refers to one.

    `find` orders by it, and a cursor compares with it, as Python does. For `dialect` see
    `agent_statestore.sql.tables.metadata_of`.
    """
    return ordered_type(255, dialect)


def ordered_type(length: int, dialect: str | None) -> TypeEngine[str]:
    """Return the type of a text that is compared and ordered by code point."""
    ordered: TypeEngine[str] = String(length).with_variant(String(length, collation="C"), "postgresql")
    for name, collation in _collations(dialect).items():
        ordered = ordered.with_variant(VARCHAR(length, charset="utf8mb4", collation=collation), name)
    return ordered


def text_type() -> TypeEngine[str]:
    """Return the type of a text of any length."""
    return Text().with_variant(LONGTEXT(), *MYSQL)


def key_type() -> TypeEngine[str]:
    """Return the type of a text that `require_name` limits, so that MySQL can index it."""
    return Text().with_variant(VARCHAR(255), *MYSQL)


def json_type() -> TypeEngine[str]:
    """Return the type of a JSON object that statements look into."""
    jsonb = JSONB()
    # Otherwise Alembic would write a type that it does not import into the migrations of a user on another database.
    # Statements on the level of the driver, as ours are, have no use for it.
    jsonb.astext_type = None  # type: ignore[assignment]
    return Text().with_variant(jsonb, "postgresql").with_variant(LONGTEXT(), *MYSQL)


def bytes_type() -> TypeEngine[bytes]:
    """Return the type of bytes of any length."""
    return LargeBinary().with_variant(LONGBLOB(), *MYSQL)


def _collations(dialect: str | None) -> dict[str, str]:
    return {name: COLLATIONS.get(dialect or name, collation) for name, collation in COLLATIONS.items()}


def table_options(dialect: str | None) -> dict[str, str]:
    """Return the options of a table; for `dialect` see `agent_statestore.sql.tables.metadata_of`."""
    options: dict[str, str] = {}
    for name, collation in _collations(dialect).items():
        options |= {
            f"{name}_engine": "InnoDB",
            f"{name}_charset": "utf8mb4",
            f"{name}_collate": collation,
            f"{name}_row_format": "DYNAMIC",
        }
    return options
