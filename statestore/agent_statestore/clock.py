"""The clock whose time counts.

A store without an injected clock uses its server's own (Redis `TIME`, the database's clock), so that skew between hosts
does not matter. An injected clock replaces it, so that a test makes a lease run out without waiting for it. Inside the
stores, time is an integer count of microseconds since the Unix epoch.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from agent_statestore.errors import InvalidRecord

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


def since_us(moment: datetime | None) -> int:
    """Return a moment as `to_us` does; for None, a time before all others."""
    return 0 if moment is None else to_us(moment)


def to_us(moment: datetime) -> int:
    """Return an aware datetime as microseconds since the epoch."""
    return (moment - EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """Return microseconds since the epoch as an aware datetime in UTC."""
    return EPOCH + timedelta(0, 0, us)


def duration_us(duration: timedelta) -> int:
    """Return a duration in whole microseconds."""
    return duration // _MICROSECOND


# Redis keeps moments as doubles, which are exact up to 2^53 microseconds: June 2255.
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=2**53 - 1)
_LONGEST: Final = timedelta(days=36_500)


def require_aware(name: str, moment: object) -> None:
    """Raise `InvalidRecord` for anything but a datetime, and for a datetime without a time zone."""
    if moment is None or (type(moment) is datetime and moment.tzinfo is UTC):
        return
    if not isinstance(moment, datetime):
        raise InvalidRecord(name, f"needs a datetime, not {moment!r:.80}")
    if moment.utcoffset() is None:
        raise InvalidRecord(name, "a datetime needs a time zone")


def require_ringable(name: str, moment: datetime | None) -> None:
    """Raise `InvalidRecord` for a moment at which no bell can be rung: without a time zone, or from June 2255 on."""
    require_aware(name, moment)
    if moment is not None and moment >= _NEVER:
        raise InvalidRecord(name, f"needs a moment before {_NEVER:%Y-%m-%d}")


def require_delay(name: str, delay: timedelta | None) -> None:
    """Raise `InvalidRecord` for a delay after which no bell can be rung: one of more than a hundred years."""
    if delay is not None and delay > _LONGEST:
        raise InvalidRecord(name, f"needs at most {_LONGEST.days} days")
