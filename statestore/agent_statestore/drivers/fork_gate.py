"""Holds forks off while threads are inside code that a fork in that moment would break.

A child inherits the locks that other threads held at the fork, locked, without the threads that would unlock them, and
then waits for ever as soon as it needs one. A program that forks while its threads use objects with such locks, as
Celery's prefork pool does when it replaces a child, must therefore fork between their calls.
"""

import time
from threading import get_ident
from typing import Final

from agent_statestore.plain_text import line_logger

_LOGGER: Final = line_logger(__name__)

# A fork that has waited this long goes ahead: a child at risk is better than a parent that stands still for ever.
PATIENCE_SECONDS: Final = 30.0
_LOOK_AGAIN_SECONDS: Final = 0.0005


class ForkGate:
    """A gate entered with `with`, by any number of threads at once and by one thread repeatedly; closed during a fork.

    `what` names what it guards, for messages.

    It has no lock: a lock would cost more, would have to be renewed in the child, and could be held by the very thread
    in which a signal handler or the garbage collector enters again. The gate rests on two orders: a thread says that it
    is inside before it looks for a fork, and a fork is announced before it looks who is inside. So one sees the other.
    """

    def __init__(self, what: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._what = what
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
        """Enter unless that needs waiting, and return whether it did."""
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
        """Wait, before a fork, until no other thread is inside, and let none in."""
        me, inside, forking = get_ident(), self._inside, self._forking
        forking.append(me)
        deadline = time.monotonic() + self._patience_seconds
        # A thread that forks counts as inside a fork and not as inside the gate, even in the middle of a call.
        while others := [thread for thread in list(inside) if thread != me and thread not in forking]:
            if time.monotonic() > deadline:
                _LOGGER.warning(
                    "forking although threads have been inside %s for %ss", self._what, self._patience_seconds
                )
                for thread in others:
                    inside.pop(thread, None)  # so that the next fork does not wait for them again
                return
            time.sleep(_LOOK_AGAIN_SECONDS)

    def open(self) -> None:
        """Let threads in again, after the fork in the parent."""
        self._forking.remove(get_ident())

    def renew(self) -> None:
        """Keep, after the fork in the child, only the thread that forked: no other lives on."""
        me = get_ident()
        depth = self._inside.get(me)
        self._inside = {} if depth is None else {me: depth}
        # There is more than one entry if a hook of the fork forks itself.
        self._forking = [me] * (self._forking.count(me) - 1)

    def _give_way(self, me: int) -> None:
        # The thread that forks may use the store in other hooks of the fork.
        while self._forking and me not in self._forking:
            self._inside.pop(me, None)
            while self._forking:
                time.sleep(_LOOK_AGAIN_SECONDS)
            self._inside[me] = 1
