"""What a sender may do: the hook for an application's own rule."""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

from agent_statestore.records import ExecutionSummary


class Act(StrEnum):
    """What somebody wants to do with an execution."""

    LOOK = "look"
    ANSWER = "answer"
    APPROVE = "approve"
    REJECT = "reject"
    SEND_EVENT = "send_event"
    CANCEL = "cancel"


# Called with the sender's name, the act and the execution; False refuses with 403.
Permit: TypeAlias = Callable[[str, Act, ExecutionSummary], bool]
