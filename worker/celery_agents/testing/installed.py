"""`InstalledAgents`: the installed apps in a test, on a store in memory and without a broker."""

from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from agent_statestore.clock import ManualClock
from agent_statestore.query import Query
from celery_agents.define.agent import AgentDefinition
from celery_agents.define.registry import default_registry
from celery_agents.host.runtime import Runtime, installed_runtimes
from celery_agents.testing.agents import LocalAgents
from celery_agents.testing.execution import LocalExecution


class InstalledAgents(LocalAgents):
    """A `LocalAgents` into which, within its block, everything goes that the code under test enqueues, on any app.

        def test_an_order_is_shipped(agents, client):
            client.post("/orders", {"name": "A7"})
            (execution,) = agents.started("shipping")
            assert execution.wait() == "A7"

    Bells are caught; nothing runs before `run`, `advance` or an execution's `wait`. Its clock begins now. What is
    enqueued with `connection=` is there at once, and stays after a rollback; with `on_commit=` it is there after the
    commit.
    """

    def __init__(self) -> None:
        installed = installed_runtimes()
        registry = installed[0].registry if len(installed) == 1 else default_registry
        super().__init__(registry=registry, clock=ManualClock(datetime.now(UTC)))

    def __enter__(self) -> Self:
        Runtime.stand_in = self.runtime
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        Runtime.stand_in = None
        super().__exit__(kind, error, traceback)

    def started(self, agent: AgentDefinition | str | None = None) -> list[LocalExecution]:
        """The executions that were started, of one agent or of all, the oldest first."""
        name = agent.name if isinstance(agent, AgentDefinition) else agent
        found, cursor = [], None
        while True:
            page = self.store.find(Query(agent_id=name, oldest_first=True, cursor=cursor))
            found += [LocalExecution(one.execution_id, self) for one in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found

    @property
    def bells(self) -> tuple[str, ...]:
        """The executions whose bells were rung and which have not gone on since."""
        return tuple(self.runtime.bells)
