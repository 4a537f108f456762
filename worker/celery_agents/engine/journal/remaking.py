"""Making an exception once more: by its class, or without running any code of it."""

import builtins
import contextlib
from collections.abc import Mapping
from types import MemberDescriptorType, MethodDescriptorType
from typing import Any, Final

from agent_statestore.records import JSONValue

# Python's own exceptions. Their `__new__` and `__init__` only keep what they are given.
BUILTIN: Final = frozenset(
    kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)
)


def has_own_reduce(kind: type[BaseException]) -> bool:
    """Return whether the class says itself how its exceptions are made again."""
    reduce: Any = kind.__reduce__
    is_pythons = isinstance(reduce, MethodDescriptorType) and reduce.__objclass__ in BUILTIN
    return not is_pythons or kind.__reduce_ex__ is not object.__reduce_ex__


def by_class(kind: type[Any], args: tuple[Any, ...], state: Mapping[str, Any]) -> Any:
    """Return an exception as `pickle` makes it: by calling its class. Raise whatever that raises."""
    made = kind(*args)
    if state and kind.__setstate__ is not BaseException.__setstate__:
        made.__setstate__(dict(state))
    else:
        for name, value in state.items():
            set_field(made, name, value)
    return made


def bare(kind: type[Any], args: tuple[JSONValue, ...], members: list[Exception]) -> Any:
    """Return an exception of the class, made without its own `__new__` and `__init__`. Raise `Exception`."""
    base: Any = kind
    while base not in BUILTIN:
        base = base.__base__
    if issubclass(base, BaseExceptionGroup):
        (message,) = args
        return BaseExceptionGroup.__new__(kind, message, members)
    error = base.__new__(kind, *args)
    with contextlib.suppress(TypeError):  # an argument that was not kept; the fields that were are set one by one
        base.__init__(error, *args)
    return error


def set_field(error: BaseException, name: str, value: JSONValue) -> None:
    """Set an attribute without running code of the class: no property, no `__setattr__`."""
    for base in type(error).__mro__:
        found = vars(base).get(name)
        if type(found) is MemberDescriptorType:
            found.__set__(error, value)
            return
    object.__getattribute__(error, "__dict__")[name] = value
