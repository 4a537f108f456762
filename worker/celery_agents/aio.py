"""The client for async code: a thin facade that runs the one implementation in threads."""

import asyncio
from collections.abc import Iterable
from typing import Any

from agent_statestore.records import JSONValue
from celery_agents import current
from celery_agents.client.execution import AsyncExecution
from celery_agents.define.agent import AgentDefinition

__all__ = ["AsyncExecution", "enqueue", "enqueue_many", "get_execution"]


async def enqueue(agent: AgentDefinition | str, input: JSONValue = None, **options: Any) -> AsyncExecution:  # noqa: A002
    """Start an execution; take the same arguments as `celery_agents.enqueue`."""
    return (await asyncio.to_thread(lambda: current.enqueue(agent, input, **options))).aio


async def enqueue_many(
    agent: AgentDefinition | str, inputs: Iterable[JSONValue], **options: Any
) -> list[AsyncExecution]:
    """Start an execution for each input; take the same arguments as `celery_agents.enqueue_many`."""
    made = await asyncio.to_thread(lambda: current.enqueue_many(agent, inputs, **options))
    return [execution.aio for execution in made]


async def get_execution(execution_id: str) -> AsyncExecution:
    """Return the handle of an existing execution. Raise `ExecutionNotFound`."""
    return (await asyncio.to_thread(current.get_execution, execution_id)).aio
