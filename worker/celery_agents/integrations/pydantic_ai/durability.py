"""The engine for Pydantic AI: each durable operation of an agent is a step of the execution that runs it."""

import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, cast
from weakref import WeakKeyDictionary

from pydantic_ai import Agent
from pydantic_ai.agent import EventStreamHandler
from pydantic_ai.capabilities.abstract import WrapRunHandler
from pydantic_ai.durable_exec import (
    JSON_CODEC,
    BaseDurabilityCapability,
    DurabilityEngineSpec,
    DurableOperationId,
    JournalCallableOperationBackend,
    conversation_id_from_run_id,
    external_event_scope,
    record_durable_unit,
    replay_scope,
)
from pydantic_ai.exceptions import ModelRetry, RetryModelRequest, ToolFailed, UserError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.run import AgentRunResult
from pydantic_ai.tools import AgentDepsT, DeferredToolRequests, DeferredToolResults, RunContext, ToolDefinition

from agent_statestore.plain_text import line_logger
from celery_agents.define.names import step_name
from celery_agents.define.retry import Retry
from celery_agents.define.saying import CallInterrupted
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.engine.run.current_run import current_run, current_step, spend
from celery_agents.engine.run.run import Run
from celery_agents.errors import StepTimeout
from celery_agents.integrations.pydantic_ai.calls import described
from celery_agents.integrations.pydantic_ai.options import RoleOptions
from celery_agents.integrations.pydantic_ai.people import EventWaiter, decide, handles_deferred_calls
from celery_agents.integrations.pydantic_ai.speaking import SpeakingModel
from celery_agents.integrations.pydantic_ai.steering import Interruptions, enqueue_heard, running
from celery_agents.integrations.pydantic_ai.usage import UsageOfCall, used_by, used_by_recorded
from celery_agents.integrations.step_options import METADATA_KEY, StepOptions, refuse_group
from celery_agents.integrations.steps import OF_A_CALL, durable_run, take, told

log = line_logger(__name__)

_RUN_IDS: Final = uuid.UUID("0197a1a4-5d1c-7c61-9b61-3f5a8c0f7a11")


class CeleryDurability(BaseDurabilityCapability[AgentDepsT]):
    """Makes the runs of an agent durable where they are part of an execution; elsewhere they are as without it.

    `model` are the options of requests to models, by default `Retry.for_models()`. `tool` are those of tools, which a
    tool's `metadata={"celery": {...}}` overrides, and `toolsets` those of a toolset or an MCP server, by its id.
    `approval_timeout` is how long people have to approve a call; None is for ever. `models`, `event_stream_handler` and
    `name` are Pydantic AI's.
    """

    engine_spec: ClassVar[DurabilityEngineSpec] = DurabilityEngineSpec(
        engine_name="celery-agents",
        durable_unit_noun="step",
        durable_container_noun="execution",
        codec=JSON_CODEC,
        toolset_lifecycles={
            "function": "enter-always",
            "mcp": "enter-in-durable-unit",
            "dynamic": "enter-never",
        },
        unsupported_runtime_toolset_kinds=frozenset({"function", "mcp", "dynamic"}),
        tool_config_key=METADATA_KEY,
    )

    def __init__(
        self,
        *,
        models: Mapping[str, Model] | None = None,
        event_stream_handler: EventStreamHandler[AgentDepsT] | None = None,
        name: str | None = None,
        model: StepOptions | None = None,
        tool: StepOptions | None = None,
        toolsets: Mapping[str, StepOptions] | None = None,
        approval_timeout: timedelta | None = None,
    ) -> None:
        super().__init__(models=models, event_stream_handler=event_stream_handler, name=name)
        refuse_group("CeleryDurability", model, tool, *(toolsets or {}).values())
        self._options = RoleOptions(
            model=(model or StepOptions()).over(StepOptions(retry=Retry.for_models())),
            tool=tool or StepOptions(),
            toolsets=toolsets or {},
        )
        self._approval_timeout = approval_timeout
        self._said: set[str] = set()
        self._interruptions = Interruptions()
        self._runs: WeakKeyDictionary[AsyncRun, Counter[str]] = WeakKeyDictionary()

    @property
    def in_durable_context(self) -> bool:
        """Whether this is the code of an execution's agent, outside of its steps."""
        return durable_run() is not None

    def get_durable_operation_backend(self) -> "StepBackend":
        """Return what makes steps of operations."""
        return StepBackend(agent_name=self.name, default_model_id=self.default_model_id, config=self._options)

    def get_default_run_id(self) -> str | None:
        """Return an id that is the same on every attempt: made of the execution and the number of the run in it."""
        run = durable_run()
        if run is None:
            return None
        # Each group counts for itself, as groups beside each other come here in any order.
        place = "" if run.group is None else f"{run.group}/"
        numbers = self._runs.setdefault(run, Counter())
        numbers[place] += 1
        return str(uuid.uuid5(_RUN_IDS, f"{run.execution_id}/{place}{self.name}/{numbers[place]}"))

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """Return an id that is the same on every attempt."""
        return None if durable_run() is None else conversation_id_from_run_id(run_id)

    async def get_run_start_time(self, run_id: str) -> datetime | None:
        """Return when the run began, on the first attempt: its `timeout` counts from there."""
        run = durable_run()
        if run is None:
            return None
        started: datetime = await run.step(step_name(f"{self.name} started {run_id}"), _now)
        return started

    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Run the agent with waits of its own, and without spans for what is only replayed."""
        run = durable_run()
        if run is None:
            self._refuse_plain_agents()
            self._say_if_inside_a_step()
            return await super().wrap_run(ctx, handler=handler)
        with running(ctx), external_event_scope(EventWaiter(run)), replay_scope(), Agent.using_sleep(run.sleep):
            return await super().wrap_run(ctx, handler=handler)

    def _refuse_plain_agents(self) -> None:
        if isinstance(current_run(), Run):
            raise UserError(
                f"Agent {self.name!r} runs in the code of a plain agent of celery-agents, where nothing of it would be "
                "recorded. Make that agent an `async def`, and await `agent.run(...)`."
            )

    def _say_if_inside_a_step(self) -> None:
        around = current_step()
        if around is not None and around.partition(" ")[0] not in self._said:
            self._said.add(around.partition(" ")[0])
            log.warning(
                "agent %s runs inside the step %r: all of it is part of that one step, and is repeated whole after a "
                'crash. Give the tool that runs it metadata={"celery": False}, and each of its requests is a step',
                self.name,
                around,
            )

    async def before_model_request(
        self, ctx: RunContext[AgentDepsT], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Tell the model what people have said to the execution."""
        self._interruptions.forget(ctx)
        await enqueue_heard(ctx)
        return await super().before_model_request(ctx, request_context)

    async def prepare_model_request(
        self, ctx: RunContext[AgentDepsT], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        """Tell it in an attempt after an interrupted one as well."""
        self._interruptions.add_to(ctx, request_context)
        return await super().prepare_model_request(ctx, request_context)

    async def on_model_request_error(
        self, ctx: RunContext[AgentDepsT], *, request_context: ModelRequestContext, error: Exception
    ) -> ModelResponse:
        """Ask again where somebody has interrupted, with what they said."""
        if isinstance(error, CallInterrupted) and durable_run() is not None:
            await self._interruptions.take(ctx, error)
            raise RetryModelRequest from error
        return await super().on_model_request_error(ctx, request_context=request_context, error=error)

    async def after_model_request(
        self, ctx: RunContext[AgentDepsT], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """Count what a request within a step has used up: a sub-agent's, in a tool. Any other one is a step itself.

        Where the run would end, it goes on with what people have said meanwhile.
        """
        if durable_run() is None:
            spend(**used_by(response))
        elif not response.tool_calls:
            await enqueue_heard(ctx)
        return await super().after_model_request(ctx, request_context=request_context, response=response)

    def get_wrapper_model(self, model: Model) -> Model | None:
        """Have what the model says told to the stream of the execution."""
        return None if self._options.model.stream is False else SpeakingModel(model)

    async def prepare_tools(self, ctx: RunContext[AgentDepsT], tool_defs: list[ToolDefinition]) -> list[ToolDefinition]:
        """Have a person approve the calls of tools whose metadata says so."""
        return [
            replace(one, kind="unapproved") if one.kind == "function" and _needs_approval(one) else one
            for one in await super().prepare_tools(ctx, tool_defs)
        ]

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[AgentDepsT], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Ask people about the calls that wait for them, unless another capability of the agent does."""
        run = durable_run()
        if run is None or handles_deferred_calls(ctx, CeleryDurability):
            return None
        manager = ctx.tool_manager
        tools = {} if manager is None or manager.tools is None else manager.tools
        definitions = {name: tool.tool_def for name, tool in tools.items()}
        return await decide(run, requests, definitions, self._approval_timeout)


class StepBackend(JournalCallableOperationBackend[StepOptions]):
    """Takes each operation as a step of the run that the code belongs to."""

    def __init__(self, *, agent_name: str, default_model_id: str | None, config: RoleOptions) -> None:
        super().__init__(agent_name=agent_name, default_model_id=default_model_id, config=config)
        self._agent_name = agent_name

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: StepOptions,
    ) -> object:
        """Return the recorded result of the operation, which is made now if there is none."""
        run = durable_run()
        if run is None:
            return await body()
        what = described(self._agent_name, operation_id, name, cache_key)
        usage = None if what.tool is None else UsageOfCall(cast(RunContext[Any], cache_key[2]))
        executed = False

        async def unit() -> object:
            nonlocal executed
            executed = True
            return await body() if usage is None else await usage.recorded(body)

        try:
            result = await take(run, what.name, unit, config, what.called_as, used_by_recorded)
            return result if usage is None else usage.counted(result)
        except OF_A_CALL as error:
            if what.tool is None:
                raise
            raise (ModelRetry if isinstance(error, StepTimeout) else ToolFailed)(told(error)) from error
        finally:
            record_durable_unit(executed=executed)


def _now() -> datetime:
    return datetime.now(UTC)


def _needs_approval(tool: ToolDefinition) -> bool:
    options = StepOptions.of_metadata(tool.name, tool.metadata)
    return options is not False and bool(options.requires_approval)
