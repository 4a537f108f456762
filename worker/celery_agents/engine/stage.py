"""What a host may put in the place of the world that an agent's code meets: the port that test kits fill.

A worker puts nothing there. Its attempts have no stage, and go by the store's clock.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol, TypeAlias, TypeVar

from agent_statestore.records import AgentStep, Claim
from celery_agents.engine.course import Course
from celery_agents.errors import JournalMismatch

R = TypeVar("R")


class Stage(Protocol):
    """The world of one claim. What any method raises is raised in the agent's code, which is at that point then."""

    def now(self) -> datetime:
        """Return the time."""
        ...

    def come_to_step(self) -> None:
        """The code has come to a step, a question, or anything else that is durable."""
        ...

    def looked_up(self, key: str, recorded: AgentStep | None) -> None:
        """The journal was asked for the step of this key."""
        ...

    def contradicted(self, mismatch: JournalMismatch) -> None:
        """The code contradicts what is recorded; this is about to be raised."""
        ...

    def stand_in(self, name: str, tool: str | None) -> Callable[..., Any] | None:
        """Return what is called instead of the function of a step, or of a tool; None for the function itself."""
        ...

    def call(self, key: str, function: Callable[[], R]) -> R:
        """Call the function of a step, or the one that looks whether it has happened."""
        ...


SetStage: TypeAlias = Callable[[Claim, Course], Stage]
