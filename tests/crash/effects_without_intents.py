"""Imported by a worker: nothing is recorded before a call. To prove that the tests of the crash policies need it."""

from datetime import datetime

from celery_agents.engine.steps.taking import ReachedStep
from tests.crash.patching import put


def _forget(self: ReachedStep, started: datetime, tries: int) -> None:
    del self, started, tries


put(ReachedStep, "_record_intent", _forget)
