"""What an attempt needs from the process that it runs in."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from celery_agents.engine.events import Event
from celery_agents.engine.limits import Budget
from celery_agents.engine.relatives import Relatives


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What an attempt needs from the process that it runs in.

    `relatives` starts children.

    `inline_wait_seconds` is the longest retry delay that is slept in place; a longer one pauses the execution and
    frees the worker's slot. `interrupts` are exceptions that come from outside into a step (a time limit): they end the
    attempt, and say nothing about the step. `announce_within` is how long the host has to tell of an end before a
    sweeper rings for it.
    """

    is_draining: Callable[[], bool]
    publish: Callable[[Event], None]
    max_attempts: int
    max_retries: int
    relatives: Relatives
    inline_wait_seconds: float
    budget: Budget
    jitter: random.Random
    announce_within: timedelta | None = None
    interrupts: tuple[type[BaseException], ...] = ()
