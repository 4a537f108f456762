"""What a sender may do: the hook for an application's own rule."""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias

from agent_statestore.errors import ExecutionNotFound
from agent_statestore.records import ExecutionSummary


class Act(StrEnum):
    """What somebody wants to do with an execution.

    `LOOK` shows its state and what it waits for; `READ` shows its contents: steps with inputs and outputs, events.
    `START` is asked about an execution that does not exist yet: its `execution_id` is "".
    """

    LOOK = "look"
    READ = "read"
    START = "start"
    ANSWER = "answer"
    APPROVE = "approve"
    REJECT = "reject"
    SEND_EVENT = "send_event"
    SAY = "say"
    CANCEL = "cancel"
    FORK = "fork"
    REWIND = "rewind"


# Called with the sender's name, the act and the execution. False refuses: with 404, as if there were no such execution,
# unless the sender may look at it; then with 403.
Permit: TypeAlias = Callable[[str, Act, ExecutionSummary], bool]


def is_own(sender: str, act: Act, summary: ExecutionSummary) -> bool:
    """Return whether the execution is the sender's: its `user_id` is the sender's name. This is the default rule.

    An execution without a `user_id` is nobody's.
    """
    del act
    return summary.user_id is not None and summary.user_id == sender


def is_permitted(permit: Permit, sender: str, act: Act, summary: ExecutionSummary) -> bool:
    """Return whether the sender may do this. Raise `ExecutionNotFound` if the sender may not even look.

    Otherwise a refusal would tell which executions there are.
    """
    if permit(sender, act, summary):
        return True
    if act is Act.LOOK or not permit(sender, Act.LOOK, summary):
        raise ExecutionNotFound(summary.execution_id)
    return False
