"""What differs in a test from a worker's process: the time stands still, functions are replaced, and claims may die."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from agent_statestore.clock import Clock, from_us
from agent_statestore.records import AgentContext, Lease
from agent_statestore.store import Store
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.lease import HeldLease, LeaseKeeper
from celery_agents.testing.crashes import Crash, When
from celery_agents.testing.plans import Plans


class LocalAttempt(Attempt):
    """An attempt on a test's clock."""

    def __init__(self, context: AgentContext, *, clock: Clock, plans: Plans, **parts: Any) -> None:
        self._clock = clock
        self._plans = plans
        self._crashes = plans.crashes
        super().__init__(context, **parts)

    def now(self) -> datetime:
        """The test's time, to the microsecond: a worker adds what has passed since the claim."""
        return from_us(self._clock.now_us())

    def come_to(self, name: str, *, is_derived: bool = False) -> str:
        self._crashes.check_alive(self.held.lease)
        return super().come_to(name, is_derived=is_derived)

    def stand_in(self, name: str, tool: str | None) -> Callable[..., Any] | None:
        return self._plans.stand_in(name, tool)

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
