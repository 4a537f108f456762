"""What one execution may use: steps, time, tokens, cost."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The limits of one execution; None is no limit.

    `deadline` is how long it may take from its creation, pauses included. With `ask` a limit that is reached pauses the
    execution, and a person may raise it; otherwise the execution fails.
    """

    max_steps: int
    deadline: timedelta | None = None
    max_tokens: float | None = None
    max_cost: float | None = None
    ask: bool = False
