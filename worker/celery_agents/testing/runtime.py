"""The parts of an installation as a test has them: no Celery app, and bells that are rung in this process, in order."""

from collections import deque
from typing import TYPE_CHECKING

from agent_statestore.records import ExecutionSummary
from agent_statestore.store import Store
from celery_agents.define.registry import Registry
from celery_agents.engine.executor import Executor
from celery_agents.errors import UnknownAgent
from celery_agents.host.runtime import Runtime
from celery_agents.settings import Settings

if TYPE_CHECKING:
    from celery_agents.define.agent import Agent
    from celery_agents.define.tool import Tool


class LocalRuntime(Runtime):
    """What clients work with, `Execution` and `enqueue` for example."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self.registry = registry
        self.bells: deque[str] = deque()
        self._settings = Settings.load({}, {})
        self._store = store
        self._executor = None

    def execute_with(self, executor: Executor) -> None:
        """From now on this is the `executor`: it is made of parts of the runtime."""
        self._executor = executor

    def ring(self, summary: ExecutionSummary) -> None:
        """Notes that the execution can go on; once, however often it is rung."""
        if summary.execution_id not in self.bells:
            self.bells.append(summary.execution_id)


class KnownAgents(Registry):
    """The agents that a test has started, and those of a registry behind it, which may still grow."""

    def __init__(self, behind: Registry) -> None:
        super().__init__()
        self._behind = behind

    def start(self, agent: "Agent") -> None:
        """The test has this agent in its hands, whatever else is known under its name."""
        if self.find(agent.name) is not agent:
            self._agents[agent.name] = agent

    def agent(self, name: str) -> "Agent":
        found = self.find(name)
        if found is None:
            raise UnknownAgent(name, [agent.name for agent in self.agents])
        return found

    def find(self, name: str) -> "Agent | None":
        return super().find(name) or self._behind.find(name)

    @property
    def agents(self) -> "tuple[Agent, ...]":
        agents = {agent.name: agent for agent in (*self._behind.agents, *super().agents)}
        return tuple(agents[name] for name in sorted(agents))

    def find_tool(self, name: str) -> "Tool[..., object] | None":
        return self._behind.find_tool(name)

    @property
    def tools(self) -> "tuple[Tool[..., object], ...]":
        return self._behind.tools
