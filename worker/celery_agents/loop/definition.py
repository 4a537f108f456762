"""A loop agent as it was defined."""

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from agent_statestore.records import JSONValue
from celery_agents.define import types
from celery_agents.define.agent import AgentDefinition
from celery_agents.define.names import check_count, check_duration, check_registered_name
from celery_agents.define.registry import Registry
from celery_agents.define.retry import Retry
from celery_agents.define.tool import Tool
from celery_agents.errors import RegistrationError, UnknownTool
from celery_agents.loop.actions import schema_of
from celery_agents.loop.context import LoopContext, ToolDescription
from celery_agents.loop.delegates import Delegate, Usable


@dataclass(kw_only=True)
class Definition:
    """What `loop_agent` was given. Its tools are looked up when they are first needed: they may be registered later."""

    name: str
    decide: Callable[[LoopContext], Any]
    given_tools: Sequence[Tool[..., Any] | AgentDefinition | str]
    input: types.Adapter
    output: types.Adapter
    output_type: Any
    max_turns: int
    max_invalid: int
    retry: Retry
    timeout: timedelta | None
    asks_at_limit: bool
    registry: Registry
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)
    _tools: dict[str, Usable] | None = field(default=None, init=False)
    _descriptions: tuple[ToolDescription, ...] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        check_registered_name(self.name)
        for tool in self.given_tools:
            if not isinstance(tool, Tool | AgentDefinition | str):
                raise RegistrationError(self.name, f"its tools are tools, agents, or names of them, not {tool!r:.80}")
        names = [tool if isinstance(tool, str) else tool.name for tool in self.given_tools]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise RegistrationError(self.name, f"two of its tools have the name {min(twice)!r}")
        for limit_name, limit, least in (("max_turns", self.max_turns, 1), ("max_invalid", self.max_invalid, 0)):
            check_count(self.name, limit_name, limit, least)
        if self.timeout is not None:
            check_duration(self.name, "timeout", self.timeout)
        if not isinstance(self.retry, Retry):
            raise RegistrationError(self.name, f"retry needs a Retry, such as Retry(retries=3), not {self.retry!r:.80}")

    def tools(self) -> dict[str, Usable]:
        """The tools by name. Raises `UnknownTool`, and `RegistrationError` for a name that is not clear."""
        with self._lock:
            if self._tools is None:
                found = [self._find(tool) for tool in self.given_tools]
                self._tools = {tool.name: tool for tool in found}
            return self._tools

    def _find(self, given: Tool[..., Any] | AgentDefinition | str) -> Usable:
        if isinstance(given, str):
            found: Tool[..., Any] | AgentDefinition | None = self.registry.find_tool(given) or self.registry.find(given)
            if found is None:
                known = {agent.name for agent in self.registry.agents} | {tool.name for tool in self.registry.tools}
                raise UnknownTool(given, sorted(known))
            given = found
        return Delegate(given) if isinstance(given, AgentDefinition) else given

    def descriptions(self) -> tuple[ToolDescription, ...]:
        """The tools as a model is told of them. Copies: what is done to them changes nothing here."""
        if self._descriptions is None:
            self._descriptions = tuple(ToolDescription.of(tool) for tool in self.tools().values())
        return copy.deepcopy(self._descriptions)

    def action_schema(self) -> dict[str, JSONValue]:
        """See `LoopContext.action_schema`."""
        return schema_of(tuple(self.tools()), self.output_type)
