"""The drain: on SIGTERM every execution of a worker stops at its next step boundary.

The children of a prefork pool get no signal of a warm shutdown. The flag therefore lives in memory that they share, and
is made before the pool forks.
"""

import mmap
import time
from typing import Final

from celery_agents.host.exits import is_exiting

# How long a pool child that was told to end waits for the news that its worker shuts down. A signal to the whole
# process group may reach the child first.
_NEWS_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.02


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

    def announces_end(self) -> bool:
        """Return whether the end that this process comes to is that of its worker, and not of the process alone."""
        give_up_at = time.monotonic() + (_NEWS_SECONDS if is_exiting() else 0.0)
        while not self.is_set():
            if time.monotonic() >= give_up_at:
                return False
            time.sleep(_LOOK_SECONDS)
        return True
