"""`spend`: counts for the step whose function calls it, or else for the agent's code."""

from agent_statestore.records import require_amount
from celery_agents.engine.attempt import Attempt
from celery_agents.misuse import SpentInVain


def spend(attempt: Attempt, key: str | None = None, *, tokens: float = 0, cost: float = 0) -> None:
    """Count what was used up. It is recorded with the step of this key, by default the one around the caller.

    In the agent's code it goes with the next checkpoint. Raise `InvalidRecord` for an invalid amount, and `SpentInVain`
    where it could not be recorded.
    """
    amounts = {"tokens": tokens, "cost": cost}
    for name, amount in amounts.items():
        require_amount(name, amount)
    nesting = attempt.nesting
    if key is None:
        key = nesting.step_around
        if key is not None and nesting.is_concurrent and nesting.step_of_context is None:
            raise SpentInVain(
                f"which of the steps {key!r} has spent this is not known: start the thread with a copy of the context "
                "(contextvars.copy_context().run), or use ToolContext.spend"
            )
        if key is None and (group := nesting.group) is not None:
            key = group.keys[-1]
    if key is None:
        attempt.memory.spend(**amounts)
    else:
        attempt.journal.spend(key, amounts)
