"""The drain: on SIGTERM every execution of a worker stops at its next step boundary.

The children of a prefork pool get no signal of a warm shutdown. The flag therefore lives in memory that they share, and
is made before the pool forks.
"""

import mmap


class DrainFlag:
    """A flag that processes forked after its creation share."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Make this worker take nothing new, and stop what runs."""
        self._shared[0] = 1

    def clear(self) -> None:
        """Lower the flag when a worker starts: whatever ran in this process before has ended."""
        self._shared[0] = 0

    def is_set(self) -> bool:
        """Return whether the worker is shutting down."""
        return self._shared[0] == 1
