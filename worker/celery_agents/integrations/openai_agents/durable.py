"""`durable`: an agent of the OpenAI Agents SDK as an agent of ours, whose executions can be started."""

from collections.abc import Callable
from typing import Any

from agents import Agent as SDKAgent

from celery_agents.decorators import Agent
from celery_agents.decorators import agent as make_agent
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.integrations.made import made, type_of_input
from celery_agents.integrations.openai_agents.clones import check
from celery_agents.integrations.openai_agents.conversation import RunConversation
from celery_agents.integrations.openai_agents.runner import DurableRunner, OnStream

_OF_RUNS = ("max_turns", "hooks", "run_config", "error_handlers")


def durable(
    agent: SDKAgent[Any],
    *,
    name: str | None = None,
    context: Callable[..., Any] | None = None,
    session: Callable[..., Any] | bool | None = None,
    prompt: Callable[[Any], Any] | None = None,
    on_stream: OnStream | None = None,
    runner: DurableRunner | None = None,
    **options: Any,
) -> Agent:
    """Register an agent of the OpenAI Agents SDK, and return what starts executions of it.

    The input of an execution is the user's prompt. With `prompt` it is of the type of that function's parameter, and
    what the function returns is the input of the run: a text, or a list of items. The output is the run's.

    `context` makes the run's context on each attempt, and `session` its session: they never enter the store. Each is
    called without arguments, or with the `AsyncRun` if it takes one, and may be async. `session=True` has the run go on
    with the conversation of the execution's session, if it has one (`run.session`). `on_stream` has answers streamed
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
        given = (("context", context), ("session", conversation if session is True else session or None))
        own_of_run = {key: await made(make, run) for key, make in given if make is not None}
        result = await taken.run(agent, asked, on_stream=on_stream, **own_of_run, **of_run)
        return result.final_output

    execute.__doc__ = agent.handoff_description or f"The agent {own} of the OpenAI Agents SDK."
    execute.__annotations__ |= {"input": type_of_input(own, prompt)}
    execute.__annotations__["return"] = _type_of_output(agent)
    return make_agent(name=own, **options)(execute)


async def conversation(run: AsyncRun) -> RunConversation | None:
    """Return the session that the execution has, if any."""
    return None if run.session_id is None else RunConversation(await run.session)


def _type_of_output(agent: SDKAgent[Any]) -> Any:
    """Return the annotation of the run's output, as far as it is a type. An agent that is handed off to has its own."""
    output = agent.output_type
    return output if isinstance(output, type) and not agent.handoffs else Any
