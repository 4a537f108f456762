"""How the steps of a tool, a model or an MCP server are taken: by role, and by a tool's metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal

from pydantic_ai.durable_exec import DurableOperationId, ToolsetGetInstructionsId, ToolsetGetToolsId

from celery_agents.define.model_errors import is_passing
from celery_agents.define.retry import Retry
from celery_agents.integrations.step_options import METADATA_KEY, StepOptions, on_crash_hinted

__all__ = ["METADATA_KEY", "RoleOptions", "StepOptions"]

_LISTINGS: Final = (ToolsetGetToolsId, ToolsetGetInstructionsId)
_LISTING: Final = StepOptions(retry=Retry(retries=6, first_delay=timedelta(seconds=1), max_delay=timedelta(minutes=1)))
# Of calls of a server that cannot be reached. What a server answers is a result, its errors too.
_CONNECTING: Final = Retry(retries=3, first_delay=timedelta(seconds=1), retry_if=is_passing)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleOptions:
    """The options by what is called, as Pydantic AI asks for them (`DurableOperationConfig`).

    `toolsets` are those of MCP servers and other toolsets, by their id.
    """

    model: StepOptions
    tool: StepOptions
    toolsets: Mapping[str, StepOptions]

    def base(self, role: str, *, operation_id: DurableOperationId) -> StepOptions:
        """Return the options of an operation that is no call of a tool."""
        if role == "model":
            return self.model
        if role != "tool":
            return StepOptions()
        options = self._of_toolset(operation_id)
        # A listing that failed for good would fail every attempt: mostly a server is not up yet.
        return options.over(_LISTING) if isinstance(operation_id, _LISTINGS) else options

    def for_tool(
        self, role: str, *, operation_id: DurableOperationId, tool: Any, tool_name: str
    ) -> StepOptions | Literal[False]:
        """Return the options of a call of this tool; False if it is to be no step."""
        del role
        own = StepOptions.of_metadata(tool_name, None if tool is None else tool.tool_def.metadata)
        if own is False:
            return False
        general = self._of_toolset(operation_id)
        if general.on_crash is None and tool is not None:
            general = replace(general, on_crash=on_crash_hinted((tool.tool_def.metadata or {}).get("annotations")))
        if general.retry is None and getattr(operation_id, "toolset_kind", None) == "mcp" and own.on_crash != "fail":
            general = replace(general, retry=_CONNECTING if general.on_crash in (None, "retry") else None)
        return own.over(general)

    def _of_toolset(self, operation_id: DurableOperationId) -> StepOptions:
        toolset_id = getattr(operation_id, "toolset_id", None)
        own = None if toolset_id is None else self.toolsets.get(toolset_id)
        return self.tool if own is None else own.over(self.tool)
