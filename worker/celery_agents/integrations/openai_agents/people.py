"""Calls that wait for people: the SDK's interruptions as approvals, awaited without a worker's slot."""

import asyncio
from typing import Any

from agents import RunState, ToolApprovalItem

from celery_agents.define.names import step_name
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.errors import ApprovalDenied, ApprovalExpired
from celery_agents.integrations.openai_agents.scope import RunScope
from celery_agents.integrations.openai_agents.tools import arguments_of


async def decide(run: AsyncRun, scope: RunScope, result: Any) -> RunState[Any]:
    """Return the state of an interrupted run with what people decided: all are asked at once.

    Arguments that a person edits reach the tool. The model still sees its own in the history: the SDK refuses to go on
    with a call that is another than the model's.
    """
    state: RunState[Any] = result.to_state()
    items: list[ToolApprovalItem] = list(result.interruptions)
    refusals = await asyncio.gather(*(_refusal(run, scope, item) for item in items))
    for item, refusal in zip(items, refusals, strict=True):
        if refusal is None:
            state.approve(item)
        else:
            state.reject(item, rejection_message=refusal)
    return state


async def _refusal(run: AsyncRun, scope: RunScope, item: ToolApprovalItem) -> str | None:
    tool, call_id, arguments = item.name or "tool", item.call_id or "", arguments_of(item.arguments)
    description, schema = _known(scope, item)
    try:
        edited = await run.approve(
            tool,
            arguments,
            description=description,
            schema=schema,
            timeout=scope.options.approval_timeout,
            name=step_name(f"approve {tool} {call_id}"),
        )
    except ApprovalDenied as denied:
        return f"A person denied this call{f': {denied.reason}' if denied.reason else '.'}"
    except ApprovalExpired:
        return "Nobody approved this call in time."
    if edited == arguments:
        return None
    if schema is None:
        return f"A person approved this call only with other arguments: {edited}"
    scope.edits[call_id] = edited
    return None


def _known(scope: RunScope, item: ToolApprovalItem) -> tuple[str, dict[str, Any] | None]:
    """Return the description of the tool and the JSON Schema of its arguments; None if the call is not made here."""
    for tool in getattr(item.agent, "tools", ()):
        if tool.name == item.tool_name and hasattr(tool, "params_json_schema"):
            return tool.description, tool.params_json_schema
    for listed in scope.listings.values():
        for one in listed:
            if one["name"] == item.tool_name:
                return one.get("description") or "", one["inputSchema"]
    return "", None
