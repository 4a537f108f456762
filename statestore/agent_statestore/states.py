"""The states of an execution and the transitions between them, declared once; and the kinds of what moves it.

Every backend checks `TRANSITIONS` on every write, inside the same atomic operation that applies the write.
"""

from enum import StrEnum
from typing import Final


class AgentState(StrEnum):
    """Where an execution stands.

    `IDLE` is queued and never claimed. The three `WAITING*` states are paused: no worker slot is held. The last three
    are over.
    """

    IDLE = "idle"
    THINKING = "thinking"
    USING_TOOL = "using_tool"
    WAITING_FOR_INPUT = "waiting_for_input"
    WAITING_FOR_APPROVAL = "waiting_for_approval"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """True for completed, failed and cancelled."""
        return self in OVER

    @property
    def is_paused(self) -> bool:
        """True while the execution waits for a person, a timer, an event or a child."""
        return self in PAUSED


PAUSED: Final = frozenset({AgentState.WAITING_FOR_INPUT, AgentState.WAITING_FOR_APPROVAL, AgentState.WAITING})
OVER: Final = frozenset({AgentState.COMPLETED, AgentState.FAILED, AgentState.CANCELLED})
ACTIVE: Final = frozenset(AgentState) - OVER

WORKING: Final = frozenset({AgentState.THINKING, AgentState.USING_TOOL})

# For each state, the states that a write may move it to. A state may always be written over itself while the execution
# is active. Nothing leads back to IDLE except the release of a dead letter; COMPLETED and CANCELLED are final.
TRANSITIONS: Final[dict[AgentState, frozenset[AgentState]]] = {
    **{state: ACTIVE - {AgentState.IDLE} | OVER for state in WORKING | PAUSED},
    AgentState.IDLE: ACTIVE | OVER,
    AgentState.COMPLETED: frozenset(),
    AgentState.FAILED: frozenset({AgentState.IDLE}),
    AgentState.CANCELLED: frozenset(),
}


def may_move(current: AgentState, new: AgentState) -> bool:
    """Return whether a write may move an execution from `current` to `new`."""
    return new in TRANSITIONS[current]


def sources_of(new: AgentState) -> frozenset[AgentState]:
    """Return the states from which `new` may be reached, as a backend needs them for a conditional write."""
    return frozenset(state for state in AgentState if may_move(state, new))


class WaitKind(StrEnum):
    """What a paused execution waits for."""

    INPUT = "input"
    APPROVAL = "approval"
    TIMER = "timer"
    EVENT = "event"
    CHILD = "child"


class AuditEvent(StrEnum):
    """What an entry of the audit trail records.

    `CREATED`: the execution was created. `CLAIMED`: a worker took it. `MOVED`: a write changed its state. `DECIDED`: a
    person's answer, approval or cancel was accepted. `RECEIVED`: an event of a named sender was accepted. `DELETED`: it
    was deleted (and not yet purged).
    """

    CREATED = "created"
    CLAIMED = "claimed"
    MOVED = "moved"
    DECIDED = "decided"
    RECEIVED = "received"
    DELETED = "deleted"


class SignalKind(StrEnum):
    """The kinds of signals that an execution's mailbox takes."""

    ANSWER = "answer"
    APPROVAL = "approval"
    EVENT = "event"
    CHILD = "child"
    CANCEL = "cancel"
    SAY = "say"


class SayMode(StrEnum):
    """When an execution takes in what somebody says to it; the key of such a signal.

    `NEXT_TURN`: before the next call of its model, when the calls of tools that were decided are done. `NEXT_BOUNDARY`:
    before its next step. `INTERRUPT`: the call of a model that is in flight is ended for it.
    """

    NEXT_TURN = "next_turn"
    NEXT_BOUNDARY = "next_boundary"
    INTERRUPT = "interrupt"
