"""How the steps of a tool, a model or an MCP server are taken: by default, by role, and by a tool's metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Final, Literal

from pydantic_ai.durable_exec import DurableOperationId, ToolsetGetInstructionsId, ToolsetGetToolsId
from pydantic_ai.exceptions import UserError

from celery_agents.define.crash_policy import OnCrash
from celery_agents.define.model_errors import is_passing
from celery_agents.define.retry import Retry

_LISTINGS: Final = (ToolsetGetToolsId, ToolsetGetInstructionsId)

# The key of a tool's metadata: `@agent.tool(metadata={"celery": {"on_crash": "ask"}})`; False takes no step.
METADATA_KEY: Final = "celery"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """What `run.options` knows of a step: see there. None leaves what is less specific.

    `requires_approval` has a person approve each call of the tool before it is made.
    """

    retry: Retry | None = None
    timeout: timedelta | None = None
    on_crash: OnCrash | None = None
    requires_approval: bool | None = None

    def over(self, general: "StepOptions") -> "StepOptions":
        """Return these options, with those of `general` where these say nothing."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(general, **{name: value for name, value in given.items() if value is not None})

    @classmethod
    def of_metadata(cls, tool: str, metadata: Mapping[str, Any] | None) -> "StepOptions | Literal[False]":
        """Return what a tool's metadata says; False if its calls are to be no steps. Raise `UserError`."""
        given = (metadata or {}).get(METADATA_KEY)
        if given is None or given is False or isinstance(given, cls):
            return cls() if given is None else given
        if not isinstance(given, Mapping):
            raise UserError(
                f"tool {tool!r}: metadata[{METADATA_KEY!r}] is a dict of options or False, not {given!r:.80}"
            )
        known = {field.name for field in fields(cls)}
        unknown = set(given) - known
        if unknown:
            raise UserError(f"tool {tool!r}: unknown options {sorted(unknown)} in metadata; there are {sorted(known)}")
        return cls(**given)


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
            general = replace(general, on_crash=_on_crash_hinted(tool.tool_def.metadata))
        if general.retry is None and getattr(operation_id, "toolset_kind", None) == "mcp" and own.on_crash != "fail":
            general = replace(general, retry=_CONNECTING if general.on_crash in (None, "retry") else None)
        return own.over(general)

    def _of_toolset(self, operation_id: DurableOperationId) -> StepOptions:
        toolset_id = getattr(operation_id, "toolset_id", None)
        own = None if toolset_id is None else self.toolsets.get(toolset_id)
        return self.tool if own is None else own.over(self.tool)


def _on_crash_hinted(metadata: Mapping[str, Any] | None) -> OnCrash | None:
    """Return what an MCP tool's annotations say about a call that may have happened ("Tool annotations" of MCP).

    A call that only reads, or may be repeated, is repeated. Any other one that is annotated is not, and the model is
    told so. Of a tool without annotations nothing is known.
    """
    annotations = (metadata or {}).get("annotations")
    if not isinstance(annotations, Mapping):
        return None
    return "retry" if annotations.get("readOnlyHint") or annotations.get("idempotentHint") else "fail"
