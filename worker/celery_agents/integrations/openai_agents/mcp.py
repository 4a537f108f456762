"""MCP servers whose listings and calls are steps. A replay of what is recorded connects to none."""

from collections.abc import Awaitable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Final

from agents.mcp import MCPServer, MCPToolMetaContext
from mcp.types import CallToolResult, Tool

from celery_agents.define.called_as import CalledAs
from celery_agents.define.retry import Retry
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.errors import StepTimeout
from celery_agents.integrations.openai_agents.connections import ServerUnreachable
from celery_agents.integrations.openai_agents.scope import RunScope, scope_around
from celery_agents.integrations.step_options import StepOptions, on_crash_hinted
from celery_agents.integrations.steps import OF_A_CALL, durable_run, take, told

# Nothing was asked of a server that could not be reached: it is tried again, for about ten minutes.
_REACHING: Final = Retry(
    retries=10, retry_on=(ServerUnreachable,), first_delay=timedelta(seconds=1), max_delay=timedelta(minutes=2)
)
# Which call of the model's the SDK is making of a server.
_call_id: Final[ContextVar[str | None]] = ContextVar("openai_agents_call_id", default=None)


class DurableServer:
    """An MCP server with its listings and calls as steps. All else is the server's own.

    The server is given unconnected. Whichever step needs it first connects it.
    """

    def __init__(self, server: MCPServer) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    async def tool_meta_resolver(self, context: MCPToolMetaContext) -> dict[str, Any] | None:
        """Learns which call comes next; the SDK asks for metadata right before it calls."""
        _call_id.set(getattr(context.run_context, "tool_call_id", None))
        own = self._server.tool_meta_resolver
        if own is None:
            return None
        meta = own(context)
        return await meta if isinstance(meta, Awaitable) else meta

    async def list_tools(self, run_context: Any = None, agent: Any = None) -> list[Tool]:
        """See `MCPServer`. Listed once for each agent in a run."""
        run, scope = durable_run(), scope_around()
        if run is None or scope is None:
            return await self._server.list_tools(run_context, agent)
        name = str(getattr(agent, "name", "agent"))
        listed = scope.listings.get((self._server.name, name))
        if listed is None:

            async def unit() -> Any:
                async with scope.connection(self._server).in_use():
                    return [_dumped(tool) for tool in await self._server.list_tools(run_context, agent)]

            step = f"{self._server.name} tools" if agent is None else f"{self._server.name} tools of {name}"
            reaching = StepOptions(retry=Retry(retries=_REACHING.retries, max_delay=_REACHING.max_delay))
            listed = scope.listings[self._server.name, name] = await take(run, step, unit, reaching)
        return [Tool.model_validate(tool) for tool in listed]

    async def call_tool(
        self, tool_name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None = None
    ) -> CallToolResult:
        """See `MCPServer`."""
        run, scope = durable_run(), scope_around()
        if run is None or scope is None:
            return await _call(self._server, tool_name, arguments, meta)
        call_id = _call_id.get()
        edited = arguments if call_id is None else scope.edits.get(call_id, arguments)
        return await self._step(run, scope, f"{tool_name} {call_id or ''}".strip(), tool_name, edited, meta)

    async def _step(
        self,
        run: AsyncRun,
        scope: RunScope,
        name: str,
        tool: str,
        arguments: dict[str, Any] | None,
        meta: dict[str, Any] | None,
    ) -> CallToolResult:
        async def unit() -> Any:
            async with scope.connection(self._server).in_use():
                return _dumped(await _call(self._server, tool, arguments, meta))

        options = scope.options.of_server(self._server.name)
        hinted = StepOptions(retry=_REACHING, on_crash=on_crash_hinted(self._annotations(scope, tool)))
        called = CalledAs(kind="tool", name=tool, arguments=arguments or {})
        try:
            return CallToolResult.model_validate(await take(run, name, unit, options.over(hinted), called))
        except StepTimeout as timeout:
            return _error(f"Timed out after {timeout.seconds:g} seconds.")
        except OF_A_CALL as error:
            return _error(told(error))

    def _annotations(self, scope: RunScope, tool: str) -> Any:
        for (server, _), listed in scope.listings.items():
            if server == self._server.name:
                for one in listed:
                    if one["name"] == tool:
                        return one.get("annotations")
        return None


async def _call(
    server: MCPServer, tool: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None
) -> CallToolResult:
    if meta is None:
        return await server.call_tool(tool, arguments)
    return await server.call_tool(tool, arguments, meta=meta)


def _dumped(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _error(text: str) -> CallToolResult:
    return CallToolResult.model_validate({"content": [{"type": "text", "text": text}], "isError": True})
