"""What differs in a test from a worker's process: the time stands still, functions are replaced, and claims may die."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from agent_statestore.clock import Clock, from_us
from agent_statestore.records import AgentStep, Lease
from agent_statestore.store import Store
from celery_agents.engine.lease import HeldLease, LeaseKeeper
from celery_agents.engine.stage import Stage
from celery_agents.errors import JournalMismatch
from celery_agents.testing.crashes import Crash, When
from celery_agents.testing.plans import Plans

R = TypeVar("R")


class LocalStage(Stage):
    """The world of one claim on a test's clock."""

    def __init__(self, lease: Lease, *, clock: Clock, plans: Plans) -> None:
        self._lease = lease
        self._clock = clock
        self._plans = plans
        self._crashes = plans.crashes

    def now(self) -> datetime:
        """Return the test's time, to the microsecond: a worker adds what has passed since the claim."""
        return from_us(self._clock.now_us())

    def come_to_step(self) -> None:
        """Raise `Crash` for a claim that has died."""
        self._crashes.check_alive(self._lease)

    def looked_up(self, key: str, recorded: AgentStep | None) -> None:
        """Nothing is planned here."""

    def contradicted(self, mismatch: JournalMismatch) -> None:
        """Nothing is planned here."""

    def stand_in(self, name: str, tool: str | None) -> Callable[..., Any] | None:
        """Return what the test has put in the place of the function."""
        return self._plans.stand_in(name, tool)

    def call(self, key: str, function: Callable[[], R]) -> R:
        """Call the function, unless the claim is to die before; it may die in the function, too."""
        # Where there is an intent, the store was told of it, and this plan has come about there.
        self._crashes.come_to(When.BEFORE_INTENT, self._lease, key)
        self._crashes.come_to(When.AFTER_INTENT, self._lease, key)
        try:
            return function()
        except Crash:
            self._crashes.die(self._lease)
            raise


class NoKeeper(LeaseKeeper):
    """Keeps leases that need no renewal: no thread, and nothing that depends on how long a test takes."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)

    @contextmanager
    def keep(self, lease: Lease, requested_at: float) -> Iterator[HeldLease]:
        yield HeldLease(lease, requested_at)
