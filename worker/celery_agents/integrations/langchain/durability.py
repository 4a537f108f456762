"""`DurabilityMiddleware`: each call of a model or a tool by an agent of LangChain is a step of the execution."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal, NotRequired

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.config import get_config
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from agent_statestore.plain_text import line_logger
from celery_agents.define.called_as import CalledAs
from celery_agents.define.names import step_name
from celery_agents.define.retry import Retry
from celery_agents.define.saying import CallInterrupted
from celery_agents.engine.outcome import ExecutionUnwound
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.engine.run.current_run import current_step
from celery_agents.errors import ApprovalDenied, ApprovalExpired, RegistrationError
from celery_agents.integrations.feeding import feed
from celery_agents.integrations.langchain.steering import heard, inner_agents, interrupted_with, is_end
from celery_agents.integrations.langgraph.attempt import unwind
from celery_agents.integrations.langgraph.speaking import silent
from celery_agents.integrations.langgraph.steps import (
    WITHOUT_RESULT,
    async_run,
    placed,
    refuse_sync,
    take,
    within,
)
from celery_agents.integrations.langgraph.tools import schema_of
from celery_agents.integrations.step_options import StepOptions
from celery_agents.integrations.steps import told

log = line_logger(__name__)

ToolResult = ToolMessage | Command[Any]


class DurableState(AgentState[Any]):
    """A field by which a graph shows that its models and tools are called in steps: see `langgraph.nodes`."""

    celery_agents_durability: NotRequired[Annotated[None, PrivateStateAttr]]


class DurabilityMiddleware(AgentMiddleware[DurableState, Any, Any]):
    """Makes the calls of models and tools durable where they are part of an execution; elsewhere it does nothing.

    Put it last in `middleware=[...]`: what stands after it is part of its steps.

    `model` are the options of calls of models, by default `Retry.for_models()`. `tool` are those of calls of tools,
    which a tool's own `extras={"celery": {...}}` (or `metadata`) override, and `tools`, by the name of a tool,
    overrides both. False takes no step of a tool: it is code of the agent, runs again on each attempt, and the agents
    that it runs take steps of their own. `approval_timeout` is how long people have to approve a call of a tool whose
    options require it; None is for ever.
    """

    state_schema = DurableState

    def __init__(
        self,
        *,
        model: StepOptions | None = None,
        tool: StepOptions | None = None,
        tools: Mapping[str, StepOptions | Literal[False]] | None = None,
        approval_timeout: timedelta | None = None,
    ) -> None:
        super().__init__()
        if model is not None and model.requires_approval:
            raise RegistrationError("DurabilityMiddleware", "calls of tools can be approved, those of models cannot")
        self._model = (model or StepOptions()).over(StepOptions(retry=Retry.for_models()))
        self._tool = tool or StepOptions()
        self._tools = dict(tools or {})
        self._approval_timeout = approval_timeout
        self._said: set[str] = set()

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Take the call as a step."""
        agent, model = _agent_name(), _model_name(request.model)
        run = async_run(f"agent {agent!r}")
        if run is None:
            self._say_if_inside_a_step(agent)
            return await handler(request)
        count = len(request.messages) + (request.system_message is not None)
        title = f"{model}, {count} message{'s' * (count != 1)}"
        called = CalledAs(kind="model", name=model, title=title)
        # What people have said comes with the answer into the state; an answer that they add to is not the last.
        told: list[Any] = [*await heard(agent)]
        while True:
            asked = request.override(messages=[*request.messages, *told]) if told else request
            try:
                response: ModelResponse[Any] = await take(
                    run, f"{agent} model", partial(_called, handler, asked), self._model, called
                )
            except CallInterrupted as interrupted:
                told += await interrupted_with(agent, interrupted)
                continue
            more = await heard(agent) if is_end(response) else []
            told += response.result
            if not more:
                return replace(response, result=told)
            told += more

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolResult]]
    ) -> ToolResult:
        """Take the call as a step."""
        tool = request.tool_call["name"]
        run = async_run(f"tool {tool!r}")
        if run is None:
            return await handler(request)
        options = self._options(tool, request)
        of_call = f"{tool} {request.tool_call['id']}"
        if options is False:
            with within(of_call), inner_agents():
                return await handler(request)
        if options.requires_approval:
            decided = await self._approved(run, of_call, request)
            if isinstance(decided, ToolMessage):
                return decided
            request = decided
        called = CalledAs(kind="tool", name=tool, arguments=request.tool_call["args"])
        try:
            result: ToolResult = await take(run, of_call, lambda: handler(request), options, called)
        except WITHOUT_RESULT as error:
            return _failed(request, told(error))
        return result

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Call the model, outside of executions. Raise `RuntimeError` in the code of an agent of ours."""
        refuse_sync(f"agent {_agent_name()!r}")
        return handler(request)

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolResult]) -> ToolResult:
        """Call the tool, outside of executions. Raise `RuntimeError` in the code of an agent of ours."""
        refuse_sync(f"tool {request.tool_call['name']!r}")
        return handler(request)

    def _options(self, tool: str, request: ToolCallRequest) -> StepOptions | Literal[False]:
        own = self._tools.get(tool)
        if own is False:
            return False
        of_metadata = StepOptions.of_metadata(tool, _metadata(request.tool))
        if of_metadata is False:
            return False if own is None else own.over(self._tool)
        return (own or StepOptions()).over(of_metadata.over(self._tool))

    async def _approved(self, run: AsyncRun, of_call: str, request: ToolCallRequest) -> ToolCallRequest | ToolMessage:
        """Return the call as a person approved it, or what the model is told in its place."""
        call, tool = request.tool_call, request.tool
        try:
            arguments = await run.approve(
                call["name"],
                call["args"],
                description="" if tool is None else tool.description,
                schema=None if tool is None else schema_of(tool),
                timeout=self._approval_timeout,
                name=step_name(placed(f"approve {of_call}")),
            )
        except ApprovalDenied as denied:
            return _failed(request, f"A person denied this call{f': {denied.reason}' if denied.reason else '.'}")
        except ApprovalExpired:
            return _failed(request, "Nobody approved this call in time.")
        except ExecutionUnwound as stopped:
            await unwind(stopped)
        return request.override(tool_call={**call, "args": arguments})

    def _say_if_inside_a_step(self, agent: str) -> None:
        around = current_step()
        if around is not None and around.partition(" ")[0] not in self._said:
            self._said.add(around.partition(" ")[0])
            log.warning(
                "agent %s runs inside the step %r: all of it is part of that one step, and is repeated whole after a "
                "crash. For the tool that runs it, set DurabilityMiddleware(tools={'TOOL': False}), and each of its "
                "calls is a step",
                agent,
                around,
            )


def _failed(request: ToolCallRequest, content: str) -> ToolMessage:
    call = request.tool_call
    return ToolMessage(content=content, name=call["name"], tool_call_id=call["id"], status="error")


async def _called(
    handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]], request: ModelRequest[Any]
) -> ModelResponse[Any]:
    """Call the model. One that answers in pieces is asked to tell what that has used up, as it does otherwise."""
    model = request.model
    if feed() is None or getattr(model, "stream_usage", True):
        return await handler(request)
    if "stream_usage" not in model.model_fields_set or getattr(model, "stream_usage", None) is None:
        return await handler(request.override(model=model.model_copy(update={"stream_usage": True})))
    with silent():
        return await handler(request)


def _agent_name() -> str:
    return str((get_config().get("metadata") or {}).get("lc_agent_name") or "agent")


def _model_name(model: Any) -> str:
    found = getattr(model, "model_name", None) or getattr(model, "model", None)
    return found if isinstance(found, str) else type(model).__name__


def _metadata(tool: BaseTool | None) -> dict[str, Any]:
    return {} if tool is None else {**(tool.metadata or {}), **(tool.extras or {})}
