"""The agents and tools that this process knows, by name."""

import threading
from typing import TYPE_CHECKING, Any

from celery_agents.define.names import check_registered_name
from celery_agents.errors import RegistrationError, UnknownAgent

if TYPE_CHECKING:
    from celery_agents.define.agent import AgentDefinition
    from celery_agents.define.tool import Tool


class Registry:
    """Agents and tools by name. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._agents: dict[str, AgentDefinition] = {}
        self._tools: dict[str, Tool[..., Any]] = {}
        self._made_anew: set[str] = set()

    def add_agent(self, agent: "AgentDefinition") -> None:
        """Register an agent. The same function may be registered again, also after a reload; another one may not.

        Nor may what one function makes with other values or options: one of the agents would run in the place of the
        other. Raise `RegistrationError`, also for a name that no step could have.
        """
        check_registered_name(agent.name)
        with self._lock:
            known = self._agents.get(agent.name)
            conflict = None if known is None else agent.made.conflict_with(known.made, "an agent")
            if conflict is not None:
                raise RegistrationError(agent.name, conflict)
            self._agents[agent.name] = agent

    def add_tool(self, tool: "Tool[..., Any]") -> None:
        """Register a tool, like `add_agent`.

        A function may make a tool at each of its calls. Each caller then has its own tool, and the name finds none of
        them any more, because they may differ in what they have captured.
        """
        check_registered_name(tool.name)
        with self._lock:
            known = self._tools.get(tool.name)
            if known is not None and known.origin != tool.origin:
                raise RegistrationError(tool.name, tool.made.conflict_with(known.made, "a tool") or "")
            if known is not None and known is not tool and known.is_sibling_of(tool):
                self._made_anew.add(tool.name)
            else:
                self._made_anew.discard(tool.name)  # a reload
            self._tools[tool.name] = tool

    def agent(self, name: str) -> "AgentDefinition":
        """Return the agent of this name. Raise `UnknownAgent`."""
        try:
            return self._agents[name]
        except KeyError:
            raise UnknownAgent(name, sorted(self._agents)) from None

    def find(self, name: str) -> "AgentDefinition | None":
        """Return the agent of this name, or None."""
        return self._agents.get(name)

    def find_tool(self, name: str) -> "Tool[..., Any] | None":
        """Return the tool of this name, or None. Raise `RegistrationError` if the name could mean several."""
        if name in self._made_anew:
            raise RegistrationError(
                name,
                f"{self._tools[name].origin} was made several times, and may differ: give the tool, not its name",
            )
        return self._tools.get(name)

    @property
    def agents(self) -> "tuple[AgentDefinition, ...]":
        """All agents, by name."""
        return tuple(agent for _, agent in sorted(self._agents.items()))

    @property
    def tools(self) -> "tuple[Tool[..., Any], ...]":
        """All tools, by name."""
        return tuple(tool for _, tool in sorted(self._tools.items()))


default_registry = Registry()
