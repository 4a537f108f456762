"""Waiting for changes of one execution."""

import time
from types import TracebackType
from typing import Final, Protocol, Self

_FIRST_INTERVAL_SECONDS: Final = 0.02
_MAX_INTERVAL_SECONDS: Final = 0.5
_GROWTH: Final = 1.5


class Watch(Protocol):
    """Waits for changes of one execution, from its creation to `close`. For one thread."""

    def wait(self, timeout_seconds: float) -> bool:
        """Return as soon as something may have changed since the last call (True), or after the timeout (False).

        Raise `StoreUnavailable`; the watch may be used on.
        """
        ...

    def progress(self) -> None:
        """Note that something did change, so that the next change may come soon."""
        ...

    def close(self) -> None:
        """Free what it holds. Closing twice is harmless."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class PollingWatch:
    """Says "something may have changed" at growing intervals, of up to half a second."""

    def __init__(self) -> None:
        self._interval_seconds = _FIRST_INTERVAL_SECONDS

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep until the next look, or the timeout; see `Watch`."""
        interval_seconds = self.next_interval_seconds()
        time.sleep(max(min(interval_seconds, timeout_seconds), 0.0))
        return interval_seconds <= timeout_seconds

    def next_interval_seconds(self) -> float:
        """Return how long to sleep now, for callers that sleep in another way than `wait`."""
        interval_seconds = self._interval_seconds
        self._interval_seconds = min(interval_seconds * _GROWTH, _MAX_INTERVAL_SECONDS)
        return interval_seconds

    def progress(self) -> None:
        """Look at short intervals again; see `Watch`."""
        self._interval_seconds = _FIRST_INTERVAL_SECONDS

    def close(self) -> None:
        """Do nothing: it holds nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
