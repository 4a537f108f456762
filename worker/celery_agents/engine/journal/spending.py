"""What an execution has spent: by its steps, which have it in their records, and by the agent's code between them."""

from collections.abc import Mapping

from agent_statestore.records import AgentContext
from celery_agents.engine.journal.memory import SPENT_KEY

Spent = Mapping[str, float]


def added(*parts: Spent) -> dict[str, float]:
    """Return the sums by name."""
    sums: dict[str, float] = {}
    for part in parts:
        for name, amount in [*part.items()]:  # as other threads may spend meanwhile
            sums[name] = sums.get(name, 0) + amount
    return sums


def spent_in(context: AgentContext) -> dict[str, float]:
    """Return what an execution has spent by now, by name: `tokens` and `cost`, as far as there was any."""
    by_code = context.memory.working_memory.get(SPENT_KEY, {})
    sums = added(by_code, *[step.spent for step in context.steps if step.spent])
    return {name: amount for name, amount in sums.items() if amount}
