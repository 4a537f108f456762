"""Tests of agents: in the test's own process, without Celery, with a clock that the test moves, and with crashes.

`LocalAgents` runs executions; `replay` leads an agent's code through what was recorded of one in production. Works with
any test framework.
"""

from celery_agents.testing.agents import LocalAgents
from celery_agents.testing.crashes import Crash, PlannedCrash, When
from celery_agents.testing.execution import LocalExecution
from celery_agents.testing.installed import InstalledAgents
from celery_agents.testing.plans import PlanNotReached
from celery_agents.testing.replayed import Replayed, replay

__all__ = [
    "Crash",
    "InstalledAgents",
    "LocalAgents",
    "LocalExecution",
    "PlanNotReached",
    "PlannedCrash",
    "Replayed",
    "When",
    "replay",
]
