"""What an agent needs and no store can keep: made anew on each attempt, by a function of the user's."""

import inspect
from collections.abc import Callable
from typing import Any

from celery_agents.engine.run.async_run import AsyncRun


def required_arguments(factory: Callable[..., Any]) -> int:
    """Return how many arguments a function has to be called with."""
    parameters = inspect.signature(factory).parameters.values()
    return sum(one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters)


async def made(factory: Callable[..., Any], run: AsyncRun) -> Any:
    """Return what the factory makes: called without arguments, or with the run if it takes one; it may be async."""
    result = factory(run) if required_arguments(factory) else factory()
    return await result if inspect.isawaitable(result) else result
