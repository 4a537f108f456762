"""A step's own writes and its checkpoint in one transaction: exactly once (`StorePrimitives.transaction`).

The step gets a SQLAlchemy connection inside a transaction. The store's own statements apply the checkpoint on the
driver's connection below it, and then both are committed together.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, Protocol

from sqlalchemy.engine import Connection, Engine, RootTransaction
from sqlalchemy.exc import SQLAlchemyError

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.codec import EncodedCheckpoint, encode_checkpoint
from agent_statestore.errors import InvalidRecord, StoreError, StoreUnavailable
from agent_statestore.records import Checkpointed, Lease
from agent_statestore.sql.boundary import is_driver_error, is_of_wrong_server, mysql_code_of, reraise, sqlstate_of
from agent_statestore.sql.engine import create_step_engine
from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.sqlite.fork_gate import sqlite_gate


class BoundDatabase(Protocol):
    """A store's statements on one connection, as part of the transaction that is under way there."""

    def locked_checkpoint_id(self, execution_id: str) -> str | None:
        """Lock the execution's row, and return the id of its last applied checkpoint, or None."""
        ...

    def checkpoint(self, execution_id: str, change: EncodedCheckpoint, lease: Lease) -> Checkpointed:
        """Apply a checkpoint without committing it."""
        ...


class StepTransactions:
    """Opens the transactions of one store. The first use makes a separate engine, with separate connections."""

    def __init__(
        self, settings: SQLSettings, bind: Callable[[Connection], BoundDatabase], max_value_bytes: int
    ) -> None:
        self._settings = settings
        self._bind = bind
        self._max_value_bytes = max_value_bytes
        self._engine: Engine | None = None

    @contextmanager
    def open(self, execution_id: str, lease: Lease, max_context_bytes: int) -> Iterator["SQLStepTransaction"]:
        """Open a transaction; see `StorePrimitives.transaction`."""
        # SQLite holds its file's write lock from the beginning: a fork must not come in between.
        gate: AbstractContextManager[object] = sqlite_gate if self._settings.is_sqlite else nullcontext()
        with gate, self._connection() as connection:
            try:
                begun = connection.begin()
                connection.exec_driver_sql(f"SAVEPOINT {_MARK}")
            except SQLAlchemyError as error:
                reraise(error, self._settings)
            bound = self._bind(connection)
            transaction = SQLStepTransaction(
                self._settings,
                connection,
                begun,
                bound,
                execution_id,
                lease,
                self._max_value_bytes,
                max_context_bytes,
            )
            try:
                yield transaction
            except BaseException as error:
                transaction.roll_back()
                if transaction.is_connection_lost and _is_of_the_database(error):
                    reason = str(error).strip().partition("\n")[0] or type(error).__name__
                    raise StoreUnavailable(self._settings.shown_url, reason) from error
                raise
            else:
                transaction.roll_back()  # unless it was committed with its checkpoint

    def dispose(self) -> None:
        """Close the pooled connections."""
        if self._engine is not None:
            self._engine.dispose()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        if self._engine is None:
            self._engine = create_step_engine(self._settings)
        try:
            connection = self._engine.connect()
        except SQLAlchemyError as error:
            reraise(error, self._settings)
        try:
            yield connection
        finally:
            connection.close()


class SQLStepTransaction:
    """A step transaction on a SQL store; see `agent_statestore.contract.StepTransaction`."""

    def __init__(
        self,
        settings: SQLSettings,
        connection: Connection,
        begun: RootTransaction,
        bound: BoundDatabase,
        execution_id: str,
        lease: Lease,
        max_value_bytes: int,
        max_context_bytes: int,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._begun = begun
        self._bound = bound
        self._execution_id = execution_id
        self._lease = lease
        self._max_value_bytes = max_value_bytes
        self._max_context_bytes = max_context_bytes
        self._was_applied = False

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def was_applied(self) -> bool:
        return self._was_applied

    @property
    def is_connection_lost(self) -> bool:
        """Whether the database ended the connection, and so the transaction."""
        if self._connection.closed:
            return False  # the step's function did so
        return self._connection.invalidated or bool(
            getattr(self._connection.connection.driver_connection, "closed", False)
        )

    def checkpoint(self, checkpoint: Checkpoint) -> Checkpointed:
        change = encode_checkpoint(checkpoint, self._max_value_bytes, self._max_context_bytes)
        if not self._begun.is_active or self._connection.get_transaction() is not self._begun:
            raise _ended_by_step()
        try:
            self._connection.exec_driver_sql(f"RELEASE SAVEPOINT {_MARK}")
        except SQLAlchemyError as error:
            if _is_mark_gone(error):
                raise _ended_by_step() from error
            reraise(error, self._settings)
        try:
            # Under the lock, so that a commit of an earlier try that is still on its way is waited for.
            self._was_applied = self._bound.locked_checkpoint_id(self._execution_id) == change.checkpoint_id
            applied = self._bound.checkpoint(self._execution_id, change, self._lease)
            if self._was_applied:
                self._begun.rollback()
            else:
                self._begun.commit()
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary tells the driver's errors from others, and raises both
            if is_of_wrong_server(error):
                self._connection.invalidate(error)
            reraise(error, self._settings)
        return applied

    def roll_back(self) -> None:
        """Undo everything, unless it was committed. A lost connection has done so itself."""
        if self._begun.is_active:
            with contextlib.suppress(SQLAlchemyError):
                self._begun.rollback()


# Set at the beginning, and gone if the transaction was ended behind SQLAlchemy's back: by a COMMIT in SQL, or by a
# statement that MySQL commits by itself, such as CREATE TABLE. The writes before that are not undone.
_MARK: Final = "agents_step"
_NO_SUCH_SAVEPOINT: Final = "3B001"
_NO_SUCH_SAVEPOINT_IN_MYSQL: Final = 1305
_OUTSIDE_A_TRANSACTION: Final = "25P01"


def _is_mark_gone(error: SQLAlchemyError) -> bool:
    original = getattr(error, "orig", None)
    return (
        sqlstate_of(original) in (_NO_SUCH_SAVEPOINT, _OUTSIDE_A_TRANSACTION)
        or mysql_code_of(original) == _NO_SUCH_SAVEPOINT_IN_MYSQL
        or "no such savepoint" in str(original)
    )


def _ended_by_step() -> InvalidRecord:
    return InvalidRecord(
        "transaction",
        "the step's function ended it: it may neither commit nor roll back, nor run what commits by itself (on MySQL "
        "and MariaDB statements like CREATE TABLE)",
    )


def _is_of_the_database(error: BaseException) -> bool:
    """Return whether an error comes from the database, or was raised because of one that does.

    Other errors passed through while the connection was lost: the end of the process, a time limit.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SQLAlchemyError) or is_driver_error(cause):
            return True
        cause = cause.__cause__
    return False
