"""How statements run on MySQL and MariaDB: short transactions, several statements in each round trip.

No statement runs after one that fails, and the transaction is undone as a whole, so that they are as good as one.
"""

import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from pymysql.err import MySQLError
from sqlalchemy.exc import SQLAlchemyError

from agent_statestore.sql.boundary import is_of_wrong_server, mysql_code_of, reraise
from agent_statestore.sql.database import Params
from agent_statestore.sql.engine import MAX_PACKET, create_pooled_engine
from agent_statestore.sql.mysql.transaction import MySQLTransaction
from agent_statestore.sql.settings import SQLSettings
from agent_statestore.sql.transaction import Row, Select, Transaction

Result = TypeVar("Result")

# The server undid the transaction, or wants it undone, to resolve a conflict with another one: a deadlock, a row that
# changed under a snapshot, or a unique key that the other has inserted first and that the next look will find.
_CONFLICTS: Final = frozenset({1213, 1020, 1062})
_TRIES: Final = 8
_PAUSE_SECONDS: Final = 0.002

# READ COMMITTED, in which the writers work, would show each SELECT another state. A snapshot neither waits for their
# locks nor holds them up.
_SNAPSHOT: Final = ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION READ ONLY")

_PARAMETER: Final = re.compile(r"(?<!:):([a-z_]+)")


class MySQLDatabase:
    """Statements on MySQL and MariaDB; see `Database` and `LockingDatabase`."""

    # SYSDATE tells the time when it is evaluated, which is after the row's lock was got, and not when the statement
    # began. On a server with sysdate_is_now it tells the time when the statement began; then a lease that ran out while
    # this waited may be renewed.
    now = "COALESCE(:now, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', SYSDATE(6)))"

    def __init__(self, settings: SQLSettings) -> None:
        self.settings = settings
        self._engine = create_pooled_engine(settings)

    def run(self, statement: str, params: Params) -> list[Row]:
        """Run one statement; see `Database`."""
        return self._attempt(lambda transaction: transaction.alone(*_positional(statement, params))[0])

    def change(self, statement: str, params: Params) -> int:
        """Run one writing statement; see `Database`."""
        return self._attempt(lambda transaction: transaction.alone(*_positional(statement, params))[1])

    def write(self, work: Callable[[Transaction], Result]) -> Result:
        """Run `work` in a transaction; see `LockingDatabase`. A conflict repeats the whole of it."""
        return self._attempt(work)

    def read(self, *queries: Select) -> list[list[Row]]:
        """Run SELECTs on one snapshot, all in one round trip; see `LockingDatabase`."""
        return self._attempt(lambda transaction: transaction.finish(*queries), *_SNAPSHOT)

    def dispose(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()

    def _attempt(self, work: Callable[[MySQLTransaction], Result], *beginning: str) -> Result:
        for number in range(1, _TRIES + 1):
            try:
                return self._once(work, *beginning)
            except (MySQLError, SQLAlchemyError, UnicodeEncodeError) as error:
                if mysql_code_of(error) not in _CONFLICTS or number == _TRIES:
                    reraise(error, self.settings)
                # Two transactions that repeat at once could meet again.
                time.sleep(random.uniform(0, number * _PAUSE_SECONDS))
        raise AssertionError("the last try returns or raises")

    def _once(self, work: Callable[[MySQLTransaction], Result], *beginning: str) -> Result:
        pooled = self._engine.raw_connection()
        try:
            transaction = MySQLTransaction(pooled.driver_connection, pooled.info[MAX_PACKET], *beginning)
            try:
                result = work(transaction)
                transaction.commit()
                return result
            except BaseException as error:
                # A connection that cannot be rolled back is closed, and the server then undoes what it began.
                is_wrong = is_of_wrong_server(error)
                if not transaction.roll_back() or is_wrong:
                    pooled.invalidate()
                if is_wrong:
                    self._engine.dispose()  # all that lie idle lead there, too
                raise
        finally:
            pooled.close()


def _positional(statement: str, params: Params) -> tuple[str, Sequence[object]]:
    """Return a statement with `:name` parameters as one with `?`, and the parameters in their order."""
    return _PARAMETER.sub("?", statement), [params[name] for name in _PARAMETER.findall(statement)]
