"""What code outside the engine needs of its process: the port that each kind of host fills."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agent_statestore.records import ExecutionSummary
from agent_statestore.store import Store
from celery_agents.define.registry import Registry
from celery_agents.lifecycle.ends import Ends
from celery_agents.settings import Settings


class Services(Protocol):
    """One installation: the runtime of a Celery app, or the runtime of a test without Celery."""

    @property
    def store(self) -> Store:
        """The store that keeps the executions."""
        ...

    @property
    def registry(self) -> Registry:
        """The agents and tools that this process knows."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        ...

    @property
    def ends(self) -> Ends:
        """The `Ends`, which tells of the ends of executions."""
        ...

    def ring(self, summary: ExecutionSummary) -> None:
        """Publish the bell of an execution that can go on at once. A sweeper makes up for a failure."""
        ...

    def ring_first(self, summaries: Sequence[ExecutionSummary]) -> None:
        """Publish the first bells of executions, which were created as if that had been done. A failure costs a sweep.

        They are alike: of one agent, one queue and one priority. Raise nothing: the executions are stored.
        """
        ...

    def check_queue(self, queue: str | None) -> None:
        """Raise `InvalidRecord` for a queue on which no bell could ever be rung. None is the default queue."""
        ...

    def after_commit(self, connection: Any, hook: Callable[[], object]) -> None:
        """Call the hook after the commit of the caller's transaction (`agent_statestore.sql.callers`)."""
        ...

    def forget_result(self, execution_id: str) -> None:
        """Remove what Celery's result backend keeps of an execution. Raise `ResultBackendUnavailable`."""
        ...

    def load_agents(self) -> None:
        """Import the modules that define agents, if the host knows any."""
        ...
