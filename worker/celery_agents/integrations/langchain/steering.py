"""What people say to an execution that runs an agent of LangChain: human messages, before the next call of its model.

An agent that works for another one, in a tool of it, is not told.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from langchain.agents.middleware import ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from celery_agents.define.saying import CallInterrupted
from celery_agents.engine.outcome import ExecutionUnwound
from celery_agents.integrations.langgraph.attempt import unwind
from celery_agents.integrations.langgraph.steps import async_run

_is_inner: Final[ContextVar[bool]] = ContextVar("langchain_inner_agent", default=False)


@contextmanager
def inner_agents() -> Iterator[None]:
    """The agents that run in this block work for another one."""
    token = _is_inner.set(True)
    try:
        yield
    finally:
        _is_inner.reset(token)


async def heard(agent: str) -> list[BaseMessage]:
    """Return what was said since the last look, if this is an agent to tell."""
    run = None if _is_inner.get() else async_run(f"agent {agent!r}")
    if run is None:
        return []
    try:
        return [HumanMessage(saying.text) for saying in await run.said()]
    except ExecutionUnwound as stopped:
        await unwind(stopped)


async def interrupted_with(agent: str, interrupted: CallInterrupted) -> list[BaseMessage]:
    """Return what the model had said, and what it was interrupted with."""
    said: list[BaseMessage] = [AIMessage(interrupted.text)] if interrupted.text else []
    return [*said, *await heard(agent)]


def is_end(response: ModelResponse[Any]) -> bool:
    """Return whether the agent would end with this answer: its model calls nothing."""
    return not any(
        isinstance(message, ToolMessage) or getattr(message, "tool_calls", None) for message in response.result
    )
