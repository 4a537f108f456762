"""What `durable` of each framework makes of the functions that it is given: dependencies, and prompts."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.errors import RegistrationError


def required_arguments(factory: Callable[..., Any]) -> int:
    """Return how many arguments a function has to be called with."""
    parameters = inspect.signature(factory).parameters.values()
    return sum(one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters)


async def made(factory: Callable[..., Any], run: AsyncRun) -> Any:
    """Return what the factory makes: called without arguments, or with the run if it takes one; it may be async."""
    result = factory(run) if required_arguments(factory) else factory()
    return await result if inspect.isawaitable(result) else result


def type_of_input(agent: str, prompt: Callable[[Any], Any] | None) -> Any:
    """Return the type of an execution's input: that of what `prompt` takes, or a text. Raise `RegistrationError`."""
    if prompt is None:
        return str
    parameters = list(inspect.signature(prompt).parameters)
    if not parameters:
        raise RegistrationError(agent, "prompt is a function of the input")
    return get_type_hints(prompt).get(parameters[0], Any)
