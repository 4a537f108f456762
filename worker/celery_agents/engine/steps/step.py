"""A durable step as the code asks for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent_statestore.records import Action
from celery_agents.define import types
from celery_agents.define.crash_policy import CrashPolicy
from celery_agents.define.retry import Retry
from celery_agents.engine.steps.work import Try, Work


# Not frozen, as one is made for every step, and a frozen one takes several times as long.
@dataclass(slots=True, kw_only=True)
class Step:
    """A step as the code asks for it.

    `returns` is the type of its result. `crash_policy` says what is done about a call during which the process died,
    and `reconcile` is its function, if it has one.
    """

    name: str
    action: Action
    work: Work
    returns: types.Adapter
    retry: Retry
    crash_policy: CrashPolicy = CrashPolicy.RETRY
    reconcile: Callable[[Try], Any] | None = None
