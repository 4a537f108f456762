"""What the engine tells its subscribers: logs, monitors and metrics listen here; the engine knows none of them."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from agent_statestore.plain_text import line_logger
from agent_statestore.records import AgentContext, AgentStep, Wait
from agent_statestore.states import AgentState

log = line_logger(__name__)


class EventKind(StrEnum):
    """What happened.

    * `claimed`: a worker has claimed the execution; its agent's function is about to be called.
    * `state`: a step that is not recorded yet is about to be taken: a tool is used (`using_tool`), or another function
      is called (`thinking`).
    * `step_recorded`: the store has a step with its result, a failure too. `Event.step` is that step.
    * `ended`: the work on this claim has ended: over, paused, or left to another worker. `Event.ending` says which.
    """

    CLAIMED = "claimed"
    STATE = "state"
    STEP_RECORDED = "step_recorded"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to an execution under a claim.

    Subscribers (`install(app, subscribers=...)`) are called in the process that executes, in the thread that the event
    happened in, before the work goes on: one that is slow slows the execution. One that fails is logged and changes
    nothing. Steps taken beside each other are told from several threads, one after the other for each record. One
    that never blocks says so with a true attribute `is_quick`: of async steps it is told on the event loop, and in the
    thread that writes their records. Any other one makes async steps go a longer way.

    What is told was true, and what was recorded is in the store: `step_recorded` follows the store's confirmation. But
    events are not stored. A process that dies between the two tells nothing, and its successor does not tell of steps
    that it finds recorded, so counts that must be exact are made from the store (`Store.stats`).

    Attributes:
        kind: what happened.
        execution_id: of which execution.
        agent_id: of which agent.
        attempt: under which claim, from 1.
        state: the execution's state from now on.
        steps: how many steps are recorded by now.
        step: the step that was just recorded; its `duration`, `tries`, `action` and `result` say the rest.
        tool: the tool that is about to be used.
        waits: what the execution waits for, where it has paused: whatever comes first ends the pause.
        ending: how the work on this claim ended: "completed", "failed", "cancelled", "paused", "drained" (a shutdown;
            another claim goes on), "unknown" (this worker does not know the agent), "lost" (the lease is gone).
    """

    kind: EventKind
    execution_id: str
    agent_id: str
    attempt: int
    state: AgentState
    steps: int
    step: AgentStep | None = None
    tool: str | None = None
    waits: tuple[Wait, ...] = ()
    ending: str | None = None

    @property
    def waiting(self) -> Wait | None:
        """The first of `waits`; None if there are none."""
        return self.waits[0] if self.waits else None


Subscriber: TypeAlias = Callable[[Event], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcements:
    """Tells the subscribers what happens under one claim. `count` says how many steps are recorded by now."""

    context: AgentContext
    subscribers: tuple[Subscriber, ...]
    count: Callable[[], int]

    @property
    def are_quick(self) -> bool:
        """Whether all subscribers may be told in any thread, also on the event loop; see `Event`."""
        return all(getattr(subscriber, "is_quick", False) for subscriber in self.subscribers)

    def tell(
        self,
        kind: EventKind,
        state: AgentState,
        *,
        step: AgentStep | None = None,
        tool: str | None = None,
        waits: tuple[Wait, ...] = (),
        ending: str | None = None,
    ) -> None:
        """Tell every subscriber. One that fails is logged: watching an execution must not break it."""
        context = self.context
        event = Event(
            kind=kind,
            execution_id=context.execution_id,
            agent_id=context.agent_id,
            attempt=context.attempt,
            state=state,
            steps=self.count(),
            step=step,
            tool=tool,
            waits=waits,
            ending=ending,
        )
        for subscriber in self.subscribers:
            try:
                subscriber(event)
            except Exception:
                log.warning("subscriber %r failed on %s", subscriber, event.kind, exc_info=True)

    def tell_of_record(self, step: AgentStep) -> None:
        """A step was recorded."""
        self.tell(EventKind.STEP_RECORDED, AgentState.THINKING, step=step)
