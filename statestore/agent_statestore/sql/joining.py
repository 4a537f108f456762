"""Creating in a caller's transaction: the caller's connection must lead to the store's database, and is written to.

Whether it does is asked of the database itself, on both connections: names of hosts, sockets and poolers differ.
"""

import os
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from agent_statestore.checkpoint import NewExecution
from agent_statestore.errors import ForeignConnection, StoreError
from agent_statestore.records import AgentContext
from agent_statestore.sql.boundary import reraise
from agent_statestore.sql.callers import Caller, UnfitConnection, caller_of
from agent_statestore.sql.database import Database
from agent_statestore.sql.settings import SQLSettings

# What tells one database, and one set of tables in it, from all others.
_POSTGRESQL: Final = (
    "SELECT CAST(pg_postmaster_start_time() AT TIME ZONE 'UTC' AS text), current_database(), "
    "CAST(CAST(to_regclass('{contexts}') AS oid) AS bigint)"
)
_MYSQL: Final = "SELECT @@hostname, @@port, @@datadir, {database}, @@character_set_client"


# Creates through a driver's connection; the last is the limit of a value in bytes.
Create: TypeAlias = Callable[[Any, NewExecution, int], AgentContext]


class Joining:
    """Creates executions through the connections of callers.

    `database` is the store's own way to the same database. `create` creates through a driver's connection.
    """

    def __init__(
        self,
        settings: SQLSettings,
        database: Database,
        max_value_bytes: int,
        create: Create,
    ) -> None:
        self._settings = settings
        self._database = database
        self._max_value_bytes = max_value_bytes
        self._create = create
        self._known: tuple[Any, ...] | None = None
        tables = settings.tables
        schema = "DATABASE()" if tables.schema is None else f"'{tables.schema}'"
        self._question = {"postgresql": _POSTGRESQL.format(contexts=tables.contexts)}.get(
            settings.dialect, _MYSQL.format(database=schema)
        )

    def create(self, connection: Any, new: NewExecution) -> AgentContext:
        """See `StorePrimitives.create_in`."""
        try:
            caller = caller_of(connection)
            self._check_dialect(caller)
            if self._settings.is_sqlite and self._known is None:
                self._database.run("SELECT 1", {})  # which makes the tables, the first time
                self._known = ()
            with caller.nested() as driver:
                self._check_database(driver)
                return self._create(driver, new, self._max_value_bytes)
        except StoreError:
            raise
        except UnfitConnection as unfit:
            raise ForeignConnection(self._settings.shown_url, str(unfit)) from unfit
        except Exception as error:  # noqa: BLE001 - the boundary tells the driver's errors from others, and raises both
            reraise(error, self._settings)

    def _check_dialect(self, caller: Caller) -> None:
        if caller.dialect != self._settings.dialect:
            raise UnfitConnection(f"it leads to {caller.dialect}, and the store is in {self._settings.dialect}")

    def _check_database(self, driver: Any) -> None:
        cursor = driver.cursor()
        try:
            if self._settings.is_sqlite:
                self._check_file(cursor)
            else:
                self._check_server(cursor)
        finally:
            cursor.close()

    def _check_file(self, cursor: Any) -> None:
        cursor.execute("PRAGMA database_list")
        (found,) = [file for _, name, file in cursor.fetchall() if name == "main"]
        file = self._settings.url.database
        assert file is not None
        if not found or not os.path.exists(file) or not os.path.samefile(found, file):  # noqa: PTH110, PTH121
            raise UnfitConnection(f"it leads to {found or 'a database in memory'}")

    def _check_server(self, cursor: Any) -> None:
        cursor.execute(self._question)
        (found,) = cursor.fetchall()
        place = tuple(found)
        if place == self._known:
            return
        (own,) = self._database.run(self._question, {})  # also after a restart of the server
        self._known = tuple(own)
        if place != self._known:
            raise UnfitConnection(
                "it leads to another database, or another set of tables in it, or has another charset"
            )
