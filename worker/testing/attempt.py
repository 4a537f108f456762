"""What differs in a test from a worker's process: the time stands still, functions are replaced, and claims may die."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from statestore.clock import Clock, from_us
from statestore.operations import Store
from statestore.records import AgentContext, Lease
from worker.engine.attempt import Attempt
from worker.engine.keeper import HeldLease, LeaseKeeper
from worker.testing.crashing import Crash, Crashes, When

# What stands in for the functions of steps and tools, by ("step" or "tool", name).
StandIns = Mapping[tuple[str, str], Callable[..., Any]]

STEP: Final = "step"
TOOL: Final = "tool"


class LocalAttempt(Attempt):
    """An attempt on a test's clock."""

    def __init__(
        self, context: AgentContext, *, clock: Clock, crashes: Crashes, stand_ins: StandIns, **parts: Any
    ) -> None:
        self._clock = clock
        self._crashes = crashes
        self._stand_ins = stand_ins
        super().__init__(context, **parts)

    def now(self) -> datetime:
        """The test's time, to the microsecond: a worker adds what has passed since the claim."""
        return from_us(self._clock.now_us())

    def come_to(self, name: str) -> str:
        self._crashes.check_alive(self.held.lease)
        return super().come_to(name)

    def stand_in(self, name: str, tool: str | None) -> Callable[..., Any] | None:
        found = self._stand_ins.get((STEP, name))
        return self._stand_ins.get((TOOL, tool)) if found is None and tool is not None else found

    @contextmanager
    def inside_step(self, key: str) -> Iterator[None]:
        lease = self.held.lease
        # Where there is an intent, the store was told of it, and this plan has come about there.
        self._crashes.come_to(When.BEFORE_INTENT, lease, key)
        self._crashes.come_to(When.AFTER_INTENT, lease, key)
        with super().inside_step(key):
            try:
                yield
            except Crash:
                self._crashes.die(lease)
                raise


class NoKeeper(LeaseKeeper):
    """Keeps leases that need no renewal: no thread, and nothing that depends on how long a test takes."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)

    @contextmanager
    def keep(self, lease: Lease, requested_at: float) -> Iterator[HeldLease]:
        yield HeldLease(lease, requested_at)
