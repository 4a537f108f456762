"""Exceptions to data and back, so that a recorded failure is raised again as the same error.

No module is imported and no class other than an exception's is made on the word of stored data.
"""

import sys
import traceback

from agent_statestore.envelope import dump, load
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import ErrorInfo, JSONValue
from celery_agents.errors import StepFailed

_MAX_TEXT = 16_000
_COMMON = (Exception, BaseException, object)


def describe(error: BaseException, *, with_traceback: bool = False) -> ErrorInfo:
    """The exception as data. `args` are kept where JSON carries them."""
    kind = type(error)
    if isinstance(error, StepFailed):
        return ErrorInfo(type=error.type, message=error.message, args=None, bases=error.bases)
    try:
        args = tuple(load(dump(list(error.args), "args", _MAX_TEXT)))
    except InvalidRecord:
        args = None
    return ErrorInfo(
        type=f"{kind.__module__}:{kind.__qualname__}",
        message=_clean(_message(error)),
        args=args,
        bases=tuple(f"{base.__module__}:{base.__qualname__}" for base in kind.__mro__[1:] if base not in _COMMON),
        traceback=_clean("".join(traceback.format_exception(error))) if with_traceback else None,
    )


def revive(info: ErrorInfo) -> Exception:
    """The exception that the data describes, or `StepFailed` where its class is not at hand."""
    kind = _class_of(info.type)
    if kind is None:
        return _stand_in(info)
    error = None if info.args is None else _constructed(kind, info.args)
    if error is not None and _clean(_message(error)) == info.message:
        return error
    # The class wants other arguments than it keeps in `args`: make it without its constructor.
    error = _bare(kind, info.message)
    if error is not None and _clean(_message(error)) == info.message:
        return error
    return _stand_in(info)


def _stand_in(info: ErrorInfo) -> Exception:
    """A `StepFailed` that is also of the nearest class at hand that the lost one derived from.

    The class may live in a module that only the step itself imported. An `except OSError` of the agent must catch its
    failure after a crash as it did before.
    """
    for name in info.bases:
        base = _class_of(name)
        if base is not None and not issubclass(StepFailed, base):
            try:
                kind = type(StepFailed.__name__, (StepFailed, base), {"__module__": StepFailed.__module__})
                error: Exception = kind(info.type, info.message)
            except TypeError:
                continue  # its layout or constructor does not go with ours
            return error.with_bases(info.bases) if isinstance(error, StepFailed) else error
    return StepFailed(info.type, info.message).with_bases(info.bases)


def _class_of(type_name: str) -> type[Exception] | None:
    module, _, qualified_name = type_name.partition(":")
    found: object = sys.modules.get(module)
    for name in qualified_name.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _constructed(kind: type[Exception], args: tuple[JSONValue, ...]) -> Exception | None:
    try:
        return kind(*args)
    except Exception:  # noqa: BLE001 - a constructor may object to anything; None says that it did
        return None


def _bare(kind: type[Exception], message: str) -> Exception | None:
    try:
        error = kind.__new__(kind)
        error.args = (message,)
    except Exception:  # noqa: BLE001 - as above; pydantic's ValidationError is one that objects
        return None
    return error


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - an exception's __str__ is foreign code
        return f"<{type(error).__name__}, whose __str__ raised {type(broken).__name__}>"


def _clean(text: str) -> str:
    """Text that UTF-8 carries, of bounded length; of a long traceback the end says most."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _MAX_TEXT else "... " + text[-_MAX_TEXT:]
