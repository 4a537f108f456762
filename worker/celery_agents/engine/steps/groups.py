"""Groups: steps that take steps themselves, and are recorded when those are.

The function of a group is a part of the agent's code: it is led through the journal again after a crash, up to where
the last attempt died. When it has ended, its result is recorded as that of one step, and from then on the function is
not called again; the code passes by the steps that it has taken.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from celery_agents.define.crash_policy import CrashPolicy
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.steps.call import Call, CallOptions, Place
from celery_agents.engine.steps.taking import ReachedStep
from celery_agents.engine.steps.work import PlainWork, Try
from celery_agents.errors import JournalMismatch, LimitExceeded

# What the engine says of the execution, and no result of the group's: recorded, it would stand for good.
_OF_THE_EXECUTION: Final = (JournalMismatch, LimitExceeded)


def take(attempt: Attempt, call: Call, options: CallOptions) -> Any:
    """Return the result of a group of a plain agent: recorded, or made now and recorded before."""
    reached = Place.of(attempt, call).allowed(options)
    if reached.is_recorded:
        return reached.finish()
    called = Called.of(reached)
    if called.work.is_async:
        raise TypeError(f"group {call.name!r}: in a plain agent the function of a group is a plain one")
    with attempt.nesting.inside_group(reached.key):
        called.make()
    return called.record()


@dataclass(slots=True)
class Called:
    """A call of a group's function, and what came of it."""

    reached: ReachedStep
    work: PlainWork
    started: datetime
    value: Any = None
    error: Exception | None = None

    @classmethod
    def of(cls, reached: ReachedStep) -> "Called":
        """The call is about to be made. Raise `TypeError` for options that no group has."""
        step = reached.step
        if (
            not isinstance(step.work, PlainWork)
            or step.work.timeout is not None
            or step.retry.retries
            or step.crash_policy is not CrashPolicy.RETRY
        ):
            raise TypeError(f"group {step.name!r} has no retries, timeout or on_crash: the steps in it may have")
        reached.attempt.course.enter_boundary()
        return cls(reached, step.work, reached.attempt.now())

    def make(self) -> None:
        """Call the function of a plain agent's group."""
        self._keep(lambda: self.work.function(Try(self.reached.key, 1)))

    async def make_async(self) -> None:
        """Call and await the function of an async agent's group."""
        try:
            given = self.work.function(Try(self.reached.key, 1))
            self.value = await given if inspect.isawaitable(given) else given
        except Exception as error:  # noqa: BLE001 - judged there
            self._keep_error(error)

    def record(self) -> Any:
        """Record what came of the call as the step's result, and return it, or raise it."""
        reached, attempt = self.reached, self.reached.attempt
        with attempt.course.busy(reached.key):
            # The code may have caught what unwound it.
            attempt.course.check_goes_on()
            if self.error is None:
                attempt.journal.check_group_reached(reached.key)
            step = replace(reached.step, work=PlainWork(lambda _: self._outcome()))
            return replace(reached, step=step).finish_made(self.started)

    def _outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value

    def _keep(self, call: Callable[[], Any]) -> None:
        try:
            self.value = call()
        except Exception as error:  # noqa: BLE001 - judged there
            self._keep_error(error)

    def _keep_error(self, error: Exception) -> None:
        if isinstance(error, _OF_THE_EXECUTION) or self.reached.attempt.course.is_interrupt(error):
            raise error
        self.error = error
