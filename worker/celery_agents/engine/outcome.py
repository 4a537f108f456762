"""How the work on one claim ends, and the exception that unwinds an agent's stack before its function returns."""

from asyncio import CancelledError
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent_statestore.checkpoint import state_of
from agent_statestore.records import JSONValue, Wait
from agent_statestore.states import AgentState


class Ending(StrEnum):
    """How the work on one claim ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"
    DRAINED = "drained"  # stopped at a step boundary (a shutdown, say): the lease was given back, another claim goes on
    UNKNOWN = "unknown"  # this process does not know the agent: the lease was given back
    LOST = "lost"  # the lease is gone: nothing may be written, a successor has the execution


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of the work on one claim.

    `ring` says that the execution can go on at once elsewhere, so that its bell should be rung. `token` is the fencing
    token of the claim. `has_relatives` says that a parent, or children, are to be told of the end, and `is_settled`
    that nobody is: the store is done with it. `waits` is what a paused execution waits for.
    """

    ending: Ending
    output: JSONValue = None
    error: Exception | None = None
    waits: tuple[Wait, ...] = ()
    ring: bool = False
    token: int = 0
    has_relatives: bool = False
    is_settled: bool = False

    @property
    def waiting(self) -> Wait | None:
        """The first of `waits`; None if there are none."""
        return self.waits[0] if self.waits else None

    @property
    def state(self) -> AgentState:
        """The execution's state after the claim; still `thinking` where another one goes on."""
        if self.waits:
            return state_of(self.waits)
        return _OVER.get(self.ending, AgentState.THINKING)


_OVER: Final = {
    Ending.COMPLETED: AgentState.COMPLETED,
    Ending.FAILED: AgentState.FAILED,
    Ending.CANCELLED: AgentState.CANCELLED,
}


class ExecutionStopped(BaseException):
    """Unwinds the agent's stack. Derived from BaseException, so that an agent's `except Exception` lets it pass."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class ExecutionUnwound(CancelledError):
    """Unwinds a task of an async agent: the execution has paused, is cancelled, or goes on elsewhere.

    It is an `asyncio.CancelledError`, as every library that knows tasks takes that for their end and cleans up after.
    `except ExecutionUnwound` tells it from a cancel that comes from somewhere else, such as `asyncio.timeout`. Code
    that catches it changes nothing: the attempt has stopped, and its next call of the run raises this again. So clean
    up and raise it again.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome
