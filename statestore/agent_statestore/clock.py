"""The clock whose time counts.

A store without an injected clock uses its server's own (Redis `TIME`, the database's clock), so that skew between hosts
does not matter. An injected clock replaces it, so that a test makes a lease run out without waiting for it. Inside the
stores, time is an integer count of microseconds since the Unix epoch.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Tells the time."""

    def now_us(self) -> int:
        """Return the microseconds since the Unix epoch."""
        ...


class SystemClock:
    """This host's clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1000


class ManualClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now_us = to_us(start)

    def now_us(self) -> int:
        return self._now_us

    def advance(self, by: timedelta) -> None:
        """Move the time on by `by`."""
        self._now_us += duration_us(by)


def left_to_the_server() -> None:
    """Stand for the time of a server's own clock, which a statement reads itself."""


def to_us(moment: datetime) -> int:
    """Return an aware datetime as microseconds since the epoch."""
    return (moment - EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """Return microseconds since the epoch as an aware datetime in UTC."""
    return EPOCH + timedelta(0, 0, us)


def duration_us(duration: timedelta) -> int:
    """Return a duration in whole microseconds."""
    return duration // _MICROSECOND
