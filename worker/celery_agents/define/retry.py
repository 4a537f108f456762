"""The policy for retries: which failed steps are tried again, and after how long."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from celery_agents.define.model_errors import is_passing, seconds_to_wait
from celery_agents.errors import AgentsError, RegistrationError, StepTimeout

_LONGEST_DELAY_SECONDS: Final = timedelta(days=30).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).

    `retries` counts the tries after the first; `retry_on` lists the exception classes worth another try. The n-th retry
    waits between half and all of min(`first_delay` * 2**(n-1), `max_delay`). It never waits zero, so that a struggling
    service gets its pause, and never in step with the other executions that the service failed.

    `retry_if`, if given, is asked of an error of these classes, and says whether another try may help. `delay_of` says
    how long the error itself wants to be waited for (a `retry-after` of a service): in seconds, as a `timedelta`, or
    None for the delay above. Neither is called again after a crash. What they raise fails the step in the error's
    place.
    """

    retries: int = 0
    retry_on: tuple[type[Exception], ...] = (Exception,)
    first_delay: timedelta = timedelta(seconds=1)
    max_delay: timedelta = timedelta(minutes=5)
    retry_if: Callable[[Any], bool] | None = None
    delay_of: Callable[[Any], float | timedelta | None] | None = None

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
        for name, function in (("retry_if", self.retry_if), ("delay_of", self.delay_of)):
            if function is not None and not callable(function):
                raise RegistrationError(name, f"needs a function of the error, not {function!r:.80}")

    @classmethod
    def for_models(cls, retries: int = 8) -> "Retry":
        """Return the policy for requests to models, which the integrations with frameworks have by default.

        Again after a failure of the network, a 429, 408, 409, or a 5xx, when the service's `retry-after` says so; never
        after another 4xx, such as a 400 for a context that is too long. Turn off the retries of the client itself
        (`max_retries=0`), which hold the slot while they wait.
        """
        return cls(
            retries=retries,
            first_delay=timedelta(seconds=1),
            max_delay=timedelta(minutes=2),
            retry_if=is_passing,
            delay_of=seconds_to_wait,
        )

    def allows(self, error: BaseException, tries: int) -> bool:
        """Return whether a step that failed with `error` at its `tries`-th try gets another try.

        The engine's own errors (a result that is not JSON, say) never do: they would only repeat themselves.
        """
        may_differ = not isinstance(error, AgentsError) or isinstance(error, StepTimeout)
        may_be_retried = tries <= self.retries and may_differ and isinstance(error, self.retry_on)
        return may_be_retried and (self.retry_if is None or bool(self.retry_if(error)))

    def delay_seconds(self, tries: int, jitter: random.Random, error: BaseException | None = None) -> float:
        """Return how long to wait after the `tries`-th try, which failed with `error`."""
        wanted = None if self.delay_of is None or error is None else self.delay_of(error)
        if wanted is not None:
            seconds = wanted.total_seconds() if isinstance(wanted, timedelta) else float(wanted)
            if not 0 <= seconds <= _LONGEST_DELAY_SECONDS:
                raise ValueError(f"delay_of needs a delay of 0 s to {_LONGEST_DELAY_SECONDS:.0f} s, not {wanted!r:.80}")
            # A little later than all others that were told the same moment.
            return seconds + jitter.uniform(0, min(seconds * 0.1, 1.0))
        full = min(self.first_delay.total_seconds() * 2.0 ** min(tries - 1, 60), self.max_delay.total_seconds())
        return full * jitter.uniform(0.5, 1.0)


NO_RETRY = Retry()
