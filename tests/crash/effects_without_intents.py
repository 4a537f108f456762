"""Imported by a worker: nothing is recorded before a call. To prove that the tests of the crash policies need it."""

from agent_statestore import AgentStep
from celery_agents.engine.journal.recorder import Recorder
from tests.crash.patching import put


def _forget(self: Recorder, step: AgentStep) -> None:
    del self, step


put(Recorder, "record_intent", _forget)
