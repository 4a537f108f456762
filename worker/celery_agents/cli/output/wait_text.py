"""What happens at the moment that a wait names. Knows nothing of rich."""

from typing import Final

from agent_statestore.records import Wait, WaitKind
from celery_agents.lifecycle.turns.gate import RATE_KEY
from celery_agents.lifecycle.turns.line import TURN_KEY

_TURNS: Final = ((WaitKind.EVENT, TURN_KEY), (WaitKind.TIMER, RATE_KEY))


def is_only_a_look(waiting: Wait) -> bool:
    """Return whether the execution merely looks again at the moment that the wait names, and most often waits on.

    So it is with children, jobs and turns: what they wait for is told, and a look is for what nobody told of.
    """
    if (
        waiting.kind in (WaitKind.TIMER, WaitKind.EVENT)
        and isinstance(waiting.prompt, dict)
        and "job" in waiting.prompt
    ):
        return True
    return waiting.kind is WaitKind.CHILD or (waiting.kind, waiting.key) in _TURNS
