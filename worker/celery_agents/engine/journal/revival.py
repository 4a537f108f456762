"""Exceptions from data: the error that was recorded, or what stands in for it.

A class is found in modules that are loaded, and nowhere else. No module is imported, no property is run, and no class
other than an exception's is made on the word of stored data.
"""

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from agent_statestore.records import ErrorInfo
from celery_agents.engine.journal.failures import bases_of, name_of, own_part
from celery_agents.engine.journal.remaking import bare, by_class, has_own_reduce, set_field
from celery_agents.engine.journal.stand_in import StandIn, args_and_fields


def revive(info: ErrorInfo) -> Exception:
    """Return the exception that the data describes, or what stands in for it: a `StepFailed`, of its class if it can.

    It is the same on the first attempt, where the error has just been recorded, and on every later one.
    """
    error = _revived(info)
    if info.cause is not None:
        object.__setattr__(error, "__cause__", revive(info.cause))
    if info.notes:
        set_field(error, "__notes__", list(info.notes))
    return error


def as_seen_here(error: Exception, original: BaseException) -> Exception:
    """Return the revived error with the tracebacks of the original, for people. No later attempt has them."""
    object.__setattr__(error, "__context__", original.__context__)
    one: BaseException | None = error
    other: BaseException | None = original
    while one is not None and other is not None:
        object.__setattr__(one, "__traceback__", other.__traceback__)
        one, other = one.__cause__, other.__cause__
    return error


def _revived(info: ErrorInfo) -> Exception:
    kind = _class_recorded(info)
    members = [revive(member) for member in info.members]
    if kind is not None and info.args is not None and not info.not_kept:
        for error in _made_again(info, kind, members):
            return error
    candidates = [] if kind is None else [(kind, True)]
    candidates += [(base, False) for base in map(_class_of, info.bases) if base is not None]
    if members:
        candidates.append((ExceptionGroup, False))
    for candidate, is_of_its_class in candidates:
        try:
            return StandIn.of(info, candidate, members, is_of_its_class=is_of_its_class)
        except Exception:  # noqa: BLE001 - its layout or metaclass does not go with ours; the next one's may
            continue
    return StandIn.of(info, None, members)


def _made_again(info: ErrorInfo, kind: type[Exception], members: list[Exception]) -> Iterator[Exception]:
    """Yield what turned out as the error was: made without code of the class if possible, else by calling it."""
    args, fields = args_and_fields(info)
    ways = [_without_its_code, _by_its_class]
    if has_own_reduce(kind) or not fields:
        ways.reverse()
    for way in [_without_its_code] if members else ways:
        try:
            error = way(kind, args, fields, members)
            again = own_part(error)
        except Exception:  # noqa: BLE001 - a class may object to anything
            continue
        alike = (again.type, again.message, again.args, again.not_kept) == (info.type, info.message, info.args, ())
        if alike and (
            again.fields == info.fields or (way is _by_its_class and again.fields.items() >= info.fields.items())
        ):
            yield error


def _without_its_code(
    kind: type[Exception], args: tuple[Any, ...], fields: dict[str, Any], members: list[Exception]
) -> Any:
    error = bare(kind, args, members)
    for name, value in fields.items():
        set_field(error, name, value)
    return error


def _by_its_class(
    kind: type[Exception], args: tuple[Any, ...], fields: dict[str, Any], members: list[Exception]
) -> Any:
    del members
    return by_class(kind, args, fields)


def _class_recorded(info: ErrorInfo) -> type[Exception] | None:
    """Return the class of the error. One that was made under the name of another one is found among its subclasses."""
    kind = _class_of(info.type)
    if kind is None or bases_of(kind) == info.bases:
        return kind
    made = [kind]
    while made:
        for one in type.__subclasses__(made.pop()):
            if name_of(one) == info.type and bases_of(one) == info.bases:
                return one
            made.append(one)
    return kind


def _class_of(type_name: str) -> type[Exception] | None:
    """Return the class of an exception by its name, from what loaded modules hold as it is."""
    module_name, _, qualified_name = type_name.partition(":")
    found: Any = sys.modules.get(module_name)
    if not issubclass(type(found), ModuleType):
        return None
    # Not `vars`: a module that loads itself when it is first needed would do so.
    names: Any = object.__getattribute__(found, "__dict__")
    for name in qualified_name.split("."):
        found = names.get(name)
        if not issubclass(type(found), type):
            return None
        names = type.__dict__["__dict__"].__get__(found)
    return found if issubclass(found, Exception) else None
