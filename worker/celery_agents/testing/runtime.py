"""The parts of an installation as a test has them: no Celery app, and bells that are rung in this process, in order."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from agent_statestore.records import ExecutionSummary
from agent_statestore.store import Store
from celery_agents.define.agent import AgentDefinition
from celery_agents.define.registry import Registry
from celery_agents.define.tool import Tool
from celery_agents.errors import UnknownAgent
from celery_agents.lifecycle.ends import Ends
from celery_agents.settings import Settings


class LocalRuntime:
    """The `Services` of a test: what clients work with, `Execution` and `enqueue` for example."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self.registry = registry
        self.store = store
        self.settings = Settings.load({}, {})
        self.bells: deque[str] = deque()
        self.ends = Ends(store=store, registry=registry, ring=self.ring, announce_within=self.settings.lease)

    def load_agents(self) -> None:
        """A test's agents belong to no app that could import them."""

    def check_queue(self, queue: str | None) -> None:
        """A test's bells need no queue."""

    def forget_result(self, execution_id: str) -> None:
        """A test has no result backend."""

    def after_commit(self, connection: Any, hook: Callable[[], object]) -> None:
        """What is kept in memory is there already, and does not wait for a commit."""
        if self.store.has_transactions:
            from agent_statestore.sql.callers import caller_of

            caller_of(connection).after_commit(hook)
        else:
            hook()

    def ring(self, summary: ExecutionSummary) -> None:
        """Notes that the execution can go on; once, however often it is rung."""
        if summary.execution_id not in self.bells:
            self.bells.append(summary.execution_id)

    def ring_first(self, summaries: Sequence[ExecutionSummary]) -> None:
        """Notes that the executions can go on."""
        for summary in summaries:
            self.ring(summary)


class KnownAgents(Registry):
    """The agents that a test has started, and those of a registry behind it, which may still grow."""

    def __init__(self, behind: Registry) -> None:
        super().__init__()
        self._behind = behind

    def start(self, agent: "AgentDefinition") -> None:
        """The test has this agent in its hands, whatever else is known under its name."""
        if self.find(agent.name) is not agent:
            self._agents[agent.name] = agent

    def agent(self, name: str) -> "AgentDefinition":
        found = self.find(name)
        if found is None:
            raise UnknownAgent(name, [agent.name for agent in self.agents])
        return found

    def find(self, name: str) -> "AgentDefinition | None":
        return super().find(name) or self._behind.find(name)

    @property
    def agents(self) -> "tuple[AgentDefinition, ...]":
        agents = {agent.name: agent for agent in (*self._behind.agents, *super().agents)}
        return tuple(agents[name] for name in sorted(agents))

    def find_tool(self, name: str) -> "Tool[..., object] | None":
        return self._behind.find_tool(name)

    @property
    def tools(self) -> "tuple[Tool[..., object], ...]":
        return self._behind.tools
