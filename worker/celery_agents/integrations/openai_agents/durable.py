"""`durable`: an agent of the OpenAI Agents SDK as an agent of ours, whose executions can be started."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from agents import Agent as SDKAgent

from celery_agents.decorators import Agent
from celery_agents.decorators import agent as make_agent
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.errors import RegistrationError
from celery_agents.integrations.openai_agents.clones import check
from celery_agents.integrations.openai_agents.runner import DurableRunner, OnStream

_OF_RUNS = ("max_turns", "hooks", "run_config", "error_handlers")


def durable(
    agent: SDKAgent[Any],
    *,
    name: str | None = None,
    context: Callable[..., Any] | None = None,
    session: Callable[..., Any] | None = None,
    prompt: Callable[[Any], Any] | None = None,
    on_stream: OnStream | None = None,
    runner: DurableRunner | None = None,
    **options: Any,
) -> Agent:
    """Register an agent of the OpenAI Agents SDK, and return what starts executions of it.

    The input of an execution is the user's prompt. With `prompt` it is of the type of that function's parameter, and
    what the function returns is the input of the run: a text, or a list of items. The output is the run's.

    `context` makes the run's context on each attempt, and `session` its session: they never enter the store. Each is
    called without arguments, or with the `AsyncRun` if it takes one, and may be async. `on_stream` has answers streamed
    and is called with each event; see `DurableRunner.run`. `runner` says how steps are taken. `name` is the agent's own
    if not given. `options` are those of `Runner.run` (`max_turns`, `hooks`, `run_config`, `error_handlers`), and those
    of `@agent`: `queue`, `max_steps`, `max_cost`, `deadline` and so on.

    The agent itself stays as it is. Raise `RegistrationError` for one with tools that act on the worker's machine.
    """
    check(agent)
    own, taken = name or agent.name, runner or DurableRunner()
    of_run = {one: options.pop(one) for one in _OF_RUNS if one in options}

    async def execute(run: AsyncRun, input: Any) -> Any:  # noqa: A002 - the field's standard name
        asked = input if prompt is None else prompt(input)
        made = {key: await _made(make, run) for key, make in (("context", context), ("session", session)) if make}
        result = await taken.run(agent, asked, on_stream=on_stream, **made, **of_run)
        return result.final_output

    execute.__doc__ = agent.handoff_description or f"The agent {own} of the OpenAI Agents SDK."
    execute.__annotations__ |= {"input": str if prompt is None else _type_of_input(own, prompt)}
    execute.__annotations__["return"] = _type_of_output(agent)
    return make_agent(name=own, **options)(execute)


async def _made(make: Callable[..., Any], run: AsyncRun) -> Any:
    parameters = inspect.signature(make).parameters.values()
    takes_run = any(
        one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters
    )
    made = make(run) if takes_run else make()
    return await made if inspect.isawaitable(made) else made


def _type_of_input(name: str, prompt: Callable[[Any], Any]) -> Any:
    parameters = list(inspect.signature(prompt).parameters)
    if not parameters:
        raise RegistrationError(name, "prompt is a function of the input")
    return get_type_hints(prompt).get(parameters[0], Any)


def _type_of_output(agent: SDKAgent[Any]) -> Any:
    """Return the annotation of the run's output, as far as it is a type. An agent that is handed off to has its own."""
    output = agent.output_type
    return output if isinstance(output, type) and not agent.handoffs else Any
