"""Going back in time: `fork` an execution at a step, `rewind` it, and see with `diff` what came of it."""

from worker.replay.client import fork, rewind
from worker.replay.comparing import Difference, FieldDifference, StepChange, StepDifference, diff

__all__ = ["Difference", "FieldDifference", "StepChange", "StepDifference", "diff", "fork", "rewind"]
