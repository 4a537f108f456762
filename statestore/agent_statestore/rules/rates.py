"""How often something may start, whoever asks: the line that `StorePrimitives.take_rate` keeps for each bucket.

Turns are evenly spaced, as Celery's rate limit spaces them: "10/m" is one every six seconds, so that no minute has more
than ten. This is the virtual scheduling algorithm of ATM traffic control (ITU-T I.371, "GCRA") without a burst, and
with a second number for callers that were told to come back.
"""

from datetime import timedelta
from typing import Final, NamedTuple

from agent_statestore.clock import duration_us
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import Turn, require_name

# A longer line is not kept, so that a line whose members are all cancelled does not hold up others for ever. A caller
# that finds the line this long is told to ask anew after this time.
LONGEST_LINE: Final = timedelta(hours=1)


class BucketState(NamedTuple):
    """A bucket's state in microseconds since the epoch: the earliest time of the next turn, and the end of the line."""

    next_us: int
    end_us: int


class Asked(NamedTuple):
    """One question to a bucket in whole microseconds, checked."""

    interval_us: int
    longest_us: int
    within_us: int
    promised: bool

    @property
    def farthest_us(self) -> int:
        """The distance beyond which a time came from a clock that has been set back since, and is forgotten.

        Otherwise nothing would start until the clock is there again.
        """
        return 2 * self.longest_us + self.within_us

    def wait_us(self, turn: Turn) -> int:
        """Return how long an answer makes its caller wait."""
        return duration_us(turn.wait)

    def answer(self, line: BucketState | None, now_us: int) -> tuple[BucketState, Turn]:
        """Return the line after this question, and the answer. The backends that decide elsewhere do exactly this."""
        next_us, end_us = line or (0, 0)
        if max(next_us, end_us) - now_us > self.farthest_us:
            next_us, end_us = 0, 0
        soonest_us = max(now_us, next_us)
        if soonest_us - now_us <= self.within_us and (self.promised or end_us <= soonest_us):
            return BucketState(soonest_us + self.interval_us, end_us), turn_of(soonest_us - now_us, "taken")
        promised_us = max(soonest_us, end_us)
        if promised_us - now_us > self.longest_us:
            return BucketState(next_us, end_us), turn_of(self.longest_us, "none")
        return BucketState(next_us, promised_us + self.interval_us), turn_of(promised_us - now_us, "promised")


def asked(bucket: str, limit: int, per: timedelta, within: timedelta, promised: bool) -> Asked:
    """Return the question in microseconds. Raise `InvalidRecord`."""
    require_name("bucket", bucket)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidRecord("limit", f"needs a whole number of at least 1, not {limit!r}")
    if not isinstance(per, timedelta) or per <= timedelta(0):
        raise InvalidRecord("per", f"needs a positive duration, not {per!r}")
    if not isinstance(within, timedelta) or within < timedelta(0):
        raise InvalidRecord("within", f"needs a duration that is not negative, not {within!r}")
    # Rounded up: never more than the limit.
    interval_us = -(-duration_us(per) // limit)
    return Asked(interval_us, max(duration_us(LONGEST_LINE), interval_us), duration_us(within), bool(promised))


def turn_of(wait_us: int, kind: str) -> Turn:
    """Return the answer for the kind "taken", "promised" or "none"."""
    wait = timedelta(microseconds=max(wait_us, 0))
    return Turn(wait=wait, is_taken=kind == "taken", is_promised=kind == "promised")
