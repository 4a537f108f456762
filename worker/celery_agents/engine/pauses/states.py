"""The state of an execution that waits, by what it waits for."""

from typing import Final

from agent_statestore.records import WaitKind
from agent_statestore.states import AgentState

STATE_OF_WAIT: Final = {
    WaitKind.INPUT: AgentState.WAITING_FOR_INPUT,
    WaitKind.APPROVAL: AgentState.WAITING_FOR_APPROVAL,
    WaitKind.TIMER: AgentState.WAITING,
    WaitKind.EVENT: AgentState.WAITING,
    WaitKind.CHILD: AgentState.WAITING,
}
