"""Tools whose calls are steps, named by the id that the model gave the call."""

import dataclasses
import inspect
import json
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from agents import CustomTool, FunctionTool, ToolOutputFileContent, ToolOutputImage, ToolOutputText, ToolTimeoutError
from agents.tool import default_tool_timeout_error_message
from agents.tool_context import ToolContext
from pydantic_core import to_jsonable_python

from celery_agents.define.called_as import CalledAs
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.errors import StepTimeout
from celery_agents.integrations.openai_agents.scope import RunnerOptions, scope_around
from celery_agents.integrations.step_options import StepOptions
from celery_agents.integrations.steps import OF_A_CALL, durable_run, take, told

Invoke = Callable[[ToolContext[Any], str], Awaitable[Any]]


class DurableInvoker:
    """Calls a tool as a step. `options` are None for a tool that takes steps itself: an agent as a tool."""

    def __init__(self, tool: FunctionTool, options: StepOptions | None) -> None:
        self._tool = tool
        self._options = options

    async def __call__(self, context: ToolContext[Any], arguments: str) -> Any:
        """Return what the tool returns, or has returned, or a text about why there is nothing."""
        run, scope = durable_run(), scope_around()
        if run is None or scope is None:
            return await self._tool.on_invoke_tool(context, arguments)
        edited = scope.edits.get(context.tool_call_id)
        if edited is not None:
            arguments = json.dumps(edited)
        if self._options is None:
            return await self._tool.on_invoke_tool(context, arguments)
        if edited is not None:
            context = _of_arguments(context, arguments)
        return await self._step(run, self._options, context, arguments)

    async def _step(self, run: AsyncRun, options: StepOptions, context: ToolContext[Any], arguments: str) -> Any:
        tool = self._tool

        async def unit() -> Any:
            output = await tool.on_invoke_tool(context, arguments)
            return recorded(output) if tool.output_json_schema is None else to_jsonable_python(output)

        called = CalledAs(kind="tool", name=tool.name, arguments=arguments_of(arguments))
        try:
            return await take(run, f"{tool.name} {context.tool_call_id}", unit, options, called)
        except StepTimeout as timeout:
            return await _timed_out(tool, context, timeout)
        except OF_A_CALL as error:
            return told(error)


async def _timed_out(tool: FunctionTool, context: ToolContext[Any], timeout: StepTimeout) -> Any:
    """Do what the SDK does when a tool has taken longer than it may."""
    error = ToolTimeoutError(tool_name=tool.name, timeout_seconds=timeout.seconds)
    if tool.timeout_behavior == "raise_exception":
        raise error from timeout
    if tool.timeout_error_function is None:
        return default_tool_timeout_error_message(tool_name=tool.name, timeout_seconds=timeout.seconds)
    said = tool.timeout_error_function(context, error)
    return await said if inspect.isawaitable(said) else said


def durable_tool(tool: Any, options: RunnerOptions) -> Any:
    """Return the tool with its calls as steps. Of one that the service runs there is no call here.

    Its timeout becomes that of the step: the SDK would only stop waiting for it.
    """
    if isinstance(tool, FunctionTool):
        given = options.of_tool(tool.name)
        if given is False or (getattr(tool, "_is_agent_tool", False) and not given.group):
            return dataclasses.replace(tool, on_invoke_tool=DurableInvoker(tool, None))
        own = None if tool.timeout_seconds is None else timedelta(seconds=tool.timeout_seconds)
        taken = given.over(StepOptions(timeout=own))
        return dataclasses.replace(
            tool,
            on_invoke_tool=DurableInvoker(tool, taken),
            timeout_seconds=None,
            needs_approval=True if taken.requires_approval else _policy(tool),
        )
    if isinstance(tool, CustomTool):
        return dataclasses.replace(tool, on_invoke_tool=_custom(tool, options))
    return tool


def _policy(tool: FunctionTool) -> Any:
    """Return the tool's rule about approvals, as strict as the SDK has it for a tool that is not wrapped.

    A rule sees the arguments as the model gave them. Where the tool would be called with others, after defaults or a
    validator, a person is asked.
    """
    rule, prepare = tool.needs_approval, getattr(tool.on_invoke_tool, "prepare_arguments", None)
    if not callable(rule) or prepare is None:
        return rule

    async def needs_approval(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
        prepared = prepare(json.dumps(arguments), tool.name)
        if prepared is not None and not prepared.unchanged:
            return True
        return bool(await _awaited(rule(context, arguments, call_id)))

    return needs_approval


def _custom(tool: CustomTool, options: RunnerOptions) -> Invoke:
    given = options.of_tool(tool.name)

    async def invoke(context: ToolContext[Any], given_input: str) -> Any:
        run = durable_run()
        if run is None or given is False:
            return await _awaited(tool.on_invoke_tool(context, given_input))

        async def unit() -> Any:
            return recorded(await _awaited(tool.on_invoke_tool(context, given_input)))

        called = CalledAs(kind="tool", name=tool.name, arguments={"input": given_input})
        try:
            return await take(run, f"{tool.name} {context.tool_call_id}", unit, given, called)
        except OF_A_CALL as error:
            return told(error)

    return invoke


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def arguments_of(text: str | None) -> dict[str, Any]:
    """Return the arguments of a call by name; what is no object of JSON is one argument, `input`."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = text
    return found if isinstance(found, dict) else {"input": found}


def recorded(output: Any) -> Any:
    """Return what a tool returns as JSON that the SDK makes the same of: the model sees no difference.

    What is neither JSON nor a text, an image or a file becomes the text that the model would see of it.
    """
    if isinstance(output, ToolOutputText | ToolOutputImage | ToolOutputFileContent):
        return output.model_dump(exclude_none=True)
    if isinstance(output, list | tuple) and any(hasattr(one, "model_dump") for one in output):
        whole = [recorded(one) for one in output]
        return whole if all(isinstance(one, dict) for one in whole) else str(output)
    return output if _is_json(output) else str(output)


def _is_json(value: Any) -> bool:
    if value is None or type(value) in (str, bool, int):
        return True
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is list:
        return all(map(_is_json, value))
    return type(value) is dict and all(type(name) is str and _is_json(one) for name, one in value.items())


def _of_arguments(context: ToolContext[Any], arguments: str) -> ToolContext[Any]:
    """Return the context of the same call with these arguments."""
    call = context.tool_call
    return ToolContext.from_agent_context(
        context,
        context.tool_call_id,
        tool_call=None if call is None else call.model_copy(update={"arguments": arguments}),
        tool_name=context.tool_name,
        tool_arguments=arguments,
        tool_namespace=context.tool_namespace,
        agent=context.agent,
        run_config=context.run_config,
    )
