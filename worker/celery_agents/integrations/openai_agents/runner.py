"""`DurableRunner`: the SDK's runner in the code of an execution; and what has nested runs be a part of it."""

import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final, Literal

from agents import Agent, RunConfig
from agents.exceptions import UserError
from agents.models.interface import Model
from agents.run import AgentRunner, get_default_agent_runner, set_default_agent_runner
from agents.tool_context import ToolContext

from agent_statestore.plain_text import line_logger
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.engine.run.current_run import current_run, current_step
from celery_agents.engine.run.run import Run
from celery_agents.integrations.openai_agents.clones import durable_agent
from celery_agents.integrations.openai_agents.counting import counted
from celery_agents.integrations.openai_agents.models import durable_model, durable_provider
from celery_agents.integrations.openai_agents.people import decide
from celery_agents.integrations.openai_agents.scope import RunnerOptions, RunScope, scope_around, told_here, within
from celery_agents.integrations.openai_agents.sessions import durable_session
from celery_agents.integrations.openai_agents.steering import ToldMessages, items_of
from celery_agents.integrations.step_options import StepOptions
from celery_agents.integrations.steps import durable_run

log = line_logger(__name__)

OnStream = Callable[[Any], Awaitable[None] | None]


class DurableRunner:
    """Runs agents of the OpenAI Agents SDK durably in the code of an execution; elsewhere as the SDK's `Runner` does.

    `model` are the options of requests to models, by default `Retry.for_models()`. `tool` are those of all tools, which
    `tools` overrides by the tool's name, and `servers` by the name of an MCP server. False in `tools` takes no step of
    a call: for a tool that runs agents itself. `approval_timeout` is how long people have to approve a call; None is
    for ever. `tracing` leaves the SDK's tracing on, which exports to OpenAI unless the application has it do otherwise.
    """

    def __init__(
        self,
        *,
        model: StepOptions | None = None,
        tool: StepOptions | None = None,
        tools: Mapping[str, StepOptions | Literal[False]] | None = None,
        servers: Mapping[str, StepOptions] | None = None,
        approval_timeout: timedelta | None = None,
        tracing: bool = False,
    ) -> None:
        self._options = RunnerOptions(
            model=model or StepOptions(),
            tool=tool or StepOptions(),
            tools=tools or {},
            servers=servers or {},
            approval_timeout=approval_timeout,
            tracing=tracing,
        )

    async def run(
        self,
        agent: Agent[Any],
        input: Any,  # noqa: A002 - the SDK's name
        *,
        on_stream: OnStream | None = None,
        **options: Any,
    ) -> Any:
        """Run the agent as `Runner.run` does, with its options, and return its result.

        Calls that need approval wait for people; the result has no interruptions. With `on_stream` the answers are
        streamed, and it is called with each event, in the agent's code: on a replay with fewer of them, as what is
        recorded is not streamed again.

        Raise `UserError` in the code of a plain agent, where nothing could be recorded, and for a conversation that the
        service keeps or a sandbox; `RegistrationError` for tools that act on the worker's machine, and for a session
        that compacts itself.
        """
        plain = _plain_runner()
        run = durable_run()
        if run is None:
            _refuse_plain_agents(agent)
            _say_if_inside_a_step(agent)
            return await _drive(plain, agent, input, on_stream, counted(options))
        around = scope_around()
        scope = around or RunScope(options=self._options, outermost=agent.name)
        owned = RunConfig() if options.get("run_config") is None else None
        if owned is not None:
            options["run_config"] = owned
        try:
            with within(scope, agent.name):
                return await self._decided(plain, run, scope, agent, input, on_stream, _made_durable(options, scope))
        finally:
            if around is None:
                scope.close()
            if owned is not None:
                await owned.model_provider.aclose()

    async def _decided(
        self,
        plain: AgentRunner,
        run: AsyncRun,
        scope: RunScope,
        agent: Agent[Any],
        given: Any,
        on_stream: OnStream | None,
        options: dict[str, Any],
    ) -> Any:
        clone = durable_agent(agent, scope)
        result = await _drive(plain, clone, given, on_stream, options)
        while True:
            while result.interruptions:
                state = await decide(run, scope, result)
                result = await _drive(plain, clone, state, on_stream, _of_resumed(options))
            told = told_here()
            if told is None:
                return result
            said = await run.said()
            if not said:
                return result
            # Where the run would end, it goes on with what people have said meanwhile. A session has the rest.
            before = [] if options.get("session") is not None else told.put_into(result.to_input_list())
            scope.told = ToldMessages()
            result = await _drive(plain, clone, [*before, *items_of(said)], on_stream, options)


class Dispatcher(AgentRunner):
    """The SDK's runner, with the runs that belong to a durable one as a part of it: `Agent.as_tool`, guardrails.

    A run of an agent as a tool hands its interruptions up, to be asked about together with all others.
    """

    def __init__(self, runner: AgentRunner) -> None:
        self.runner = runner

    async def run(self, starting_agent: Agent[Any], input: Any, **kwargs: Any) -> Any:  # noqa: A002
        """See `AgentRunner`."""
        scope = _scope_here(starting_agent)
        if scope is None:
            return await self.runner.run(starting_agent, input, **counted(kwargs))
        if not _is_tool(kwargs):
            return await DurableRunner().run(starting_agent, input, **kwargs)
        with within(scope, _name(starting_agent, kwargs)):
            options = _made_durable(kwargs, scope)
            return await self.runner.run(durable_agent(starting_agent, scope), input, **options)

    def run_streamed(self, starting_agent: Agent[Any], input: Any, **kwargs: Any) -> Any:  # noqa: A002
        """See `AgentRunner`."""
        scope = _scope_here(starting_agent)
        if scope is None:
            return self.runner.run_streamed(starting_agent, input, **counted(kwargs))
        with within(scope, _name(starting_agent, kwargs)):
            options = _made_durable(kwargs, scope)
            return self.runner.run_streamed(durable_agent(starting_agent, scope), input, **options)

    def run_sync(self, starting_agent: Agent[Any], input: Any, **kwargs: Any) -> Any:  # noqa: A002
        """See `AgentRunner`."""
        return self.runner.run_sync(starting_agent, input, **counted(kwargs))


def _plain_runner() -> AgentRunner:
    """Return the SDK's own runner, after having put the dispatcher before it."""
    default = get_default_agent_runner()
    if not isinstance(default, Dispatcher):
        default = Dispatcher(default)
        set_default_agent_runner(default)
    return default.runner


def _scope_here(agent: Agent[Any]) -> RunScope | None:
    scope = scope_around()
    if scope is not None and durable_run() is None:
        _say_if_inside_a_step(agent)
        return None
    return scope


def _is_tool(options: Mapping[str, Any]) -> bool:
    return isinstance(options.get("context"), ToolContext)


def _name(agent: Agent[Any], options: Mapping[str, Any]) -> str:
    context = options.get("context")
    return f"{agent.name} {context.tool_call_id}" if isinstance(context, ToolContext) else agent.name


async def _drive(
    runner: AgentRunner, agent: Agent[Any], given: Any, on_stream: OnStream | None, options: dict[str, Any]
) -> Any:
    if on_stream is None:
        return await runner.run(agent, given, **options)
    result = runner.run_streamed(agent, given, **options)
    async for event in result.stream_events():
        said = on_stream(event)
        if inspect.isawaitable(said):
            await said
    return result


def _made_durable(options: Mapping[str, Any], scope: RunScope) -> dict[str, Any]:
    """Return the options of a run with what has to be durable of them."""
    if options.get("conversation_id") is not None:
        raise UserError(
            "a conversation that the service keeps is written by each request: one that is made again after a crash "
            "would be written twice. Use a session, or previous_response_id"
        )
    given = options.get("run_config")
    config = RunConfig(**given) if isinstance(given, dict) else given or RunConfig()
    if config.sandbox is not None:
        raise UserError(
            "a sandbox is worked on outside of steps: what was done in it would be done again after a crash"
        )
    return {
        **options,
        "session": durable_session(options.get("session")),
        "run_config": dataclasses.replace(
            config,
            model=durable_model(config.model) if isinstance(config.model, Model) else config.model,
            model_provider=durable_provider(config.model_provider),
            tracing_disabled=config.tracing_disabled or not scope.options.tracing,
        ),
    }


def _of_resumed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for going on with a state, which holds the rest."""
    return {name: value for name, value in options.items() if name not in ("context", "previous_response_id")}


def _refuse_plain_agents(agent: Agent[Any]) -> None:
    if isinstance(current_run(), Run):
        raise UserError(
            f"Agent {agent.name!r} runs in the code of a plain agent of celery-agents, where nothing of it would be "
            "recorded. Make that agent an `async def`, and await the run."
        )


_said: Final[set[str]] = set()


def _say_if_inside_a_step(agent: Agent[Any]) -> None:
    around = current_step()
    if around is not None and around.partition(" ")[0] not in _said:
        _said.add(around.partition(" ")[0])
        log.warning(
            "agent %s runs inside the step %r: all of it is part of that one step, and is repeated whole after a "
            "crash. Use agent.as_tool(), or DurableRunner(tools={NAME: False}), and each of its requests is a step",
            agent.name,
            around,
        )
