"""An error as a record, for whoever has to show it or to raise it again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

JSONValue: TypeAlias = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """An error as data: enough to show it, and to raise it again.

    `type` is `module:qualified_name`; `args` are what its class is called with to make it again, None if unknown.
    `bases` are the classes that it derives from, nearest first. `fields` are its attributes. `tuples` are the paths,
    such as `("args", 1)`, of what was a tuple and is a list in JSON. `not_kept` names what JSON does not carry as it
    was: a field by its name, an argument as `args[1]`. `members` are those of an exception group.
    """

    type: str
    message: str
    args: tuple[JSONValue, ...] | None = None
    bases: tuple[str, ...] = ()
    traceback: str | None = None
    fields: Mapping[str, JSONValue] = field(default_factory=dict)
    tuples: tuple[tuple[str | int, ...], ...] = ()
    not_kept: tuple[str, ...] = ()
    members: "tuple[ErrorInfo, ...]" = ()
    cause: "ErrorInfo | None" = None
    notes: tuple[str, ...] = ()
