import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState
from celery_agents.engine.executor import Defaults
from celery_agents.engine.outcome import Outcome
from celery_agents.settings import WebhookSettings
from celery_agents.webhooks import Deliveries, Delivery
from celery_agents.webhooks.deliverer import Deliverer
from celery_agents.webhooks.links import Links
from celery_agents.webhooks.notes import Notes
from tests.celery_agents.driving import LEASE, Engine
from tests.celery_agents.webhooks.receiving import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@dataclass
class Telling(Engine):
    """An engine whose executions are told of, and a deliverer without jitter."""

    deliverer: Deliverer | None = None

    def tell(self, *receivers: WebhookSettings, links: Links | None = None) -> None:
        notes = Notes(self.store, receivers)
        self.before_pause, self.tell_outside = notes.before_pause, notes.tell_outside
        self.limits = Defaults(lease=LEASE, announce_within=LEASE)
        self.deliverer = Deliverer(self.store, receivers, uniform=min, links=links)

    def execute(self, execution_id: str) -> Outcome | None:
        """See `Engine.execute`. An attempt's clock goes on, and that of the store stands still."""
        try:
            return super().execute(execution_id)
        finally:
            self.clock.advance(timedelta(seconds=1))

    def deliver(self, *, after: timedelta = timedelta(0)) -> int:
        """What the worker that sweeps does, so much later; returns how many tries were made."""
        assert self.deliverer is not None
        self.clock.advance(after)
        return asyncio.run(self.deliverer.deliver_due())

    def kept(self) -> list[Delivery]:
        return list(Deliveries(self.store.documents).list())

    def finish(self, execution_id: str) -> Any:
        """Executes to the end, and tells of it as a worker does."""
        self.execute(execution_id)
        context = self.context(execution_id)
        assert context.state.is_over, context.state
        self.ends.tell_of(execution_id)
        self.store.settle(execution_id)
        return context.output if context.state is AgentState.COMPLETED else context.error


@pytest.fixture
def telling() -> Telling:
    return Telling()
