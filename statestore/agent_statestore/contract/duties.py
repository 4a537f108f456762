"""What a store does beside executions: documents, and duties.

A duty is what one process does for all that use a store, while the others wait in case it dies.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import timedelta

from agent_statestore.documents.contract import DocumentStore
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import require_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """Who has a duty, and for how long from now if it is not taken again."""

    owner: str
    left: timedelta


class DutyPrimitives(ABC):
    """The part of the contract that is about no execution."""

    @property
    @abstractmethod
    def documents(self) -> DocumentStore:
        """What the store keeps beside executions: see `agent_statestore.documents`. `clear` and `tidy` count for them.

        `clear` removes them all, and `tidy` those that have expired.
        """

    @abstractmethod
    def take_duty(self, duty: str, owner: str, ttl: timedelta, *, instead: bool = False) -> Duty:
        """Take a duty, or keep it, for `ttl` from now; return who has it then.

        A duty is a name; each has one owner at most. `owner` gets it if nobody has it any more, if `owner` has it
        already, and with `instead` in any case. Otherwise nothing changes, and the answer says who has it and how much
        time is left: such a look is cheap, as all who wait for the duty make it again and again. A `ttl` of 0 gives it
        up. `clear` makes all duties free.

        Atomic for each duty; repeating is safe. A duty fences nothing: its owner may be late and not know that another
        one has it. So it is only for work that is harmless when two do it at once. Raise `InvalidRecord` for a name or
        owner that is none, or a negative `ttl`.
        """


def check_duty(duty: str, owner: str, ttl: timedelta) -> None:
    """Raise `InvalidRecord` for what `take_duty` refuses."""
    require_name("duty", duty)
    require_name("owner", owner)
    if not isinstance(ttl, timedelta) or ttl < timedelta(0):
        raise InvalidRecord("ttl", f"needs a duration that is not negative, not {ttl!r}")
