"""Exceptions to data, so that a recorded failure is raised again as the same error; `revival` has the way back."""

import traceback
from dataclasses import replace
from types import MemberDescriptorType
from typing import Any, Final

from agent_statestore.envelope import dump
from agent_statestore.records import ErrorInfo, JSONValue
from celery_agents.engine.journal.carried import Carried, Room
from celery_agents.engine.journal.remaking import BUILTIN, by_class, has_own_reduce
from celery_agents.engine.journal.stand_in import StandIn
from celery_agents.errors import StepFailed

_MAX_TEXT: Final = 16_000
# All fields, causes and members of an error together. With its message and traceback it then fits into what stores keep
# free for errors, `ERROR_ROOM_BYTES`.
_ROOM_BYTES: Final = 80_000
_MAX_DEPTH: Final = 16
_COMMON: Final = (Exception, BaseException, object)
_NOTES: Final = "__notes__"


def describe(error: BaseException, *, with_traceback: bool = False) -> ErrorInfo:
    """Return the exception as data: its arguments and fields where JSON carries them, its members, cause and notes."""
    info = _described(error, Room(_ROOM_BYTES), _MAX_DEPTH)
    if not with_traceback:
        return info
    return replace(info, traceback=_clean("".join(traceback.format_exception(error))))


def own_part(error: BaseException) -> ErrorInfo:
    """Return the exception as data, without cause and notes."""
    return _own_part(error, Room(_ROOM_BYTES), _MAX_DEPTH)


def _described(error: BaseException, room: Room, depth: int) -> ErrorInfo:
    info = _own_part(error, room, depth)
    cause, not_kept = None, list(info.not_kept)
    if error.__cause__ is not None:
        cause = _nested(error.__cause__, room, depth)
        if cause is None:
            not_kept.append("__cause__")
    kept = []
    notes = vars(error).get(_NOTES, ())
    for note in notes if isinstance(notes, list | tuple) else ():
        text = _clean(note if type(note) is str else repr(note))
        if not room.take_text(text):
            not_kept.append(_NOTES)
            break
        kept.append(text)
    return replace(info, cause=cause, notes=tuple(kept), not_kept=tuple(dict.fromkeys(not_kept)))


def _nested(error: BaseException, room: Room, depth: int) -> ErrorInfo | None:
    """Return a cause or a member as data, or None if there is no room for it. A cause may be its own cause."""
    names = "".join(map(name_of, type(error).__mro__))
    if depth == 0 or not room.take_text(_clean(_message(error)) + names + " " * 100):
        return None
    return _described(error, room, depth - 1)


def _own_part(error: BaseException, room: Room, depth: int) -> ErrorInfo:
    if isinstance(error, StandIn):
        return replace(error.recorded, traceback=None, cause=None, notes=())
    kind = type(error)
    if isinstance(error, StepFailed) and kind is StepFailed:
        return ErrorInfo(type=error.type, message=error.message, bases=error.bases)
    carried = Carried(_MAX_TEXT, room)
    members: tuple[ErrorInfo, ...] = ()
    reduced = None if isinstance(error, BaseExceptionGroup) else _by_own_reduce(error, carried)
    if reduced is not None:
        args, fields = reduced
    else:
        given: tuple[object, ...] = _args_of(error)
        if isinstance(error, BaseExceptionGroup):
            given = (error.message,)
            members = _members(error, carried, room, depth)
        args = tuple(_take_args(given, carried))
        fields = _take_fields(error, carried)
    return ErrorInfo(
        type=name_of(kind),
        message=_clean(_message(error)),
        args=args,
        bases=bases_of(kind),
        fields=fields,
        tuples=tuple(carried.tuples),
        not_kept=tuple(carried.not_kept),
        members=members,
    )


def _members(group: "BaseExceptionGroup[Any]", carried: Carried, room: Room, depth: int) -> tuple[ErrorInfo, ...]:
    members = []
    for member in group.exceptions:
        info = _nested(member, room, depth)
        if info is None:
            carried.not_kept.append("exceptions")
            break
        members.append(info)
    return tuple(members)


def _take_args(given: tuple[object, ...], carried: Carried) -> list[JSONValue]:
    return [
        carried.take(value, f"args[{number}]", ("args", number))[0]  # None keeps the place of what is not kept
        for number, value in enumerate(given)
    ]


def _args_of(error: BaseException) -> tuple[object, ...]:
    """Return what the class of Python's own that the error derives from is called with, a file's name included."""
    if isinstance(error, OSError):
        reduced: Any = OSError.__reduce__(error)
        args: tuple[object, ...] = reduced[1]
        return args
    return error.args


def _take_fields(error: BaseException, carried: Carried) -> dict[str, JSONValue]:
    """Return the attributes that JSON carries: those of the instance, of `__slots__`, of Python's own exceptions."""
    lost_args = bool(carried.not_kept)
    fields: dict[str, JSONValue] = {}

    def take(name: str, value: object) -> None:
        form, is_left = carried.take(value, name, ("fields", name))
        if is_left:
            fields[name] = form

    for base in type(error).__mro__:
        if base in _COMMON or base in (BaseExceptionGroup, ExceptionGroup):
            continue
        for name, member in vars(base).items():
            if type(member) is not MemberDescriptorType or name in fields:
                continue
            try:
                value = member.__get__(error)
            except (AttributeError, TypeError):
                continue  # not set
            # What Python's own exceptions keep is made of their arguments. `AttributeError.obj`, which may be anything,
            # is not, and is there for tracebacks only.
            if value is None or (base in BUILTIN and not lost_args and not _is_plain(value)):
                continue
            take(name, value)
    for name, value in vars(error).items():
        if name != _NOTES:
            take(name, value)
    return fields


def _is_plain(value: object) -> bool:
    return type(value) in (bool, int, float, str)


def _by_own_reduce(error: BaseException, carried: Carried) -> tuple[tuple[JSONValue, ...], dict[str, JSONValue]] | None:
    """Return the arguments and fields by the class's own `__reduce__`, or None if they do not make the error again."""
    kind = type(error)
    if not has_own_reduce(kind):
        return None
    trial = Carried(_MAX_TEXT, Room(_ROOM_BYTES))
    try:
        given, state = _reduced(error)
        args = tuple(_take_args(given, trial))
        fields = {name: trial.take(value, name, ("fields", name))[0] for name, value in state.items()}
        again = by_class(kind, given, state)
        if trial.not_kept or str(again) != str(error) or _reduced(again) != (given, state):
            return None
    except Exception:  # noqa: BLE001 - foreign code may raise anything; the error is then described without it
        return None
    if any(_is_plain(value) and vars(again).get(name) != value for name, value in vars(error).items()):
        return None  # it forgets a field
    carried.tuples += trial.tuples
    return args, fields


def _reduced(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments and state by the class's `__reduce__`. Raise `ValueError` where it needs more than the class."""
    reduced: Any = error.__reduce_ex__(2)
    if not isinstance(reduced, tuple) or reduced[0] is not type(error) or len(reduced) > 3:
        raise ValueError("not made by its class")
    state = dict(reduced[2] or {}) if len(reduced) > 2 else {}
    state.pop(_NOTES, None)
    return tuple(reduced[1]), state


def name_of(kind: type) -> str:
    """Return what a class is recorded as."""
    return f"{kind.__module__}:{kind.__qualname__}"


def bases_of(kind: type) -> tuple[str, ...]:
    """Return what the classes are recorded as that an exception's class derives from, nearest first."""
    return tuple(name_of(base) for base in kind.__mro__[1:] if base not in _COMMON)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - an exception's __str__ is foreign code
        return f"<{type(error).__name__}, whose __str__ raised {type(broken).__name__}>"


def _clean(text: str) -> str:
    """Return text that UTF-8 carries, of bounded length; of a long traceback the end says most."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) > _MAX_TEXT:
        text = "... " + text[-_MAX_TEXT:]
    # JSON writes six bytes for a control character.
    return text if len(dump(text, "text")) <= 4 * _MAX_TEXT else "... " + text[-_MAX_TEXT // 2 :]
