"""Durable timers: `run.sleep`, and the waits between tries."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import Action, Result, Wait, WaitKind, require_ringable
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.pauses.limit import enter_wait
from celery_agents.engine.pauses.open_wait import Awaited, Ended, OpenWait
from celery_agents.engine.pauses.signal import Standing

# How soon a delay that is slept in place notices that the process shuts down.
_LOOK_SECONDS: Final = 0.25
_ACTION: Final = Action(kind="sleep")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep(Awaited):
    """A sleep as the code asks for it: for a while, or until a moment."""

    name: str
    delay: timedelta | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        require_ringable("sleep_until", self.until)

    @classmethod
    def of(cls, name: str, delay: timedelta | float) -> "Sleep":
        """A sleep for a while; a number is in seconds. Raises `InvalidRecord` for what is none."""
        try:
            return cls(name=name, delay=delay if isinstance(delay, timedelta) else timedelta(seconds=delay))
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidRecord("sleep", f"needs a duration, not {delay!r:.80}") from error

    def open(self, attempt: Attempt, key: str) -> "OpenSleep":
        """The code has come to it: its place."""
        return OpenSleep(self, attempt, key)


class OpenSleep(OpenWait):
    """A sleep at its place. A longer one unwinds the agent, and costs nothing meanwhile."""

    kind = WaitKind.TIMER

    def __init__(self, sleep: Sleep, attempt: Attempt, key: str) -> None:
        super().__init__(attempt, key, _ACTION)
        self._sleep = sleep

    def look(self, *, is_alone: bool = True) -> Ended | Wait:
        """See `OpenWait`."""
        attempt, since = self.attempt, self.since
        enter_wait(attempt, standing=Standing(kind=self.kind, key=self.key, step=self.key, since=since))
        wake_at = self.wake_at
        left = wake_at - attempt.now()
        if left <= timedelta(0) or (is_alone and sleep_in_place(attempt, left, yields=True) is None):
            return Ended(result=Result(success=True), since=since)
        return Wait(
            kind=WaitKind.TIMER, key=self.key, prompt={"until": wake_at.isoformat()}, asked_at=since, wake_at=wake_at
        )

    @property
    def wake_at(self) -> datetime:
        """The moment as it was recorded. `Wait.wake_at` is an earlier one where a deadline comes first."""
        waiting = self.attempt.recorder.paused_on.find(self.kind, self.key)
        if waiting is not None:
            return datetime.fromisoformat(waiting.prompt["until"])
        if self._sleep.until is not None:
            return self._sleep.until
        try:
            wake_at = self.since + (self._sleep.delay or timedelta(0))
        except OverflowError as error:
            raise InvalidRecord("sleep", f"{self._sleep.delay} is too long") from error
        require_ringable("sleep", wake_at)
        return wake_at

    def value(self, result: Result) -> None:
        """A time has no value."""


def sleep_in_place(attempt: Attempt, delay: timedelta, *, yields: bool = False) -> timedelta | None:
    """Sleeps if that is short; returns what is left to wait otherwise, also when the attempt is to end meanwhile.

    `yields` says to end also when the attempt is to pause on what tasks beside this one wait for. Stops at a boundary
    if the lease is lost or a cancel is asked for.
    """
    remaining = delay.total_seconds()
    if remaining > attempt.environment.inline_wait_seconds:
        return delay
    wait_until = time.monotonic() + remaining
    while (remaining := wait_until - time.monotonic()) > 0:
        is_to_pause = yields and bool(attempt.course.open_waits)
        if is_to_pause or attempt.course.is_draining() or attempt.course.stopped is not None:
            return timedelta(seconds=remaining)
        attempt.held.wait(min(remaining, _LOOK_SECONDS))
        if attempt.held.is_lost or attempt.held.cancel_requested:
            attempt.course.enter_boundary()
    attempt.course.enter_boundary()
    return None
