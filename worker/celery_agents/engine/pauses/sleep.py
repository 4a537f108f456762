"""Durable timers: `run.sleep`, and the waits between tries."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import Action, Result, Wait, WaitKind, require_ringable
from agent_statestore.states import AgentState
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.pauses.limit import enter_wait
from celery_agents.engine.pauses.pause import pause
from celery_agents.engine.pauses.signal import Standing, began
from celery_agents.engine.pauses.wait import conclude

# How soon a delay that is slept in place notices that the process shuts down.
_LOOK_SECONDS: Final = 0.25
_ACTION: Final = Action(kind="sleep")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
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

    def take(self, attempt: Attempt, key: str) -> None:
        """Returns when the time has come; a longer sleep unwinds the agent, and costs nothing meanwhile."""
        recorded = attempt.journal.look_up(key, _ACTION)
        if recorded is not None and recorded.result is not None:
            return
        since = began(attempt, WaitKind.TIMER, key, key)
        enter_wait(attempt, standing=Standing(step=key, since=since))
        wake_at = self._wake_at(attempt, key, since)
        if sleep_in_place(attempt, wake_at - attempt.now()) is not None:
            pause(
                attempt,
                AgentState.WAITING,
                Wait(
                    kind=WaitKind.TIMER,
                    key=key,
                    prompt={"until": wake_at.isoformat()},
                    asked_at=since,
                    wake_at=wake_at,
                ),
            )
        conclude(attempt, key, _ACTION, Result(success=True), since)

    def _wake_at(self, attempt: Attempt, key: str, since: datetime) -> datetime:
        """The moment as it was recorded. `Wait.wake_at` is an earlier one where a deadline comes first."""
        waiting = attempt.recorder.waiting
        if waiting is not None and (waiting.kind, waiting.key) == (WaitKind.TIMER, key):
            return datetime.fromisoformat(waiting.prompt["until"])
        if self.until is not None:
            return self.until
        try:
            wake_at = since + (self.delay or timedelta(0))
        except OverflowError as error:
            raise InvalidRecord("sleep", f"{self.delay} is too long") from error
        require_ringable("sleep", wake_at)
        return wake_at


def sleep_in_place(attempt: Attempt, delay: timedelta) -> timedelta | None:
    """Sleeps if that is short; returns what is left to wait otherwise, also when the attempt is to end meanwhile.

    Stops at a boundary if the lease is lost or a cancel is asked for.
    """
    remaining = delay.total_seconds()
    if remaining > attempt.environment.inline_wait_seconds:
        return delay
    wait_until = time.monotonic() + remaining
    while (remaining := wait_until - time.monotonic()) > 0:
        if attempt.course.is_draining() or attempt.course.stopped is not None:
            return timedelta(seconds=remaining)
        attempt.held.wait(min(remaining, _LOOK_SECONDS))
        if attempt.held.is_lost or attempt.held.cancel_requested:
            attempt.course.enter_boundary()
    attempt.course.enter_boundary()
    return None
