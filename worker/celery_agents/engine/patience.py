"""Patience with a server that does not answer: the loop that tries again, and what it tells of that."""

import logging
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

from agent_statestore.errors import StoreUnavailable

R = TypeVar("R")


class Outage:
    """Tells of one thing that is tried again: once when it begins to fail and once when it is over, not at every try.

    A try of `what` does something (it `failed`), and is repeated until something: these are the words of the log.
    """

    def __init__(
        self, log: logging.Logger, what: str, *, fault: str = "failed", until: str = "until it succeeds"
    ) -> None:
        self._log = log
        self._what = what
        self._fault = fault
        self._until = until
        self._began_at: float | None = None

    def failed(self, error: Exception) -> None:
        """A try failed."""
        if self._began_at is None:
            self._began_at = time.monotonic()
            self._log.warning("%s %s, trying again %s: %s", self._what, self._fault, self._until, error)

    def forget(self) -> None:
        """There is nothing to try any more, so nobody knows when it would succeed."""
        self._began_at = None

    def succeeded(self) -> None:
        """A try succeeded."""
        if self._began_at is not None:
            self._log.info("%s succeeded again, after %.1f s", self._what, time.monotonic() - self._began_at)
            self._began_at = None


def _raise(error: StoreUnavailable) -> NoReturn:
    raise error


def _never() -> bool:
    return False


def _go_on() -> None:
    pass


class Patience:
    """Tries something again while the store does not answer, after a wait that grows, up to a moment.

    The one such loop. `until` is that moment on this process's monotonic clock; `is_over` says that nobody wants the
    answer any more, which is the same. Then `give_up` is called with the last error, and raises. `between` is called
    after each wait, and may raise, too.
    """

    def __init__(
        self,
        outage: Outage,
        *,
        until: float,
        give_up: Callable[[StoreUnavailable], NoReturn] = _raise,
        is_over: Callable[[], bool] = _never,
        between: Callable[[], object] = _go_on,
        first_seconds: float = 0.05,
        longest_seconds: float = 2.0,
    ) -> None:
        self._outage = outage
        self._until = until
        self._give_up = give_up
        self._is_over = is_over
        self._between = between
        self._backoff_seconds = first_seconds
        self._longest_seconds = longest_seconds

    def ask(self, question: Callable[[], R]) -> R:
        """Return the answer. Raise what the question raises, except for `StoreUnavailable` before it is time."""
        while True:
            try:
                answer = question()
            except StoreUnavailable as error:
                self.wait(error)
            else:
                self.succeeded()
                return answer

    def wait(self, error: StoreUnavailable) -> None:
        """A try ended with this error: sleep before the next, longer each time, or give up."""
        self._outage.failed(error)
        remaining = self._until - time.monotonic()
        if remaining <= 0 or self._is_over():
            self._give_up(error)
        time.sleep(min(self._backoff_seconds, remaining))
        self._backoff_seconds = min(2 * self._backoff_seconds, self._longest_seconds)
        if self._is_over():
            self._give_up(error)
        self._between()

    def succeeded(self) -> None:
        """A try has succeeded."""
        self._outage.succeeded()
