"""Whether a value is still the same after it went through JSON, types included, and where it is not.

The short way for plain JSON types is in `types`; only values that it does not know come here.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from types import MemberDescriptorType
from typing import Any, Final, NamedTuple

import pydantic

from agent_statestore.records import JSONValue

_ABSENT: Final = object()
_SCALARS: Final = frozenset({str, int, float, bool})
_SECRETS: Final = (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)


class Unlikeness(NamedTuple):
    """The first place where two values differ, and what differs there. It shows keys, and never a value."""

    path: str
    what: str

    def within(self, step: str) -> "Unlikeness":
        """Return the same as seen from the value around it. A path is made only where there is something to tell."""
        return Unlikeness(step + self.path, self.what)

    def __str__(self) -> str:
        return f"${self.path}: {self.what}"


class Changed(ValueError):
    """A value would not come back as it was."""

    def __init__(self, found: Unlikeness) -> None:
        super().__init__(str(found))


def difference(given: Any, back: Any) -> Unlikeness | None:
    """Return where what came back is not what was given; None if it is the same everywhere.

    An int that a float is expected of may come back as the equal float: Python's typing has one stand for the other.
    """
    if given is back:
        return None
    kind = type(given)
    if kind is not type(back):
        if kind is int and type(back) is float and given == back:
            return None
        return Unlikeness("", f"{_a(kind)} would come back as {_a(type(back))}")
    if kind in _SCALARS:
        return _equal(given, back)
    return (_look_at(given, kind) or _equal)(given, back)


def lost_as_json(given: Any, output: JSONValue) -> Unlikeness | None:
    """Return where a value without an annotation loses something in its JSON form; None if it loses nothing.

    A value of another type than JSON has becomes what JSON makes of it. That is no loss; a key that changes its type, a
    masked secret and a field that is left out are.
    """
    if isinstance(given, _SECRETS):
        return Unlikeness("", f"{_a(type(given))} would be masked") if output != given.get_secret_value() else None
    if isinstance(given, dict):
        return _lost_in_dict(given, output)
    if isinstance(given, list | tuple | set | frozenset | deque):
        return _lost_in_items(given, output)
    fields = _aliases(given)
    return _lost_in_fields(fields, given, output) if fields and isinstance(output, dict) else None


def _lost_in_dict(given: dict[Any, Any], output: JSONValue) -> Unlikeness | None:
    for key, value in given.items():
        if not isinstance(key, str) or isinstance(key, Enum):
            return Unlikeness("", f"the key {key!r:.80} of type {type(key).__name__} would become a text")
        lost = lost_as_json(value, output[key])
        if lost is not None:
            return lost.within(f"[{key!r:.80}]")
    return None


def _lost_in_items(given: Iterable[Any], output: JSONValue) -> Unlikeness | None:
    if isinstance(output, list):
        for place, (one, other) in enumerate(zip(given, output, strict=False)):
            lost = lost_as_json(one, other)
            if lost is not None:
                return lost.within(f"[{place}]")
    return None


def _lost_in_fields(fields: dict[str, str], given: Any, output: JSONValue) -> Unlikeness | None:
    for name, alias in fields.items():
        key = alias if alias in output else name
        if key not in output:
            return Unlikeness(f".{name}", "it would be left out")
        lost = lost_as_json(getattr(given, name), output[key])
        if lost is not None:
            return lost.within(f".{name}")
    return None


def _aliases(given: Any) -> dict[str, str]:
    """Return under which key each field of an instance may be written."""
    known = getattr(type(given), "__pydantic_fields__", {})
    names = list(known)
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        names = [field.name for field in dataclasses.fields(given)]
    return {name: getattr(known.get(name), "serialization_alias", None) or name for name in names}


# -- the same, by kind -------------------------------------------------------------------------------------------------


def _look_at(given: Any, kind: type) -> "Callable[[Any, Any], Unlikeness | None] | None":
    if isinstance(given, dict):
        return _in_dict
    if isinstance(given, list | tuple | deque):
        return _in_items
    if isinstance(given, set | frozenset):
        return _in_set
    if isinstance(given, pydantic.BaseModel):
        return _in_model
    if dataclasses.is_dataclass(kind):
        return _in_dataclass
    has_equality = getattr(kind, "__eq__", None) is not object.__eq__
    return None if has_equality else _in_attributes


def _equal(given: Any, back: Any) -> Unlikeness | None:
    if given == back or (given != given and back != back):
        return None
    return Unlikeness("", f"{_a(type(given))} would come back with another value")


def _in_dict(given: dict[Any, Any], back: dict[Any, Any]) -> Unlikeness | None:
    if getattr(given, "default_factory", None) != getattr(back, "default_factory", None):
        return Unlikeness("", "its default_factory would be another one")
    keys = {key: key for key in back}
    for key, value in given.items():
        other = keys.get(key, _ABSENT)
        if other is _ABSENT or difference(key, other) is not None:
            return Unlikeness("", f"the key {key!r:.80} of type {type(key).__name__} would be lost or changed")
        found = difference(value, back[key])
        if found is not None:
            return found.within(f"[{key!r:.80}]")
    return None if len(given) == len(back) else Unlikeness("", "keys would be added")


def _in_items(given: Any, back: Any) -> Unlikeness | None:
    if len(given) != len(back):
        return Unlikeness("", f"{len(given)} items would come back as {len(back)}")
    if isinstance(given, deque) and given.maxlen != back.maxlen:
        return Unlikeness("", "its maxlen would be lost")
    for place, (one, other) in enumerate(zip(given, back, strict=True)):
        found = difference(one, other)
        if found is not None:
            return found.within(f"[{place}]")
    return None


def _in_set(given: Any, back: Any) -> Unlikeness | None:
    members = {member: member for member in back}
    for member in given:
        other = members.get(member, _ABSENT)
        if other is _ABSENT or difference(member, other) is not None:
            return Unlikeness("", f"a member of type {type(member).__name__} would be lost or changed")
    return None if len(given) == len(back) else Unlikeness("", "members would be added")


def _in_model(given: Any, back: Any) -> Unlikeness | None:
    # Not the whole `__dict__`, where cached properties stand, too.
    return (
        _in_fields(type(given).__pydantic_fields__, given, back)
        or _in_dict(given.__pydantic_extra__ or {}, back.__pydantic_extra__ or {})
        or _in_dict(given.__pydantic_private__ or {}, back.__pydantic_private__ or {})
    )


def _in_dataclass(given: Any, back: Any) -> Unlikeness | None:
    # What is neither an argument nor part of equality is the class's own affair: a cache, a lock.
    names = [field.name for field in dataclasses.fields(given) if field.init or field.compare]
    return _in_fields(names, given, back)


def _in_attributes(given: Any, back: Any) -> Unlikeness | None:
    """Compare what has no equality of its own by its attributes."""
    names = [*getattr(given, "__dict__", ()), *_slots(type(given))]
    if not names and not hasattr(given, "__dict__"):
        return Unlikeness("", f"nobody can tell whether {_a(type(given))} comes back the same")
    return _in_fields(names, given, back)


def _slots(kind: type) -> list[str]:
    return [name for one in kind.__mro__ for name, held in vars(one).items() if isinstance(held, MemberDescriptorType)]


def _in_fields(names: Iterable[str], given: Any, back: Any) -> Unlikeness | None:
    for name in names:
        found = difference(getattr(given, name, _ABSENT), getattr(back, name, _ABSENT))
        if found is not None:
            return found.within(f".{name}")
    return None


def _a(kind: type) -> str:
    name = kind.__qualname__.rpartition(">.")[2]
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
