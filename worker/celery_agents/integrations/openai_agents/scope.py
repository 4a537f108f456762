"""What holds in one durable run of an agent, for all that it runs: its helpers, the agents that it hands off to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

from celery_agents.define.retry import Retry
from celery_agents.integrations.openai_agents.connections import ServerConnection, connection_of
from celery_agents.integrations.openai_agents.steering import ToldMessages
from celery_agents.integrations.step_options import StepOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """How steps are taken: see `DurableRunner`."""

    model: StepOptions
    tool: StepOptions
    tools: Mapping[str, StepOptions | Literal[False]]
    servers: Mapping[str, StepOptions]
    approval_timeout: timedelta | None
    tracing: bool

    @property
    def of_models(self) -> StepOptions:
        """The options of requests to models."""
        return self.model.over(StepOptions(retry=Retry.for_models()))

    def of_tool(self, name: str) -> StepOptions | Literal[False]:
        """Return the options of a function tool's calls; False if they are to be no steps."""
        own = self.tools.get(name, StepOptions())
        return own if own is False else own.over(self.tool)

    def of_server(self, name: str) -> StepOptions:
        """Return the options of an MCP server's tools."""
        return self.servers.get(name, StepOptions()).over(self.tool)


@dataclass(slots=True, kw_only=True)
class RunScope:
    """One durable run: its options, and what it has made so far.

    `outermost` is the label of the agent that people speak to, and `told` what they have said to it.
    `clones` are the durable agents by the id of the agent that each is made of, and `kept` holds those, so that no id
    is used anew. `edits` are the arguments that people put in place of a call's, by the call's id. `listings` are the
    tools of MCP servers, by server and agent, in the protocol's form.
    """

    options: RunnerOptions
    outermost: str = ""
    told: ToldMessages = field(default_factory=ToldMessages)
    clones: dict[int, Any] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    edits: dict[str, dict[str, Any]] = field(default_factory=dict)
    listings: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    _connections: dict[int, ServerConnection] = field(default_factory=dict)

    def connection(self, server: Any) -> ServerConnection:
        """Return the connection to a server, which stays open until the run ends, at least."""
        if id(server) not in self._connections:
            self._connections[id(server)] = connection = connection_of(server)
            connection.join()
        return self._connections[id(server)]

    def close(self) -> None:
        """Let go of the connections."""
        while self._connections:
            self._connections.popitem()[1].leave()


_scope: Final[ContextVar[RunScope | None]] = ContextVar("openai_agents_scope", default=None)
_label: Final[ContextVar[str]] = ContextVar("openai_agents_label", default="agent")


def scope_around() -> RunScope | None:
    """Return the durable run that the code is part of."""
    return _scope.get()


def told_here() -> ToldMessages | None:
    """Return what people have said to the agent that runs; None for one that works for another one."""
    scope = _scope.get()
    return scope.told if scope is not None and _label.get() == scope.outermost else None


def label() -> str:
    """Return what the steps of the agent that runs are named by: its name, and for a helper the call that it serves."""
    return _label.get()


@contextmanager
def within(scope: RunScope, name: str) -> Iterator[None]:
    """What runs in this block, and the tasks that it starts, belong to the durable run."""
    tokens = _scope.set(scope), _label.set(name)
    try:
        yield
    finally:
        _scope.reset(tokens[0])
        _label.reset(tokens[1])
