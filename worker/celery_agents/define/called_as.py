"""What a step that calls a framework's tool or model is recorded as, in place of the function that does it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent_statestore.envelope import dump
from agent_statestore.errors import NotSerialisable
from agent_statestore.records import Action
from celery_agents.define import types
from celery_agents.errors import RegistrationError


class CalledKind(StrEnum):
    """What is called: a tool, a model, or a function that handles something which happened (`handler`)."""

    TOOL = "tool"
    MODEL = "model"
    HANDLER = "handler"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledAs:
    """What a step calls, as people and monitors are to see it, whatever function does it.

    For code that calls tools and models which are no functions with `@tool`: those of a framework. `kind` is "tool",
    "model" or "handler", `name` that of the tool or model. `arguments` by name have a JSON form; they are recorded with
    the step, shown to whoever is asked about it (`on_crash="ask"`), and compared on a replay, for which None is nothing
    to compare. `title` is a line for people in place of name and arguments.

    Raise `RegistrationError` for an unknown kind or a name that is no text, and at the call `NotSerialisable` or
    `ValueTooLarge` for arguments that cannot be recorded.
    """

    kind: CalledKind | str
    name: str
    arguments: Mapping[str, Any] | None = None
    title: str | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "kind", CalledKind(self.kind))
        except ValueError as error:
            kinds = ", ".join(repr(kind.value) for kind in CalledKind)
            raise RegistrationError("called_as", f"kind is one of {kinds}, not {self.kind!r:.80}") from error
        if not isinstance(self.name, str) or not self.name:
            raise RegistrationError("called_as", f"needs the name of what is called, not {self.name!r:.80}")

    def action(self, max_value_bytes: int) -> Action:
        """Return what the journal keeps."""
        described = None
        if self.arguments is not None:
            try:
                described = types.carried(types.ANY, dict(self.arguments), "arguments")[1]
            except ValueError as error:
                raise NotSerialisable("arguments", str(error)) from error
            dump(described, f"arguments of {self.kind} {self.name!r:.100}", max_value_bytes)
        return Action(kind=str(self.kind), tool=self.name, input=described, title=self.title)
