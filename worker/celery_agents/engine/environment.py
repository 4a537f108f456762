"""What an attempt needs from the process that it runs in."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery_agents.define.long_term_memory import LongTermMemory
from celery_agents.engine.relatives import Relatives


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What an attempt needs from the process that it runs in.

    `relatives` starts children. `max_attempts` and `max_retries` are how many claims without a recorded step in
    between, and how many retries, the execution may have. `inline_wait_seconds` is the longest retry delay that is
    slept in place; a longer one pauses the execution and frees the worker's slot. `names` gives what the
    agent's code can name. `memory` is what the agent has of the time before the execution.
    """

    relatives: Relatives
    max_attempts: int
    max_retries: int
    inline_wait_seconds: float
    jitter: random.Random
    names: Callable[[], Mapping[str, Any]] = dict
    memory: LongTermMemory | None = None
