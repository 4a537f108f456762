"""Durable copies of agents: with their models, tools, servers and handoffs, all the way down. No agent is changed."""

import dataclasses
from typing import Any, Final

from agents import Agent, Handoff, RunContextWrapper
from agents.models.interface import Model

from celery_agents.errors import RegistrationError
from celery_agents.integrations.openai_agents.mcp import DurableServer
from celery_agents.integrations.openai_agents.models import durable_model
from celery_agents.integrations.openai_agents.scope import RunScope
from celery_agents.integrations.openai_agents.tools import durable_tool

# What these do to the machine would be recorded nowhere, and done again after a crash.
_ACTING_HERE: Final = frozenset({"ComputerTool", "LocalShellTool", "ApplyPatchTool"})


def durable_agent(agent: Agent[Any], scope: RunScope) -> Agent[Any]:
    """Return the agent's durable copy, the same one each time in a run. Raise `RegistrationError` as `check` does."""
    if id(agent) in scope.clones:
        return scope.clones[id(agent)]  # type: ignore[no-any-return]
    check(agent)
    model = durable_model(agent.model) if isinstance(agent.model, Model) else agent.model
    # The settings as they are: `clone` would put another model's defaults in their place.
    clone = agent.clone(
        model=model,
        model_settings=agent.model_settings,
        tools=[durable_tool(tool, scope.options) for tool in agent.tools],
        mcp_servers=[DurableServer(server) for server in agent.mcp_servers],
    )
    scope.clones[id(agent)] = scope.clones[id(clone)] = clone
    scope.kept += (agent, clone)
    # Only now: agents may hand off to each other.
    clone.handoffs = [_handoff(one, scope) for one in agent.handoffs]
    return clone


def check(agent: Agent[Any]) -> None:
    """Raise `RegistrationError` for an agent whose tools act on this machine where no step can be taken of it."""
    for tool in agent.tools:
        kind = type(tool).__name__
        if kind in _ACTING_HERE or (kind == "ShellTool" and getattr(tool, "executor", None) is not None):
            raise RegistrationError(
                agent.name, f"a {kind} acts on the worker's machine outside of steps; make it a function tool"
            )


def _handoff(given: Any, scope: RunScope) -> Any:
    if not isinstance(given, Handoff):
        return durable_agent(given, scope)
    invoke = given.on_invoke_handoff

    async def handed_off(context: RunContextWrapper[Any], arguments: str) -> Any:
        return durable_agent(await invoke(context, arguments), scope)

    return dataclasses.replace(given, on_invoke_handoff=handed_off)
