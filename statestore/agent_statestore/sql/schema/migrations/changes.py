"""The language of the migrations: types, and changes of the schema that may be repeated.

PostgreSQL and SQLite undo a migration that does not come to its end. MySQL and MariaDB commit every statement of the
DDL by itself, so that a process killed in the middle leaves some of them behind. There, and only there, a change that
is found done already is passed over; each single statement is atomic (MySQL 8, MariaDB 10.6).

A released migration is never rewritten, so nothing here may change what an old one does.
"""

from typing import Any, Final

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.mysql import LONGBLOB, LONGTEXT, VARCHAR
from sqlalchemy.dialects.postgresql import JSONB

from agent_statestore.sql.schema.structure import IncompleteSchema

_MYSQL: Final = ("mysql", "mariadb")
_COLLATIONS: Final = {"mysql": "utf8mb4_0900_bin", "mariadb": "utf8mb4_nopad_bin"}

Type = sa.types.TypeEngine[str]


def text_type() -> Type:
    return sa.Text().with_variant(LONGTEXT(), *_MYSQL)


def key_type() -> Type:
    return sa.Text().with_variant(VARCHAR(255), *_MYSQL)


def json_type() -> Type:
    return sa.Text().with_variant(JSONB(), "postgresql").with_variant(LONGTEXT(), *_MYSQL)


def bytes_type() -> sa.types.TypeEngine[bytes]:
    return sa.LargeBinary().with_variant(LONGBLOB(), *_MYSQL)


class Changes:
    """The changes of one migration, to the tables of the prefix and schema that are being migrated."""

    def __init__(self) -> None:
        attributes = context.config.attributes
        self._prefix: str = attributes["table_prefix"]
        self._schema: str | None = attributes["schema"]
        self._dialect: str = attributes["dialect"]
        self._url: str = attributes["shown_url"]
        self._may_be_done = self.is_mysql and not context.is_offline_mode()

    @property
    def is_mysql(self) -> bool:
        """True also for MariaDB."""
        return self._dialect in _MYSQL

    def id_type(self) -> Type:
        """Return the type of an execution's id."""
        return self.ordered_type(255)

    def ordered_type(self, length: int) -> Type:
        """Return the type of a text that is compared and ordered by code point."""
        ordered: Type = sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
        if self.is_mysql:
            return ordered.with_variant(VARCHAR(length, charset="utf8mb4", collation=self._collation), *_MYSQL)
        return ordered

    def named(self, table: str) -> str:
        """Return the table's name as statements use it."""
        return f"{self._prefix}{table}" if self._schema is None else f"{self._schema}.{self._prefix}{table}"

    def create_table(self, table: str, *columns: sa.Column[Any], key: tuple[str, ...], **options: Any) -> None:
        """Make a table with the primary key `key`; `options` are those of dialects."""
        if self._may_be_done and self._has_table(table):
            # An interrupted migration made it, unless it was there before and belongs to somebody else.
            missing = {column.name for column in columns} - self._columns(table)
            if missing:
                raise IncompleteSchema(self._url, tuple(f"{self.named(table)}.{name}" for name in sorted(missing)))
            return
        if self.is_mysql:
            # A URL of either kind may lead to a server of the other, whose collations must then be used.
            options |= {
                f"{kind}_{name}": value
                for kind in _MYSQL
                for name, value in (
                    ("engine", "InnoDB"),
                    ("charset", "utf8mb4"),
                    ("collate", self._collation),
                    ("row_format", "DYNAMIC"),
                )
            }
        primary_key = sa.PrimaryKeyConstraint(*key, name=f"{self._prefix}{table}_pkey")
        op.create_table(f"{self._prefix}{table}", *columns, primary_key, schema=self._schema, **options)

    def create_part(self, table: str, *columns: sa.Column[Any], key: tuple[str, ...], **options: Any) -> None:
        """Make a table whose rows belong to an execution and go with it; `options` are those of dialects."""
        owner = sa.ForeignKey(
            f"{self.named('contexts')}.execution_id",
            ondelete="CASCADE",
            name=f"{self._prefix}{table}_execution_fkey",
        )
        owned = sa.Column("execution_id", self.id_type(), owner, nullable=False)
        self.create_table(table, owned, *columns, key=key, **options)

    def drop_table(self, table: str) -> None:
        if not self._may_be_done or self._has_table(table):
            op.drop_table(f"{self._prefix}{table}", schema=self._schema)

    def add_column(self, table: str, column: sa.Column[Any]) -> None:
        if not self._may_be_done or not self.has_column(table, column.name):
            op.add_column(f"{self._prefix}{table}", column, schema=self._schema)

    def drop_column(self, table: str, column: str) -> None:
        if not self._may_be_done or self.has_column(table, column):
            op.drop_column(f"{self._prefix}{table}", column, schema=self._schema)

    def has_column(self, table: str, column: str) -> bool:
        """Return whether the table and its column exist; true where an earlier change is certain to have made them."""
        return not self._may_be_done or (self._has_table(table) and column in self._columns(table))

    def create_index(
        self, table: str, name: str, *columns: str, only: str | None = None, unique: bool = False, **options: Any
    ) -> None:
        """Make an index, of the rows for which `only` is true where the database has such indexes."""
        if self._may_be_done and self._has_index(table, name):
            return
        where = None if only is None else sa.text(only)
        op.create_index(
            f"{self._prefix}{table}_{name}",
            f"{self._prefix}{table}",
            list(columns),
            schema=self._schema,
            unique=unique,
            postgresql_where=where,
            sqlite_where=where,
            **options,
        )

    def drop_index(self, table: str, name: str) -> None:
        if not self._may_be_done or self._has_index(table, name):
            op.drop_index(f"{self._prefix}{table}_{name}", f"{self._prefix}{table}", schema=self._schema)

    @property
    def _collation(self) -> str:
        return _COLLATIONS[self._dialect]

    def _has_table(self, table: str) -> bool:
        return sa.inspect(op.get_bind()).has_table(f"{self._prefix}{table}", schema=self._schema)

    def _has_index(self, table: str, name: str) -> bool:
        full_name = f"{self._prefix}{table}_{name}"
        return self._has_table(table) and any(
            index["name"] == full_name
            for index in sa.inspect(op.get_bind()).get_indexes(f"{self._prefix}{table}", schema=self._schema)
        )

    def _columns(self, table: str) -> set[str]:
        columns = sa.inspect(op.get_bind()).get_columns(f"{self._prefix}{table}", schema=self._schema)
        return {column["name"] for column in columns}
