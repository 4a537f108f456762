"""Durable timers: `run.sleep`, and the waits between tries."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from statestore.records import Action, Result, Wait, WaitKind
from statestore.states import AgentState
from worker.engine.attempt import Attempt

# How soon a delay that is slept in place notices that the process shuts down.
_LOOK_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """A sleep as the code asks for it: for a while, or until a moment."""

    name: str
    delay: timedelta | None = None
    until: datetime | None = None

    @classmethod
    def of(cls, name: str, delay: timedelta | float) -> "Sleep":
        """A sleep for a while; a number is in seconds."""
        return cls(name=name, delay=delay if isinstance(delay, timedelta) else timedelta(seconds=delay))

    def take(self, attempt: Attempt, key: str) -> None:
        """Returns when the time has come; a longer sleep unwinds the agent, and costs nothing meanwhile."""
        recorded = attempt.look_up(key, Action(kind="sleep"))
        if recorded is not None and recorded.result is not None:
            return
        waiting = attempt.waiting
        if waiting is not None and waiting.kind is WaitKind.TIMER and waiting.key == key and waiting.wake_at:
            since, wake_at = waiting.asked_at, waiting.wake_at
        else:
            since = attempt.now()
            wake_at = self.until or since + (self.delay or timedelta(0))
        attempt.enter_boundary()
        if sleep_in_place(attempt, wake_at - attempt.now()) is not None:
            attempt.enter_wait()
            attempt.pause(AgentState.WAITING, Wait(kind=WaitKind.TIMER, key=key, asked_at=since, wake_at=wake_at))
        with attempt.lock:
            result = Result(success=True)
            attempt.record(attempt.make_step(key, Action(kind="sleep"), result, started=since))


def sleep_in_place(attempt: Attempt, delay: timedelta) -> timedelta | None:
    """Sleeps if that is short; returns what is left to wait otherwise, also when the attempt is to end meanwhile.

    Stops at a boundary if the lease is lost or a cancel is asked for.
    """
    remaining = delay.total_seconds()
    if remaining > attempt.surroundings.inline_wait_seconds:
        return delay
    wait_until = time.monotonic() + remaining
    while (remaining := wait_until - time.monotonic()) > 0:
        if attempt.surroundings.is_draining() or attempt.is_stopping:
            return timedelta(seconds=remaining)
        attempt.held.wait(min(remaining, _LOOK_SECONDS))
        if attempt.held.is_lost or attempt.held.cancel_requested:
            attempt.enter_boundary()
    attempt.enter_boundary()
    return None
