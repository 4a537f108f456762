"""What is asked of who decides on an approval that not anybody may decide alone."""

from collections.abc import Sequence

from agent_statestore.errors import AlreadyAnswered
from agent_statestore.records import Wait, vote_key
from celery_agents.errors import AgentsError


class NotAnApprover(AgentsError):
    """Somebody wants to decide on an approval that others are asked for. `approvers` are their names."""

    def __init__(self, key: str, sender: str | None, approvers: Sequence[str]) -> None:
        super().__init__(key, sender, list(approvers))
        self.key = key
        self.sender = sender
        self.approvers = list(approvers)

    def __str__(self) -> str:
        who = "who gives no name" if self.sender is None else f"{self.sender!r}"
        return f'"{self.key}" is for {", ".join(self.approvers)} to decide, not for {who}'


def key_of_decision(execution_id: str, asked: Wait, sender: str | None) -> str:
    """Return the key of the signal by which a sender decides.

    Raise `NotAnApprover`, and `AlreadyAnswered` for a sender who has voted.
    """
    prompt = asked.prompt if isinstance(asked.prompt, dict) else {}
    approvers = prompt.get("approvers")
    if not approvers:
        return asked.key
    if sender not in approvers:
        raise NotAnApprover(asked.key, sender, approvers)
    if sender not in asked.voters:
        raise AlreadyAnswered(execution_id, asked.key)
    return vote_key(asked.key, sender)
