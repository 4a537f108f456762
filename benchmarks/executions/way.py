"""One way to run executions: who sends them, who works on them, and how their end is seen."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis

from benchmarks.servers import Servers
from benchmarks.workers import Frozen

STAMPS: Final = 15  # the database of the Redis server where the last of a turn say that they were reached
ENDS: Final = "ends"
LATENCIES: Final = "latencies"
_WAIT_SECONDS: Final = 180
_LOOK_SECONDS: Final = 0.005
_PACE_SECONDS: Final = 0.02

Send = Callable[[], object]


class Way(ABC):
    """Workers, frozen except in their turn, and the producer that sends to them. `slots` is how much they do at once.

    A turn goes from before the first is sent to after the last has ended. `first_step` and `stamp` are works of its own
    that tell when they are reached.
    """

    def __init__(self, servers: Servers, workers: Sequence[Frozen], slots: int) -> None:
        self.workers = workers
        self.slots = slots
        self.stamps_url = servers.redis_url(STAMPS)
        self._stamps: Any = redis.Redis.from_url(self.stamps_url)

    @abstractmethod
    def stamp(self) -> None:
        """Send a work that pushes to `ENDS` when it is reached."""

    @abstractmethod
    def are_over(self) -> bool:
        """Return whether nothing is left, as far as that can be asked cheaply."""

    @abstractmethod
    def count_ended(self) -> int:
        """Return how many works have ended well so far, stamps included."""

    def close(self) -> None:
        """Close the producer's connections."""
        self._stamps.close()

    def thaw(self) -> None:
        """Let the workers work."""
        for worker in self.workers:
            worker.thaw()

    def freeze(self) -> None:
        """Stop the workers where they are."""
        for worker in self.workers:
            worker.freeze()

    def check(self) -> None:
        """Raise `RuntimeError` if a worker has ended."""
        for worker in self.workers:
            worker.check()

    def _check(self, deadline: float) -> None:
        self.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"{type(self).__name__} does not come to an end:\n{self.logs()}")

    def finish(self) -> None:
        """Return when all that was sent has ended. Raise `RuntimeError` if that takes too long.

        The last to be sent, one for each slot, tell when they are reached: nobody has to ask before.
        """
        self.reach_end()
        deadline = time.monotonic() + _WAIT_SECONDS
        while not self.are_over():
            self._check(deadline)
            time.sleep(_LOOK_SECONDS)

    def reach_end(self) -> None:
        """Return when the workers have come to the end of what was sent, though the last may still be at work."""
        for _ in range(self.slots):
            self.stamp()
        deadline = time.monotonic() + _WAIT_SECONDS
        left = self.slots
        while left:
            if self._stamps.blpop(ENDS, timeout=1) is not None:
                left -= 1
            self._check(deadline)

    def turn(self, send: Send, count: int) -> tuple[float, float]:
        """Send `count`, and return seconds until all were sent and seconds until all had ended. Count the ended."""
        self.thaw()
        before = self.count_ended()
        started = time.perf_counter()
        for _ in range(count):
            send()
        sent = time.perf_counter() - started
        self.finish()
        ended = time.perf_counter() - started
        self._check_count(before + count)
        self.freeze()
        return sent, ended

    def fill(self, send: Send, count: int, *, calls: int) -> float:
        """Send `count` in so many calls while the workers are frozen, and return the seconds that took.

        Let them end afterwards.
        """
        self.thaw()
        before = self.count_ended()
        self.freeze()
        started = time.perf_counter()
        for _ in range(calls):
            send()
        sent = time.perf_counter() - started
        self.thaw()
        self.finish()
        self._check_count(before + count)
        self.freeze()
        return sent

    def latencies(self, first_step: Callable[[float], object], count: int) -> list[float]:
        """Send one at a time, and return the seconds from before that to its first step."""
        self.thaw()
        self._stamps.delete(LATENCIES)
        found: list[float] = []
        for _ in range(count):
            time.sleep(_PACE_SECONDS)  # what is left of the one before
            first_step(time.time())
            item = self._stamps.blpop(LATENCIES, timeout=_WAIT_SECONDS)
            if item is None:
                raise RuntimeError(f"after {len(found)} of {count}, one was never reached:\n{self.logs()}")
            found.append(json.loads(item[1]))
        self.finish()
        self.freeze()
        return found

    def logs(self) -> str:
        """Return the end of what the workers have logged."""
        return "\n".join(worker.log()[-2000:] for worker in self.workers)

    def _check_count(self, expected: int) -> None:
        """Raise `RuntimeError` unless as many as that have ended, with this turn's stamps."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while (ended := self.count_ended()) < expected + self.slots:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{expected + self.slots - ended} did not end well:\n{self.logs()}")
            time.sleep(_LOOK_SECONDS)
