"""How many steps of an attempt are being taken, and whether a pause is being written meanwhile."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# How often it is looked whether steps that were announced will still be taken.
_LOOK_SECONDS: Final = 0.02


class Traffic:
    """Counts the steps that are being taken, each in a thread of its own, or about to be. Changed under `lock`.

    `is_pausing` says that whoever writes a pause waits for them.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._changed = threading.Condition(lock)
        self._expecting = threading.Lock()
        self._busy = 0
        self._expected = 0
        self.is_pausing = False

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is in flight, and no pause is being written."""
        with self._lock:
            return not (self._in_flight or self.is_pausing)

    @property
    def _in_flight(self) -> bool:
        return self._busy > 0 or self._expected > 0

    def expect(self) -> None:
        """A step is about to be taken by another thread; `enter(is_expected=True)` or `unexpect` follows.

        Does not wait for the lock, as it is called on the event loop.
        """
        with self._expecting:
            self._expected += 1

    def unexpect(self) -> None:
        """The step will not be taken. Does not wait for the lock either."""
        with self._expecting:
            self._expected -= 1

    def enter(self, *, is_expected: bool) -> None:
        """A step is being taken, until `leave`."""
        with self._lock:
            self._busy += 1
            if is_expected:
                self.unexpect()

    def leave(self) -> None:
        """It is not any more."""
        with self._lock:
            self._leave()

    @contextmanager
    def not_busy(self) -> Iterator[None]:
        """The step that is being taken here counts no more in this block: it waits for the others."""
        self._leave()
        try:
            yield
        finally:
            self._busy += 1

    def wait_for_steps(self) -> None:
        """Returns when no step is in flight any more; lets go of the lock meanwhile."""
        while self._in_flight:
            self._wait()

    def wait_until_quiet(self) -> None:
        """Returns when no step is in flight, and no pause is being written."""
        with self._lock:
            while not self.is_quiet:
                self._wait()

    def end_pausing(self) -> None:
        """The pause is written, or is not to be: those who wait look again."""
        self.is_pausing = False
        self._changed.notify_all()

    def _leave(self) -> None:
        self._busy -= 1
        self._changed.notify_all()

    def _wait(self) -> None:
        # Nobody tells of an expected step that is not taken after all: that is found out on the event loop.
        self._changed.wait(_LOOK_SECONDS if self._expected > 0 else None)
