"""Who sweeps: one worker at a time, for all that use the store. The others look rarely whether it still does.

That two sweep at once for a moment is harmless, so a duty of the store is enough (`StorePrimitives.take_duty`).
"""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from agent_statestore.store import Store

DUTY: Final = "sweep"


class SweepDuty:
    """The duty to sweep, as one worker sees it. `owner` names the worker.

    The duty is taken for two sweep intervals, but for no longer than a lease. Whoever does not have it looks again
    within a sweep interval of its end, so it has a new owner within lease + sweep interval after the death of the old
    one, like everything else that a process holds. Looks come at random times, so that many workers neither look
    together nor all become the next owner; each worker makes about one in one and a half sweep intervals.

    A worker that starts takes the duty from whoever has it. It looks at what is due in any case then, and the owner
    before it may have died with all other workers.
    """

    def __init__(
        self,
        store: Store,
        owner: str,
        *,
        lease_seconds: float,
        sweep_seconds: float,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._store = store
        self._owner = owner
        self._sweep_seconds = sweep_seconds
        self._held_seconds = min(2 * sweep_seconds, lease_seconds)
        self._uniform = uniform
        self._has_started = False
        # Whether this worker sweeps. It may not know yet that another one has taken the duty over.
        self.is_held = False

    def look(self) -> float:
        """Take the duty or keep it, if it can be had; return in how many seconds to look again. Raise `StoreError`."""
        ttl = timedelta(seconds=self._held_seconds)
        taken = self._store.take_duty(DUTY, self._owner, ttl, instead=not self._has_started)
        self._has_started = True
        self.is_held = taken.owner == self._owner
        interval = self._sweep_seconds
        if self.is_held:
            return min(interval, self._held_seconds / 2)
        return min(self._uniform(interval, 2 * interval), taken.left.total_seconds() + self._uniform(0, interval))

    def give_up(self) -> None:
        """Let whoever looks next have the duty. Raise `StoreError`."""
        if self.is_held:
            self.is_held = False
            self._store.take_duty(DUTY, self._owner, timedelta(0))
