"""Duties in a database, the same in every one: a look that only reads, and a conditional statement behind it."""

from datetime import timedelta
from typing import Any

from agent_statestore.clock import duration_us
from agent_statestore.contract import Duty
from agent_statestore.sql.database import Database


class DutyStatements:
    """The duties of one store."""

    def __init__(self, database: Database) -> None:
        duties, now = database.settings.tables.duties, database.now
        self._database = database
        self._look = f"SELECT owner, until_us, {now} FROM {duties} WHERE duty = :duty"
        row = f"INTO {duties} (duty, owner, until_us) VALUES (:duty, :owner, {now} + :ttl)"
        # It does nothing where another one has come first.
        is_mysql = database.settings.dialect == "mysql"
        self._put = f"INSERT IGNORE {row}" if is_mysql else f"INSERT {row} ON CONFLICT (duty) DO NOTHING"
        self._seize = f"UPDATE {duties} SET owner = :owner, until_us = {now} + :ttl WHERE duty = :duty"
        self._take = f"{self._seize} AND (owner = :owner OR until_us <= {now})"

    def take(self, duty: str, owner: str, ttl: timedelta, instead: bool, now_us: int | None) -> Duty:
        """Take or keep a duty; see `StorePrimitives.take_duty`.

        The look comes first, because nearly all calls are made by those who wait, and a look takes no lock and leaves
        nothing to be written to disk. It decides nothing: the statement behind it has the condition once more.
        """
        params: dict[str, Any] = {"duty": duty, "owner": owner, "ttl": duration_us(ttl), "now": now_us}
        while True:
            rows = self._database.run(self._look, params)
            if not rows:
                statement = self._put
            else:
                ((holder, until_us, at_us),) = rows
                if holder != owner and until_us > at_us and not instead:
                    return Duty(owner=holder, left=timedelta(microseconds=until_us - at_us))
                statement = self._seize if instead else self._take
            if self._database.change(statement, params):
                return Duty(owner=owner, left=ttl)
