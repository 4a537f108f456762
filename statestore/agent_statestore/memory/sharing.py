"""What the users of a store in memory share besides executions: documents, rates and duties."""

import threading
from datetime import timedelta

from agent_statestore.clock import Clock, duration_us
from agent_statestore.contract.duties import Duty, check_duty
from agent_statestore.memory.documents import MemoryDocuments
from agent_statestore.records import Turn
from agent_statestore.rules.rates import BucketState, asked
from agent_statestore.store import Store


class MemorySharing(Store):
    """The primitives on documents, rates and duties; see `StorePrimitives.documents`, `take_rate`, `take_duty`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._documents = MemoryDocuments(clock, lambda: self._changed)
        self._rates: dict[str, BucketState] = {}
        self._duties: dict[str, tuple[str, int]] = {}

    @property
    def documents(self) -> MemoryDocuments:
        return self._documents

    def take_rate(
        self,
        bucket: str,
        limit: int,
        per: timedelta,
        *,
        within: timedelta = timedelta(0),
        promised: bool = False,
    ) -> Turn:
        question = asked(bucket, limit, per, within, promised)
        with self._changed:
            self._rates[bucket], turn = question.answer(self._rates.get(bucket), self._clock.now_us())
        return turn

    def take_duty(self, duty: str, owner: str, ttl: timedelta, *, instead: bool = False) -> Duty:
        check_duty(duty, owner, ttl)
        with self._changed:
            now_us = self._clock.now_us()
            holder, until_us = self._duties.get(duty, (owner, now_us))
            if holder != owner and until_us > now_us and not instead:
                return Duty(owner=holder, left=timedelta(microseconds=until_us - now_us))
            self._duties[duty] = (owner, now_us + duration_us(ttl))
        return Duty(owner=owner, left=ttl)

    def tidy(self, limit: int = 1000) -> int:
        with self._changed:
            now_us = self._clock.now_us()
            stale = [bucket for bucket, line in self._rates.items() if max(line) <= now_us][:limit]
            for bucket in stale:
                del self._rates[bucket]
            return len(stale) + self._documents.tidy(limit)
