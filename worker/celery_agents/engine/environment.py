"""What an attempt needs from the process that it runs in."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from celery_agents.engine.events import Event
from celery_agents.engine.limits import Budget
from celery_agents.lifecycle.relatives import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an attempt needs from the process that it runs in.

    `inline_wait_seconds` is the longest retry delay that is slept in place; a longer one pauses the execution and
    frees the worker's slot. `interrupts` are exceptions that come from outside into a step (a time limit): they end the
    attempt, and say nothing about the step.
    """

    is_draining: Callable[[], bool]
    publish: Callable[[Event], None]
    max_attempts: int
    max_retries: int
    family: Family
    inline_wait_seconds: float
    budget: Budget
    jitter: random.Random
    interrupts: tuple[type[BaseException], ...] = ()
