"""What an answer must be: one check for the door, where it is given, and for the worker, where it is used.

A question is stored with a name for its type. A process that has the agent's code finds the type by it, and so holds an
answer against the very validators of the worker. A name is looked up among what the agent's own function can name and
in a fixed list, never in modules that a stored text chooses.
"""

import inspect
import types as python_types
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

import pydantic

from agent_statestore.envelope import dump
from agent_statestore.records import JSONValue
from celery_agents.define import types
from celery_agents.errors import RegistrationError

_PLAIN: Final[Mapping[str, Any]] = {
    f"{kind.__module__}:{kind.__qualname__}": kind
    for kind in (bool, int, float, str, type(None), datetime, date, time, timedelta, Decimal, UUID)
}
_GENERIC: Final[Mapping[str, Any]] = {kind.__name__: kind for kind in (list, dict, set, frozenset, tuple)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an answer must be: of the type of `adapter`, and one of the `choices`, if there are any."""

    adapter: types.Adapter
    choices: tuple[JSONValue, ...] | None = None

    def problems(self, value: JSONValue, field: str) -> list[str]:
        """Return what is wrong with an answer, one sentence per fault; an empty list if it will do."""
        try:
            types.from_json(self.adapter, value, field)
        except pydantic.ValidationError as error:
            return types.problems(error)
        except Exception as error:  # noqa: BLE001 - whatever a validator of the user's raises: the answer will not do
            return [f"{type(error).__name__}: {error}"]
        if self.choices is not None and not any(same(value, choice) for choice in self.choices):
            return [f"{value!r:.200} is not one of {list(self.choices)!r:.200}"]
        return []

    def json_schema(self) -> dict[str, JSONValue] | None:
        """Return what a client that lacks the code can hold an answer against."""
        if self.choices is not None:
            return {"enum": list(self.choices)}
        return None if self.adapter is types.ANY else self.adapter.json_schema()


def same(one: JSONValue, other: JSONValue) -> bool:
    """Return whether two values are the same as JSON has it: true is not 1."""
    return dump(one, "answer") == dump(other, "answer")


def expected_by(
    answer_type: JSONValue, schema: Mapping[str, JSONValue] | None, names: Mapping[str, Any]
) -> Expected | None:
    """Return what a stored question expects; None where this process has another type under its name, or none."""
    try:
        adapter = types.adapter_for(type_named(answer_type, names), "answer")
        choices = schema["enum"] if schema is not None and set(schema) == {"enum"} else None
        expected = Expected(adapter=adapter, choices=None if choices is None else tuple(choices))
        is_known = expected.json_schema() == (None if schema is None else dict(schema))
    except (LookupError, TypeError, RegistrationError, pydantic.PydanticUserError):
        return None
    return expected if is_known else None


# -- names of types ----------------------------------------------------------------------------------------------------


def names_of(function: Any) -> dict[str, Any]:
    """Return what the code of a function can name: its module's globals, and what it has from around it."""
    plain = inspect.unwrap(types.plain_function(function))
    names = dict(getattr(plain, "__globals__", {}))
    code, cells = getattr(plain, "__code__", None), getattr(plain, "__closure__", None) or ()
    for name, cell in zip(code.co_freevars if code is not None else (), cells, strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:
            continue  # it is not assigned yet
    return names


def name_of_type(annotation: Any, names: Mapping[str, Any]) -> JSONValue:
    """Return a name by which `type_named` finds an annotation again; None if it has none."""
    for name, value in names.items():
        if value is annotation and _is_type(value):
            return name
    for name, value in _PLAIN.items():
        if value is annotation or (annotation is None and value is type(None)):
            return name
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {"literal": list(args)} if all(type(one) in (str, int, bool, type(None)) for one in args) else None
    if origin is None:
        return None
    kind = "any of" if origin in (Union, python_types.UnionType) else getattr(origin, "__name__", "")
    if kind != "any of" and _GENERIC.get(kind) is not origin:
        return None
    parts = ["..." if one is ... else name_of_type(one, names) for one in args]
    return None if None in parts else {kind: parts}


def type_named(named: JSONValue, names: Mapping[str, Any]) -> Any:
    """Return the annotation that `name_of_type` named. Raise `LookupError` or `TypeError` where there is none."""
    if isinstance(named, str):
        if named in _PLAIN:
            return _PLAIN[named]
        found = names[named]
        if not _is_type(found):
            raise LookupError(named)
        return found
    ((kind, parts),) = named.items() if isinstance(named, dict) and len(named) == 1 else (("", []),)
    if kind == "literal":
        return Literal[tuple(parts)]
    args = tuple(... if part == "..." else type_named(part, names) for part in parts)
    return Union[args] if kind == "any of" else _GENERIC[kind][args]  # noqa: UP007 - its members are known only now


def _is_type(value: Any) -> bool:
    """Return whether something is an annotation, and no function, which pydantic would call."""
    # The class of what `type Name = ...` makes is new in Python 3.12.
    return isinstance(value, type) or get_origin(value) is not None or type(value).__name__ == "TypeAliasType"
