"""The store that a saver, or a store for graphs, keeps its documents in."""

from agent_statestore.store import Store
from celery_agents.current import current_runtime
from celery_agents.engine.run.base_run import BaseRun
from celery_agents.engine.steps.scope import run_around


class OwnStore:
    """A store that is given, or that of the execution whose code asks, or of the current app."""

    def __init__(self, given: Store | None) -> None:
        self._given = given

    @property
    def store(self) -> Store:
        """The store. Raise `ConfigurationError` where none is given, and there is no app to tell."""
        if self._given is not None:
            return self._given
        run = run_around()
        return run._attempt.recorder.store if isinstance(run, BaseRun) else current_runtime().store
