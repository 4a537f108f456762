"""Tests of agents: in the test's own process, without Celery, with a clock that the test moves, and with crashes.

`LocalAgents` runs executions; `replay` leads an agent's code through what was recorded of one in production. Works with
any test framework.
"""

from worker.testing.agents import LocalAgents
from worker.testing.crashing import Crash, PlannedCrash, When
from worker.testing.execution import LocalExecution
from worker.testing.plans import PlanNotReached
from worker.testing.replaying import Replayed, replay

__all__ = ["Crash", "LocalAgents", "LocalExecution", "PlanNotReached", "PlannedCrash", "Replayed", "When", "replay"]
