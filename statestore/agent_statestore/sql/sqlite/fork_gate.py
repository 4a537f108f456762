"""Holds forks off while threads are inside SQLite.

SQLite guards its memory with mutexes of the whole process. A child inherits the mutexes that another thread held at the
fork, locked, without the thread that would unlock them, and then waits for ever as soon as it opens a file. A program
that forks while its threads use a store, as Celery's prefork pool does when it replaces a child, must therefore fork
between their calls. The unit is a whole call with its transaction, and not a single statement: a child also inherits
what SQLite remembers of the locks on the file, and would respect those of a transaction that it cannot end.

Other users of SQLite in the process, such as a result backend, do not pass through here.
"""

import os
import sqlite3
from contextlib import suppress
from sqlite3 import Connection as SQLite
from typing import Any, ClassVar, Final

from agent_statestore.drivers.fork_gate import ForkGate

sqlite_gate: Final = ForkGate("SQLite")


class GatedConnection(SQLite):
    """A connection that is closed inside the gate, also by the garbage collector, and only by its own process."""

    _gate: ClassVar[ForkGate] = sqlite_gate
    # These are closed after the fork that is under way.
    _left: ClassVar[list[sqlite3.Connection]] = []
    # These are the parent's. Closing them would take part in the locking of its file.
    _inherited: ClassVar[list[sqlite3.Connection]] = []

    def __init__(self, *args: Any, **options: Any) -> None:
        self._pid = os.getpid()
        super().__init__(*args, **options)

    def close(self) -> None:
        """Close now, or, during another thread's fork, soon after it.

        It never waits, because the collector may call it in a thread that holds a lock which the fork waits for, such
        as that of `logging`.
        """
        if self._pid != os.getpid():
            self._inherited.append(self)
        elif self._gate.enter_now():
            try:
                super().close()
            finally:
                self._gate.__exit__()
        else:
            self._left.append(self)
            if not self._gate.is_closed:
                self.close_left()  # the fork ended meanwhile, and nobody else may come to do it

    def __del__(self) -> None:
        with suppress(sqlite3.Error):  # it was never opened
            self.close()

    @classmethod
    def close_left(cls) -> None:
        """Close the connections that were left during a fork."""
        for _ in range(len(cls._left)):  # a connection that has to wait for another fork is left to that fork
            try:
                connection = cls._left.pop(0)
            except IndexError:
                return  # another thread was quicker
            connection.close()


def _after_in_parent() -> None:
    sqlite_gate.open()
    GatedConnection.close_left()


def _after_in_child() -> None:
    sqlite_gate.renew()
    # `close` keeps them: they are the parent's.
    GatedConnection.close_left()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=sqlite_gate.close, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
