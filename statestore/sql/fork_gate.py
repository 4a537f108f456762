"""Holds forks off while threads are inside SQLite.

SQLite guards its memory with mutexes of the whole process. A child inherits those that another thread held at the
fork, locked, without the thread that would unlock them, and then waits for ever as soon as it opens a file. A program
that forks while its threads use a store, as Celery's prefork pool does when it replaces a child, must therefore fork
between their calls. The unit is a whole call with its transaction, and not a single statement: a child also inherits
what SQLite remembers of the locks on the file, and would respect those of a transaction that it cannot end.

Other users of SQLite in the process, such as a result backend, do not pass through here.
"""

import logging
import os
import sqlite3
import time
from contextlib import suppress
from threading import get_ident
from typing import Any, ClassVar, Final

_LOGGER: Final = logging.getLogger(__name__)

# A fork that has waited this long goes ahead: a child at risk is better than a parent that stands still for ever.
PATIENCE_SECONDS: Final = 30.0
_LOOK_AGAIN_SECONDS: Final = 0.0005


class ForkGate:
    """Entered with `with`, by any number of threads at once and by one thread repeatedly; closed during a fork.

    It has no lock: one would cost more, would have to be renewed in the child, and could be held by the very thread
    in which a signal handler or the garbage collector enters again. It rests on a thread saying that it is inside
    before it looks for a fork, and on a fork being announced before it looks who is inside: one sees the other.
    """

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._inside: dict[int, int] = {}  # how many times each thread is inside; a thread touches only its own
        self._forking: list[int] = []  # the threads that fork

    def __enter__(self) -> None:
        me, inside = get_ident(), self._inside
        depth = inside.get(me)
        if depth is not None:
            # The fork waits for this thread: waiting for the fork would be a deadlock.
            inside[me] = depth + 1
            return
        inside[me] = 1
        if self._forking:
            self._give_way(me)

    def __exit__(self, *_: object) -> None:
        me, inside = get_ident(), self._inside
        depth = inside.get(me, 0)
        if depth > 1:
            inside[me] = depth - 1
        else:
            inside.pop(me, None)  # a fork that lost its patience has taken it out already

    def enter_now(self) -> bool:
        """Enters unless that needs waiting; says whether it did."""
        me, inside = get_ident(), self._inside
        depth = inside.get(me, 0)
        inside[me] = depth + 1
        if self._forking and depth == 0 and me not in self._forking:
            inside.pop(me, None)
            return False
        return True

    @property
    def is_closed(self) -> bool:
        """Whether a fork is under way."""
        return bool(self._forking)

    def close(self) -> None:
        """Before a fork: waits until no other thread is inside, and lets none in."""
        me, inside, forking = get_ident(), self._inside, self._forking
        forking.append(me)
        deadline = time.monotonic() + self._patience_seconds
        # A thread that forks is inside a fork and not inside SQLite, also if it does so in the middle of a call.
        while others := [thread for thread in list(inside) if thread != me and thread not in forking]:
            if time.monotonic() > deadline:
                _LOGGER.warning("forking although threads have been inside SQLite for %ss", self._patience_seconds)
                for thread in others:
                    inside.pop(thread, None)  # so that the next fork does not wait for them again
                return
            time.sleep(_LOOK_AGAIN_SECONDS)

    def open(self) -> None:
        """After the fork, in the parent."""
        self._forking.remove(get_ident())

    def renew(self) -> None:
        """After the fork, in the child: only the thread that forked lives on."""
        me = get_ident()
        depth = self._inside.get(me)
        self._inside = {} if depth is None else {me: depth}
        # More than once if a hook of the fork forks itself.
        self._forking = [me] * (self._forking.count(me) - 1)

    def _give_way(self, me: int) -> None:
        # The thread that forks may use the store in other hooks of the fork.
        while self._forking and me not in self._forking:
            self._inside.pop(me, None)
            while self._forking:
                time.sleep(_LOOK_AGAIN_SECONDS)
            self._inside[me] = 1


sqlite_gate: Final = ForkGate()


class GatedConnection(sqlite3.Connection):
    """A connection that is closed inside the gate, also by the garbage collector, and only by its own process."""

    _gate: ClassVar[ForkGate] = sqlite_gate
    # Closed after the fork that is under way.
    _left: ClassVar[list[sqlite3.Connection]] = []
    # The parent's. Closing them would take part in the locking of its file.
    _inherited: ClassVar[list[sqlite3.Connection]] = []

    def __init__(self, *args: Any, **options: Any) -> None:
        self._pid = os.getpid()
        super().__init__(*args, **options)

    def close(self) -> None:
        """Closes; during another thread's fork, soon after it.

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
        """Closes what was to be closed during a fork."""
        for _ in range(len(cls._left)):  # one that another fork makes wait is left to that fork
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
