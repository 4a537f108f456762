"""A caller's transaction in SQLAlchemy.

SQLAlchemy tells of a commit before it commits. So hooks wait on the connection until it is used again, or given back to
its pool, after a commit. A hook after a commit that failed would do no harm, but is not called either. Nor is one that
was asked for within a savepoint to which the caller has gone back.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, scoped_session

from agent_statestore.plain_text import line_logger
from agent_statestore.sql.callers.caller import Hook, UnfitConnection

log = line_logger(__name__)

# The name under which a connection keeps its hooks.
_HOOKS: Final = "agents.after_commit"
# The ways of writing a statement's parameters that the store's statements have.
_PARAMSTYLES: Final = {"sqlite": ("qmark",), "postgresql": ("pyformat",), "mysql": ("format", "pyformat")}
_numbers = count()


def sync_connection(connection: Any) -> Connection:
    """Return the `Connection` of a caller. Raise `UnfitConnection`."""
    if isinstance(connection, scoped_session):
        connection = connection()
    if isinstance(connection, Session):
        return connection.connection()
    if isinstance(connection, Connection):
        return connection
    if type(connection).__module__.startswith("sqlalchemy.ext.asyncio"):
        raise UnfitConnection(
            "it is an async one: call this in its `run_sync(lambda sync: ...)`, and give the sync one from there"
        )
    raise UnfitConnection(
        "it needs a Connection or Session of SQLAlchemy, or a connection of Django (django.db.connection), not "
        f"{connection!r:.80}"
    )


class SQLAlchemyCaller:
    """The transaction of a SQLAlchemy connection; see `Caller`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def dialect(self) -> str:
        name = self._connection.dialect.name
        return "mysql" if name == "mariadb" else name

    @contextmanager
    def nested(self) -> Iterator[Any]:
        driver = self._begun()
        cursor, mark = driver.cursor(), f"agents_{next(_numbers)}"
        try:
            cursor.execute(f"SAVEPOINT {mark}")
            try:
                yield driver
            except BaseException:
                # Where the database has undone the whole transaction, the mark is gone with it.
                with suppress(Exception):
                    cursor.execute(f"ROLLBACK TO SAVEPOINT {mark}")
                raise
            cursor.execute(f"RELEASE SAVEPOINT {mark}")
        finally:
            cursor.close()

    def after_commit(self, hook: Hook) -> None:
        engine = self._connection.engine
        if not event.contains(engine, "commit", _committing):
            event.listen(engine, "commit", _committing)
            event.listen(engine, "rollback", _rolling_back)
            event.listen(engine, "rollback_savepoint", _going_back)
            event.listen(engine, "begin", _beginning)
            event.listen(engine, "checkin", _given_back)
        hooks = self._connection.info.setdefault(_HOOKS, _Hooks())
        hooks.waiting.append((_savepoint_around(self._connection), hook))

    def _begun(self) -> Any:
        """Return the driver's connection, in a transaction."""
        connection, dialect = self._connection, self._connection.dialect
        if not connection.in_transaction():
            connection.begin()  # as its next statement would
        driver: Any = connection.connection.dbapi_connection
        if dialect.paramstyle not in _PARAMSTYLES.get(self.dialect, ()):
            raise UnfitConnection(f"the driver {dialect.driver} writes parameters in another way")
        if self.dialect == "sqlite":
            # Python's driver begins a transaction before the first change only. A savepoint before that would be a
            # transaction by itself, and its release a commit.
            if not driver.in_transaction:
                if driver.isolation_level is None:
                    raise UnfitConnection("it is in autocommit: there is no transaction to take part in")
                cursor = driver.cursor()
                cursor.execute("BEGIN IMMEDIATE")
                cursor.close()
        elif dialect.detect_autocommit_setting(driver):
            raise UnfitConnection("it is in autocommit: there is no transaction to take part in")
        return driver


@dataclass(slots=True)
class _Hooks:
    """The hooks of one connection: of the transaction that is under way, and of the one that was just committed.

    Those that wait stand behind the number of the savepoint that was the innermost when they were asked for.
    """

    waiting: list[tuple[int, Hook]] = field(default_factory=list)
    committed: list[Hook] = field(default_factory=list)

    def run(self) -> None:
        """Run those of the committed transaction. Nobody can be told of an error: the commit has happened."""
        hooks, self.committed = self.committed, []
        for hook in hooks:
            try:
                hook()
            except Exception:
                log.exception("what was to be done after a commit failed")


def _committing(connection: Connection) -> None:
    hooks = connection.info.get(_HOOKS)
    if hooks is not None:
        hooks.committed, hooks.waiting = [*hooks.committed, *(hook for _, hook in hooks.waiting)], []


def _rolling_back(connection: Connection) -> None:
    hooks = connection.info.get(_HOOKS)
    if hooks is not None:
        hooks.waiting.clear()
        hooks.committed.clear()  # of a commit that failed; those of an earlier one ran when this transaction began


def _going_back(connection: Connection, name: str, context: None) -> None:
    del context
    hooks = connection.info.get(_HOOKS)
    if hooks is not None:
        # Whatever has begun after this savepoint has begun within it, for it is not released yet.
        hooks.waiting = [one for one in hooks.waiting if one[0] < _number_of(name)]


def _savepoint_around(connection: Connection) -> int:
    """Return the number of the innermost savepoint that is open; 0 for none."""
    nested = connection.get_nested_transaction()
    return 0 if nested is None else _number_of(nested._savepoint)


def _number_of(savepoint: str) -> int:
    """Return the number at the end of the name that SQLAlchemy gives a savepoint: a later one has a higher one."""
    return int(savepoint.rpartition("_")[2])


def _beginning(connection: Connection) -> None:
    hooks = connection.info.get(_HOOKS)
    if hooks is not None:
        hooks.run()


def _given_back(connection: Any, record: Any) -> None:
    del connection
    hooks = record.info.pop(_HOOKS, None)
    if hooks is not None:
        hooks.run()
