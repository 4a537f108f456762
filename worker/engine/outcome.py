"""How the work on one claim ends, and the exception that unwinds an agent's stack before its function returns."""

from dataclasses import dataclass
from enum import StrEnum

from statestore.records import JSONValue, Wait


class Ending(StrEnum):
    """How the work on one claim ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    DRAINED = "drained"  # this process shuts down: the lease was given back, another one goes on
    UNKNOWN = "unknown"  # this process does not know the agent: the lease was given back
    LOST = "lost"  # the lease is gone: nothing may be written, a successor has the execution


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of the work on one claim.

    `ring` says that the execution can go on at once elsewhere, so that its bell should be rung. `token` is the fencing
    token of the claim.
    """

    ending: Ending
    output: JSONValue = None
    error: Exception | None = None
    waiting: Wait | None = None
    ring: bool = False
    token: int = 0


class ExecutionStopped(BaseException):
    """Unwinds the agent's stack. Derived from BaseException, so that an agent's `except Exception` lets it pass."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome
