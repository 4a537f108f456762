"""Going back in time: `fork` an execution at a step, `rewind` it, and see with `diff` what came of it."""

from celery_agents.replay.difference import Difference, FieldDifference, StepChange, StepDifference, diff
from celery_agents.replay.operations import fork, rewind
from celery_agents.replay.rollback import roll_back

__all__ = ["Difference", "FieldDifference", "StepChange", "StepDifference", "diff", "fork", "rewind", "roll_back"]
