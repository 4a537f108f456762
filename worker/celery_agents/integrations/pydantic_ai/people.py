"""People in a run of Pydantic AI: approvals, questions and results from outside, awaited without a worker's slot."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from pydantic import JsonValue
from pydantic_ai.durable_exec import ExternalEventError, ExternalEventWaiter
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import (
    DeferredToolRequests,
    DeferredToolResults,
    RunContext,
    ToolApproved,
    ToolDefinition,
    ToolDenied,
)

from celery_agents.define.names import step_name
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.errors import ApprovalDenied, ApprovalExpired, EventTimeout


async def decide(
    run: AsyncRun, requests: DeferredToolRequests, definitions: Mapping[str, ToolDefinition], timeout: timedelta | None
) -> DeferredToolResults:
    """Return what people decide about the calls of tools that wait for them: all are asked about at once.

    A call that needs approval becomes an approval of exactly its arguments, which may be edited. A question becomes a
    question, and a call that is made elsewhere waits for the event "TOOL CALL_ID", whose payload is its result.
    """

    async def approved(call: ToolCallPart) -> ToolApproved | ToolDenied:
        arguments, definition = call.args_as_dict(), definitions.get(call.tool_name)
        try:
            edited = await run.approve(
                call.tool_name,
                arguments,
                description=(definition.description if definition else None) or "",
                schema=None if definition is None else definition.parameters_json_schema,
                timeout=timeout,
                name=step_name(f"approve {call.tool_name} {call.tool_call_id}"),
            )
        except ApprovalDenied as denied:
            return ToolDenied(f"A person denied this call{f': {denied.reason}' if denied.reason else '.'}")
        except ApprovalExpired:
            return ToolDenied("Nobody approved this call in time.")
        return ToolApproved() if edited == arguments else ToolApproved(override_args=edited)

    async def answered(call: ToolCallPart) -> Any:
        of_call = f"{call.tool_name} {call.tool_call_id}"
        if requests.kind(call.tool_call_id) == "question":
            return await run.ask(call.args_as_dict(), name=step_name(f"ask {of_call}"))
        return await run.wait_for(step_name(of_call))

    approvals, calls = await asyncio.gather(
        asyncio.gather(*map(approved, requests.approvals)), asyncio.gather(*map(answered, requests.calls))
    )
    return requests.build_results(
        approvals={call.tool_call_id: one for call, one in zip(requests.approvals, approvals, strict=True)},
        calls={call.tool_call_id: one for call, one in zip(requests.calls, calls, strict=True)},
    )


class EventWaiter(ExternalEventWaiter):
    """Has `RequestInput` and `wait_for_external_event` wait for an event of the execution.

    The token that they hand out is `EXECUTION_ID:EVENT`; whoever answers sends that event to that execution.
    """

    def __init__(self, run: AsyncRun) -> None:
        self._run = run
        self._waits: dict[str, int] = {}

    async def wait(
        self, name: str, *, ask: Callable[[str], Awaitable[JsonValue]], timeout: timedelta | None
    ) -> JsonValue:
        """See `ExternalEventWaiter`."""
        number = self._waits[name] = self._waits.get(name, 0) + 1
        event = step_name(name if number == 1 else f"{name} {number}")
        token = f"{self._run.execution_id}:{event}"

        async def asked() -> JsonValue:
            return await ask(token)

        answer = await self._run.options(returns=Any).step(step_name(f"ask {event}"), asked)
        if answer is not None:
            return answer
        try:
            payload: JsonValue = await self._run.wait_for(event, timeout=timeout)
        except EventTimeout as error:
            raise ExternalEventError(f"No answer came within {timeout}.") from error
        return payload


def handles_deferred_calls(context: RunContext[Any], capability: type) -> bool:
    """Return whether another capability of the agent handles calls that wait for people."""
    from pydantic_ai.capabilities.abstract import AbstractCapability, leaf_capabilities

    own = AbstractCapability.handle_deferred_tool_calls
    root = context.root_capability
    return root is not None and any(
        type(leaf).handle_deferred_tool_calls is not own and not isinstance(leaf, capability)
        for leaf in leaf_capabilities(root)
    )
