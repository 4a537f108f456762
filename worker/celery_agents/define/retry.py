"""The policy for retries: which failed steps are tried again, and after how long."""

import random
from dataclasses import dataclass
from datetime import timedelta

from celery_agents.errors import AgentsError, RegistrationError, StepTimeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).

    `retries` counts the tries after the first; `retry_on` lists the exception classes worth another try. The n-th retry
    waits between half and all of min(`first_delay` * 2**(n-1), `max_delay`). It never waits zero, so that a struggling
    service gets its pause, and never in step with the other executions that the service failed.
    """

    retries: int = 0
    retry_on: tuple[type[Exception], ...] = (Exception,)
    first_delay: timedelta = timedelta(seconds=1)
    max_delay: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise RegistrationError("retries", f"needs a number of at least 0, not {self.retries!r:.80}")
        for name, delay in (("first_delay", self.first_delay), ("max_delay", self.max_delay)):
            if not isinstance(delay, timedelta) or delay < timedelta(0):
                raise RegistrationError(name, f"needs a duration, a timedelta, not {delay!r:.80}")
        if not isinstance(self.retry_on, tuple) or not all(
            isinstance(kind, type) and issubclass(kind, Exception) for kind in self.retry_on
        ):
            raise RegistrationError(
                "retry_on", f"needs a tuple of exception classes, such as (OSError,), not {self.retry_on!r:.80}"
            )

    def allows(self, error: BaseException, tries: int) -> bool:
        """Return whether a step that failed with `error` at its `tries`-th try gets another try.

        The engine's own errors (a result that is not JSON, say) never do: they would only repeat themselves.
        """
        may_differ = not isinstance(error, AgentsError) or isinstance(error, StepTimeout)
        return tries <= self.retries and may_differ and isinstance(error, self.retry_on)

    def delay_seconds(self, tries: int, jitter: random.Random) -> float:
        """Return how long to wait after the `tries`-th try."""
        full = min(self.first_delay.total_seconds() * 2.0 ** min(tries - 1, 60), self.max_delay.total_seconds())
        return full * jitter.uniform(0.5, 1.0)


NO_RETRY = Retry()
