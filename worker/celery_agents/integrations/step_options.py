"""How the steps of a tool, a model or an MCP server are taken, whatever framework calls them. Imports none of them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Final, Literal

from celery_agents.define.crash_policy import OnCrash
from celery_agents.define.retry import Retry
from celery_agents.errors import RegistrationError

# The key of a tool's metadata, where a framework has it: `metadata={"celery": {"on_crash": "ask"}}`; False takes no
# step.
METADATA_KEY: Final = "celery"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """What `run.options` knows of a step: see there. None leaves what is less specific.

    `requires_approval` has a person approve each call of the tool before it is made. With `group`, which is for a tool
    that runs an agent, the call is recorded as that of a tool, and what the agent does are steps of their own in it.

    With `stream=False`, models that are called in the step are asked for whole answers, and what they say is not in the
    execution's stream.

    Raise `RegistrationError` for a group with options that no group has.
    """

    retry: Retry | None = None
    timeout: timedelta | None = None
    on_crash: OnCrash | None = None
    requires_approval: bool | None = None
    group: bool | None = None
    stream: bool | None = None

    def __post_init__(self) -> None:
        if self.group and not (self.retry is None and self.timeout is None and self.on_crash is None):
            raise RegistrationError("group", "has no retry, timeout or on_crash: the steps in it may have")

    def over(self, general: "StepOptions") -> "StepOptions":
        """Return these options, with those of `general` where these say nothing."""
        if self.group:  # those of single calls are not its own
            approval = general.requires_approval if self.requires_approval is None else self.requires_approval
            return replace(self, requires_approval=approval)
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(general, **{name: value for name, value in given.items() if value is not None})

    @classmethod
    def of_metadata(cls, tool: str, metadata: Mapping[str, Any] | None) -> "StepOptions | Literal[False]":
        """Return what a tool's metadata says; False if its calls are to be no steps. Raise `RegistrationError`."""
        given = (metadata or {}).get(METADATA_KEY)
        if given is None or given is False or isinstance(given, cls):
            return cls() if given is None else given
        if not isinstance(given, Mapping):
            raise RegistrationError(
                tool, f"metadata[{METADATA_KEY!r}] is a dict of options or False, not {given!r:.80}"
            )
        known = {field.name for field in fields(cls)}
        unknown = set(given) - known
        if unknown:
            raise RegistrationError(tool, f"unknown options {sorted(unknown)} in metadata; there are {sorted(known)}")
        return cls(**given)


def refuse_group(what: str, *options: StepOptions | None) -> None:
    """Raise `RegistrationError` if any of these, which are not those of one tool, say that it is a group."""
    if any(one is not None and one.group for one in options):
        raise RegistrationError(what, "group is an option of one tool that runs an agent")


def on_crash_hinted(annotations: Any) -> OnCrash | None:
    """Return what an MCP tool's annotations say about a call that may have happened ("Tool annotations" of MCP).

    A call that only reads, or may be repeated, is repeated. Any other one that is annotated is not, and the model is
    told so. Of a tool without annotations nothing is known. They are in the protocol's form: a mapping.
    """
    if not isinstance(annotations, Mapping):
        return None
    return "retry" if annotations.get("readOnlyHint") or annotations.get("idempotentHint") else "fail"
