"""What the engine tells its subscribers: logs, monitors and metrics listen here; the engine knows none of them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from agent_statestore.records import AgentStep, Wait
from agent_statestore.states import AgentState

log = logging.getLogger(__name__)


class EventKind(StrEnum):
    """What happened."""

    CLAIMED = "claimed"
    STATE = "state"
    STEP_RECORDED = "step_recorded"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to an execution under a claim.

    `steps` is how many steps are recorded by now; `step` the one just recorded; `tool` the tool in use; `ending` how
    the work on this claim ended.
    """

    kind: EventKind
    execution_id: str
    agent_id: str
    attempt: int
    state: AgentState
    steps: int
    step: AgentStep | None = None
    tool: str | None = None
    waiting: Wait | None = None
    ending: str | None = None


Subscriber = Callable[[Event], None]


def publish(subscribers: tuple[Subscriber, ...], event: Event) -> None:
    """Tells every subscriber. One that fails is logged: watching an execution must not break it."""
    for subscriber in subscribers:
        try:
            subscriber(event)
        except Exception:
            log.warning("subscriber %r failed on %s", subscriber, event.kind, exc_info=True)
