"""The deliverer: takes the deliveries that are due, tells them, and notes what came of it.

It runs in the parent process of the worker that sweeps, in a thread of its own, with an event loop: a receiver that
hangs holds neither a slot of the pool nor the other receivers. A broker has no part in it. Two that run at once are
harmless: each delivery goes to one of them.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import httpx

from agent_statestore.errors import StoreError, StoreUnavailable
from agent_statestore.plain_text import line_logger
from agent_statestore.store import Store
from celery_agents.engine.patience import Outage
from celery_agents.settings import Settings, WebhookSettings
from celery_agents.webhooks import sending
from celery_agents.webhooks.deliveries import Deliveries, Delivery, DeliveryStatus
from celery_agents.webhooks.links import Links
from celery_agents.webhooks.payload import Untold, payload_of

log = line_logger(__name__)

# How long after each failed try the next one is made: three days in all.
SCHEDULE: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 30, 120, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600, 24 * 3600)
)
# Each is made up to so much later, so that what has failed together is not tried together for ever.
_JITTER: Final = 0.2

_AT_ONCE: Final = 64
_AT_ONCE_TO_ONE: Final = 16
# When to look for more while there is something to deliver.
_SOON: Final = timedelta(seconds=0.1)
# After its first failure in a row a receiver is left alone for so long, then twice as long, up to the longest.
_FIRST_REST: Final = timedelta(seconds=1)
_LONGEST_REST: Final = timedelta(seconds=30)
# When to look again whether an execution has paused that was about to.
_NOT_YET: Final = timedelta(seconds=2)
# What a try takes besides the receiver's time.
_HOLD: Final = timedelta(seconds=15)


class Deliverer:
    """Delivers what is due to the receivers of these settings. With `links`, questions come with links to answer."""

    @classmethod
    def of(cls, store: Store, settings: Settings) -> "Deliverer":
        """Return the deliverer of an installation."""
        return cls(store, settings.webhooks, links=Links(settings) if settings.link_secrets else None)

    def __init__(
        self,
        store: Store,
        receivers: Sequence[WebhookSettings],
        *,
        links: Links | None = None,
        schedule: Sequence[timedelta] = SCHEDULE,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._store = store
        self._deliveries = Deliveries(store.documents)
        self._receivers = {receiver.name: receiver for receiver in receivers}
        self._links = links
        self._schedule = schedule
        self._uniform = uniform
        self._in_flight: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._rests_until: dict[str, datetime] = {}
        self._taking = Outage(log, "the look for webhooks to deliver")

    async def run(self, is_over: Callable[[], bool], is_wanted: Callable[[], bool], every_seconds: float) -> None:
        """Deliver what is due, look again every so many seconds, and return when it is over.

        It looks only while it `is_wanted`. What is in flight at the end is cut off, and is due again after a while.
        """
        tasks: set[asyncio.Task[None]] = set()
        async with sending.make_client() as client:
            while not is_over():
                room = _AT_ONCE - len(tasks)
                taken = self._try_to_take(room) if room and is_wanted() else []
                for delivery in taken:
                    task = asyncio.create_task(self.deliver(delivery, client))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                if len(tasks) >= _AT_ONCE:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(min(_SOON.total_seconds(), every_seconds) if taken else every_seconds)
            for task in tasks:
                task.cancel()

    async def deliver_due(self) -> int:
        """Deliver what is due now, once, and return how many tries were made. Raise `StoreError`."""
        taken = self.take(_AT_ONCE)
        async with sending.make_client() as client:
            await asyncio.gather(*(self.deliver(delivery, client) for delivery in taken))
        return len(taken)

    def take(self, limit: int) -> list[Delivery]:
        """Return deliveries that are due, to be tried now. Raise `StoreError`."""
        now = self._store.now()
        longest = max((receiver.timeout_seconds for receiver in self._receivers.values()), default=0.0)
        taken = []
        for delivery in self._deliveries.take_due(now, limit, timedelta(seconds=longest) + _HOLD):
            rests_until = self._rests_until.get(delivery.receiver, now)
            if rests_until > now or self._in_flight[delivery.receiver] >= _AT_ONCE_TO_ONE:
                self._deliveries.change(delivery, due_at=max(rests_until, now + _SOON))
                continue
            self._in_flight[delivery.receiver] += 1
            taken.append(delivery)
        return taken

    async def deliver(self, delivery: Delivery, client: httpx.AsyncClient) -> None:
        """Try a delivery that was taken, and note what came of it. Log faults of the store: it is due again later."""
        try:
            await self._deliver(delivery, client)
        except StoreError as error:
            log.warning("delivery %s is tried again later: %s", delivery.key, error)
        finally:
            self._in_flight[delivery.receiver] -= 1

    async def _deliver(self, delivery: Delivery, client: httpx.AsyncClient) -> None:
        receiver, now = self._receivers.get(delivery.receiver), self._store.now()
        if receiver is None:
            self._failed(delivery, sending.Tried(said="no receiver has this name in the settings of this worker"))
            return
        try:
            payload = payload_of(delivery, receiver, self._store, now, self._links)
        except StoreUnavailable:
            raise
        except StoreError as error:  # the execution cannot be read: by a newer worker, perhaps
            self._failed(delivery, sending.Tried(said=f"the execution cannot be read: {error}"))
            return
        if payload is Untold.NO_MORE:
            self._deliveries.withdraw(delivery)
        elif payload is Untold.NOT_YET:
            self._deliveries.change(delivery, due_at=now + _NOT_YET)
        else:
            assert isinstance(payload, bytes)
            tried = await sending.post(client, receiver, delivery.message_id, payload)
            self._note_rest(receiver.name, tried)
            if tried.is_delivered:
                self._deliveries.change(
                    delivery, status=DeliveryStatus.DELIVERED, tries=delivery.tries + 1, last=tried.said
                )
            else:
                self._failed(delivery, tried)

    def _failed(self, delivery: Delivery, tried: sending.Tried) -> None:
        tries = delivery.tries + 1
        what = f"{delivery.event} of execution {delivery.execution_id} for {delivery.receiver!r}"
        if tried.is_final or tries > len(self._schedule):
            log.error("webhook %s is given up after %d tries: it %s", what, tries, tried.said)
            self._deliveries.change(delivery, status=DeliveryStatus.DEAD, tries=tries, last=tried.said)
            return
        wait = max(self._schedule[tries - 1] * self._uniform(1, 1 + _JITTER), tried.wait)
        log.warning("webhook %s is tried again in %.0f s: it %s", what, wait.total_seconds(), tried.said)
        self._deliveries.change(delivery, due_at=self._store.now() + wait, tries=tries, last=tried.said)

    def _note_rest(self, receiver: str, tried: sending.Tried) -> None:
        if tried.is_delivered or tried.is_final:
            self._failures[receiver] = 0
            self._rests_until.pop(receiver, None)
            return
        rest = min(_FIRST_REST * 2 ** min(self._failures[receiver], 10), _LONGEST_REST)
        self._failures[receiver] += 1
        self._rests_until[receiver] = self._store.now() + max(rest, min(tried.wait, _LONGEST_REST))

    def _try_to_take(self, limit: int) -> list[Delivery]:
        try:
            taken = self.take(limit)
        except StoreError as error:
            self._taking.failed(error)
            return []
        self._taking.succeeded()
        return taken
