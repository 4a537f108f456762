"""`durable`: an agent of Pydantic AI as an agent of ours, whose executions can be started."""

from collections.abc import Callable
from types import NoneType
from typing import Any

from pydantic_ai.agent import AbstractAgent
from pydantic_core import to_jsonable_python

from celery_agents.decorators import Agent
from celery_agents.decorators import agent as make_agent
from celery_agents.define.types import name_of
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.errors import RegistrationError
from celery_agents.integrations.made import made, required_arguments, type_of_input
from celery_agents.integrations.pydantic_ai.conversation import add_to, history_of
from celery_agents.integrations.pydantic_ai.durability import CeleryDurability


def durable(
    agent: AbstractAgent[Any, Any],
    *,
    name: str | None = None,
    deps: Callable[..., Any] | None = None,
    prompt: Callable[[Any], Any] | None = None,
    session: bool = False,
    **options: Any,
) -> Agent:
    """Register an agent of Pydantic AI, and return what starts executions of it.

    The input of an execution is the user's prompt. With `prompt` it is of the type of that function's parameter, and
    what the function returns is the prompt. The output is the run's.

    `deps` makes the agent's dependencies, on each attempt: they never enter the store. It is called without arguments,
    or with the `AsyncRun` if it takes one, and may be async. With `session`, the run goes on with the conversation of
    the execution's session, if it has one, and adds to it when it has ended (`run.session`). `name` is the agent's own
    if not given. `options` are those of `@agent`: `queue`, `max_steps`, `max_cost`, `deadline` and so on.

    Raise `RegistrationError` for an agent without a name or without `CeleryDurability`, and for one that needs
    dependencies and has no `deps`.
    """
    own = name or agent.name
    if not own:
        raise RegistrationError("durable", "the agent needs a name: Agent(..., name=...), or durable(agent, name=...)")
    if CeleryDurability.from_agent(agent) is None:
        raise RegistrationError(own, "the agent needs capabilities=[CeleryDurability()]")
    if deps is None and agent.deps_type not in (NoneType, object):
        raise RegistrationError(
            own, f"the agent needs deps of {name_of(agent.deps_type)}: durable(agent, deps=factory)"
        )

    if deps is not None and required_arguments(deps) > 1:
        raise RegistrationError(own, "deps is called without arguments, or with the run")

    async def execute(run: AsyncRun, input: Any) -> Any:  # noqa: A002 - the field's standard name
        asked = input if prompt is None else prompt(input)
        conversation = await run.session if session and run.session_id is not None else None
        result = await agent.run(
            asked,
            deps=None if deps is None else await made(deps, run),
            message_history=None if conversation is None else history_of(conversation),
        )
        if conversation is not None:
            add_to(conversation, result.new_messages())
        return result.output if returns is not Any else to_jsonable_python(result.output)

    returns = _type_of_output(agent)
    execute.__doc__ = getattr(agent, "description", None) or f"The agent {own} of Pydantic AI."
    execute.__annotations__ |= {"input": type_of_input(own, prompt)}
    execute.__annotations__["return"] = returns
    return make_agent(name=own, **options)(execute)


def _type_of_output(agent: AbstractAgent[Any, Any]) -> Any:
    """Return the annotation of the run's output, as far as it is a type."""
    output = agent.output_type
    return output if isinstance(output, type) else Any
