"""Under a lock: the turns of buckets."""

from typing import Any

from agent_statestore.clock import Clock
from agent_statestore.records import Turn
from agent_statestore.rules.rates import Asked, BucketState
from agent_statestore.sql.database import LockingDatabase
from agent_statestore.sql.locking.base import LockedBase
from agent_statestore.sql.transaction import Transaction, insert_into


class LockedRates(LockedBase):
    """The primitive on rates; see `StorePrimitives.take_rate`."""

    def __init__(self, database: LockingDatabase, clock: Clock | None) -> None:
        super().__init__(database, clock)
        rates = self._tables.rates
        self._line = f"SELECT next_us, end_us FROM {rates} WHERE bucket = ?{self.dialect.lock}"
        # If two find no row, the primary key refuses one of them, which runs again and finds the row of the other.
        self._put_line = insert_into(rates, ("next_us", "end_us", "turn_us", "bucket"))
        self._move_line = f"UPDATE {rates} SET next_us = ?, end_us = ?, turn_us = ? WHERE bucket = ?"

    def take_rate(self, bucket: str, question: Asked) -> Turn:
        def work(transaction: Transaction) -> Turn:
            (rows,), now_us = self._look(transaction, (self._line, (bucket,)))
            line, turn = question.answer(BucketState(*rows[0]) if rows else None, now_us)
            turn_us = now_us + question.wait_us(turn)
            row: tuple[Any, ...] = (*line, turn_us if turn.is_taken or turn.is_promised else 0, bucket)
            if rows:
                transaction.write(self._move_line, row)
            else:
                transaction.insert(self._put_line, [row])
            return turn

        return self._database.write(work)
