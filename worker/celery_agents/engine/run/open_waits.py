"""The waits of an async agent's tasks: those that find nothing stay open until all tasks have come to rest.

A wait that finds nothing must not end the attempt before the tasks beside it have come to theirs: then the execution
pauses on all of them at once. A step that is in flight at that moment ends first, and its task may come to a wait. What
begins later holds nothing up, or a task that takes step after step would keep a question from being shown: it is in
flight when the pause is to be written, and is recorded before, as always.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.order import ROUNDS, ReplayOrder
from celery_agents.engine.outcome import ExecutionStopped
from celery_agents.engine.pauses.pause import pause_on_open_waits
from celery_agents.engine.run.desk import Desk
from celery_agents.engine.steps.scope import StepWaits

T = TypeVar("T")

# How often it is looked whether those that are led through the journal have come to its end.
_LOOK_SECONDS: Final = 0.002


class OpenWaits:
    """Used on the event loop. Nothing here waits for the lock of the course."""

    def __init__(self, attempt: Attempt, desk: Desk, order: ReplayOrder) -> None:
        self._attempt = attempt
        self._desk = desk
        self._order = order
        self._number = 0
        self._looking = 0
        self._in_flight: set[object] = set()
        # Changes whenever a task has come to a wait, or has left one.
        self._moves = 0
        self._has_moved = asyncio.Event()
        self._pausing: asyncio.Task[None] | None = None

    async def wait(self, look: Callable[[], T], then: Callable[[Coroutine[Any, Any, T]], Coroutine[Any, Any, T]]) -> T:
        """Return what `look` finds, as `then` gives it out; unwind if it has to wait."""
        self._move(1)
        try:
            return await then(self._look(look))
        finally:
            self._move(-1)

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """A step is taken in this block, and what comes of it is given out."""
        step = object()
        self._in_flight.add(step)
        try:
            yield
        finally:
            self._in_flight.discard(step)
            self._has_moved.set()

    async def _look(self, look: Callable[[], T]) -> T:
        attempt = self._attempt
        self._number += 1
        number = self._number
        with attempt.nesting.putting_pauses_off() as waits:
            looking: Future[T] = self._desk.submit(look)  # in a copy of the context of this block
        try:
            try:
                return await asyncio.wrap_future(looking)
            except StepWaits:
                attempt.course.open_waits[number] = tuple(waits)
            self._move(-1)
            try:
                await self._until_paused()
            finally:
                del attempt.course.open_waits[number]
                self._move(1)
        except asyncio.CancelledError:
            if attempt.course.stopped is None:
                attempt.recorder.withdraw(waits)
            raise
        assert attempt.course.stopped is not None, "paused"
        raise attempt.course.stopped

    async def _until_paused(self) -> None:
        if self._pausing is None:
            self._pausing = asyncio.get_running_loop().create_task(self._pause())
        await asyncio.shield(self._pausing)

    def _move(self, change: int) -> None:
        self._looking += change
        self._moves += 1
        self._has_moved.set()

    async def _pause(self) -> None:
        """Pause once nothing has moved for some rounds of the loop, in which each task comes to its next wait."""
        open_waits, in_flight = self._attempt.course.open_waits, set(self._in_flight)
        while open_waits:
            quiet_since = self._moves
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
            if self._looking or in_flight & self._in_flight:
                self._has_moved.clear()
                await self._has_moved.wait()
            elif self._order.is_replaying:
                await asyncio.sleep(_LOOK_SECONDS)
            elif quiet_since == self._moves:
                try:
                    await asyncio.wrap_future(self._desk.submit(lambda: pause_on_open_waits(self._attempt)))
                except ExecutionStopped:
                    return
        self._pausing = None
