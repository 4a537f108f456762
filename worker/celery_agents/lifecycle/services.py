"""What code outside of the engine needs of the process that it runs in: the port that each kind of host fills."""

from typing import Protocol

from agent_statestore.records import ExecutionSummary
from agent_statestore.store import Store
from celery_agents.define.registry import Registry
from celery_agents.lifecycle.ends import Ends
from celery_agents.settings import Settings


class Services(Protocol):
    """One installation: the runtime of a Celery app, or that of a test without Celery."""

    @property
    def store(self) -> Store:
        """Where executions are kept."""
        ...

    @property
    def registry(self) -> Registry:
        """Which agents and tools are known here."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        ...

    @property
    def ends(self) -> Ends:
        """Tells of the ends of executions."""
        ...

    def ring(self, summary: ExecutionSummary) -> None:
        """Publish the bell of an execution that can go on at once. What fails is left to a sweeper."""
        ...

    def load_agents(self) -> None:
        """Import the modules in which agents are defined, where the host knows of some."""
        ...
