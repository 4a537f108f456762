"""Drain: on SIGTERM every execution of a worker stops at its next step boundary.

The children of a prefork pool get no signal of a warm shutdown, so the flag lives in memory that is shared with them:
it is made before the pool forks.
"""

import mmap


class DrainFlag:
    """A flag that processes forked after its creation share."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def set(self) -> None:
        """From now on, this worker takes nothing new and stops what runs."""
        self._shared[0] = 1

    def clear(self) -> None:
        """A worker starts: whatever ran in this process before has ended."""
        self._shared[0] = 0

    def is_set(self) -> bool:
        """Whether the worker shuts down."""
        return self._shared[0] == 1
