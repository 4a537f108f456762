"""A wait at its place in the code's order: it is looked at until it has ended, and its end is recorded as a step.

One alone pauses the execution. Several are looked at together, see `engine.pauses.together`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from agent_statestore.records import Action, AgentStep, Result, Wait, WaitKind
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.pauses.pause import pause
from celery_agents.engine.pauses.rounds import FIRST, Round
from celery_agents.engine.pauses.signal import address, began
from celery_agents.engine.pauses.wait import conclude, end_of_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a wait has ended, before that is recorded: its result, since when it was waited, and in which round."""

    result: Result
    since: datetime
    asked: Round = FIRST


class Awaited:
    """Something to be waited for, as the code asks for it: a wait that has not begun."""

    __slots__ = ()

    def open(self, attempt: Attempt, key: str) -> "OpenWait":
        """The code has come to it: its place."""
        raise NotImplementedError

    def take(self, attempt: Attempt, key: str) -> Any:
        """Return what came of it; unwind the agent until then."""
        return self.open(attempt, key).take()


class OpenWait(ABC):
    """One wait of the code, at its place. `result` is what the journal has of it, or None.

    `key` is the key of its step, `address` the key of the wait: what a signal names.
    """

    kind: ClassVar[WaitKind]

    def __init__(
        self,
        attempt: Attempt,
        key: str,
        action: Action,
        *,
        address: str | None = None,
        timeout: timedelta | None = None,
    ) -> None:
        self.attempt = attempt
        self.key = key
        self.action = action
        self.address = key if address is None else address
        self.timeout = timeout
        self.recorded = attempt.journal.look_up(key, action)
        self.result = None if self.recorded is None else self.recorded.result
        self.asked = Round.of(self.recorded)
        self._since: datetime | None = None

    def take(self) -> Any:
        """Return what came of it; unwind the agent until then."""
        result = self.result
        if result is None:
            found = self.look()
            if isinstance(found, Wait):
                pause(self.attempt, found, step=self.key)
            result = self.conclude(found)
        return self.value(result)

    @abstractmethod
    def look(self, *, is_alone: bool = True) -> Ended | Wait:
        """Return how it has ended, or what the execution is to be paused on. A signal is taken with the next write.

        `is_alone` says that nothing is waited for beside it.
        """

    @abstractmethod
    def value(self, result: Result) -> Any:
        """Return what the code gets for this result, or raise."""

    @property
    def since(self) -> datetime:
        """When the execution first came to this wait."""
        if self._since is None:
            self._since = began(self.attempt, self.kind, self.address, self.key, self.asked)
        return self._since

    @property
    def wake_at(self) -> datetime | None:
        """When it ends if nothing comes. Raise `InvalidRecord` for an invalid timeout."""
        return end_of_time(self.timeout, self.since)

    def moment(self) -> datetime | None:
        """Return when what may end this wait came about; None if nothing has."""
        of = address(self.kind, self.address, self.asked)
        came = None if of is None else self.attempt.mailbox.moment(*of)
        if came is not None:
            return came
        wake_at = self.wake_at
        return wake_at if wake_at is not None and wake_at <= self.attempt.now() else None

    def discard(self) -> None:
        """Take what was sent for it: nobody waits for that any more."""
        of = address(self.kind, self.address, self.asked)
        if of is not None:
            self.attempt.mailbox.discard(*of)

    def conclude(self, ended: Ended) -> Result:
        """Record how it ended, and return what is recorded."""
        return conclude(self.attempt, self.key, self.action, ended.result, ended.since, ended.asked)

    def step(self, ended: Ended, number: int) -> AgentStep:
        """Return the record of its end."""
        step = self.attempt.recorder.make_step(self.key, self.action, ended.result, started=ended.since, number=number)
        return ended.asked.on(step)

    def begin_anew(self) -> None:
        """It is waited for from now on, as if the code had come here just now."""
        self.forget()
        self._since = None

    def forget(self) -> None:
        """Nobody waits for it any more."""
        self.attempt.recorder.paused_on.forget(self.kind, self.address, self.key)
