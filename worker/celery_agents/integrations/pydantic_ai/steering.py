"""What people say to an execution that runs an agent of Pydantic AI: user prompts, before its next request.

Only the outermost run of an execution is told. An agent that works for another one, in a tool of it, is not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.tools import RunContext

from celery_agents.define.saying import CallInterrupted, Saying
from celery_agents.integrations.steps import durable_run

_outermost: Final[ContextVar[str | None]] = ContextVar("pydantic_ai_outermost_run", default=None)


@contextmanager
def running(ctx: RunContext[Any]) -> Iterator[None]:
    """A run goes on in this block."""
    if _outermost.get() is not None:
        yield
        return
    token = _outermost.set(ctx.run_id)
    try:
        yield
    finally:
        _outermost.reset(token)


async def heard(ctx: RunContext[Any]) -> tuple[Saying, ...]:
    """Return what was said since the last look, if this is the run to tell."""
    run = durable_run()
    if run is None or ctx.run_id is None or _outermost.get() != ctx.run_id:
        return ()
    return await run.said()


async def enqueue_heard(ctx: RunContext[Any]) -> None:
    """Have the run go on with what was said: in the request that is being prepared, or in one more at its end."""
    for saying in await heard(ctx):
        ctx.enqueue(saying.text)


class Interruptions:
    """What was said when a request was interrupted, until the run's next request has it in its history."""

    def __init__(self) -> None:
        self._told: dict[str, list[ModelMessage]] = {}

    def forget(self, ctx: RunContext[Any]) -> None:
        """A new request is prepared, from the history."""
        self._told.pop(ctx.run_id or "", None)

    async def take(self, ctx: RunContext[Any], interrupted: CallInterrupted) -> None:
        """Put what the model had said, and what it was interrupted with, into the history, for one attempt more."""
        told: list[ModelMessage] = []
        if interrupted.text:
            told.append(ModelResponse(parts=[TextPart(interrupted.text)], run_id=ctx.run_id))
        prompts = [UserPromptPart(saying.text) for saying in await heard(ctx)]
        if prompts:
            told.append(ModelRequest(parts=prompts, run_id=ctx.run_id))
        ctx.messages.extend(told)
        self._told.setdefault(ctx.run_id or "", []).extend(told)

    def add_to(self, ctx: RunContext[Any], request: ModelRequestContext) -> None:
        """Add it to the messages of a further attempt, which begins with those of the first."""
        request.messages = [*request.messages, *self._told.get(ctx.run_id or "", ())]
