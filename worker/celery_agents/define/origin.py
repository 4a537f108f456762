"""Where an agent or a tool comes from, and whether a second one of the same name is the same once more.

Modules are loaded again, and their agents then take the place of the earlier ones. Two agents that one function makes,
or two functions of one name in one module, must not: one of them would run in the place of the other.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from itertools import repeat
from types import CellType, CodeType, MethodType
from typing import Any, Final

# The attribute of a function that was made of another one, and is known by that one.
_MADE_OF: Final = "_agents_made_of"


def made_of(function: Callable[..., Any], other: Callable[..., Any]) -> None:
    """Note that the function was made of another one, whose module and code tell where it comes from."""
    vars(function)[_MADE_OF] = other


def innermost(function: Callable[..., Any]) -> Any:
    """Return the function inside partials, plain decorators and methods, or an object's `__call__`."""
    target: Any = function
    while True:
        if isinstance(target, functools.partial):
            target = target.func
        elif isinstance(target, MethodType):
            target = target.__func__
        elif not inspect.isclass(target) and hasattr(target, "__wrapped__"):
            target = target.__wrapped__
        elif not inspect.isroutine(target) and not inspect.isclass(target):
            target = type(target).__call__
        else:
            return target


def name_for(function: Callable[..., Any]) -> str:
    """Return the name of a function, of the one inside a partial, or of the class of an object that can be called."""
    target: Any = function
    while isinstance(target, functools.partial):
        target = target.func
    return getattr(target, "__name__", None) or type(target).__name__


def wear(wrapper: object, function: Callable[..., Any]) -> None:
    """Give the wrapper the name and docstring of its function, and attributes of it that are not the wrapper's own."""
    functools.update_wrapper(wrapper, function, updated=())  # type: ignore[arg-type]
    if inspect.isroutine(function):
        for name, value in vars(function).items() if hasattr(function, "__dict__") else ():
            vars(wrapper).setdefault(name, value)


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where a function comes from, and with which options it is registered.

    `loading` is another object each time that its module is loaded; None where that is unknown.
    """

    function: Callable[..., Any]
    name: str
    module: str
    file: str | None
    code: CodeType | None
    loading: object
    options: tuple[object, ...]

    @classmethod
    def of(cls, function: Callable[..., Any], *options: object) -> "Origin":
        """Return the origin of a function as its module is now."""
        target = innermost(function)
        if _MADE_OF in vars(target):
            target = innermost(vars(target)[_MADE_OF])
        named: Any = function if hasattr(function, "__qualname__") else target
        code = getattr(target, "__code__", None)
        return cls(
            function=function,
            name=f"{named.__module__}.{named.__qualname__}",
            module=named.__module__,
            file=None if code is None else code.co_filename,
            code=code,
            loading=getattr(target, "__globals__", {}).get("__spec__"),
            options=options,
        )

    def conflict_with(self, known: "Origin", kind: str) -> str | None:
        """Return why this may not take the place of the known one of its name; None if it may."""
        if self.name != known.name:
            return f"{known.name} is registered as {kind} under this name already{self._loaded_twice(known)}"
        if self.code is not known.code:
            if self.loading is None or self.loading is not known.loading:
                return None  # a reload
            return f"{self.name} is defined twice in its module: give one of the two another name"
        if _same(self.function, known.function, set()) and _same(self.options, known.options, set()):
            return None
        return (
            f"{self.name} is registered as {kind} under this name already, with other values or options: give each "
            "that is made a name of its own (name=...)"
        )

    def _loaded_twice(self, known: "Origin") -> str:
        names = {self.module, known.module}
        qualified = self.name.removeprefix(self.module) == known.name.removeprefix(known.module)
        if "__main__" not in names or not qualified or self.file is None or self.file != known.file:
            return ""
        (other,) = names - {"__main__"}
        return (
            f": {self.file} is loaded twice, as __main__ and as {other}. Put the agents into a module that the program "
            "imports, and name that one in AGENTS_IMPORTS"
        )


def _same(one: Any, other: Any, seen: set[tuple[int, int]]) -> bool:
    """Return whether two values are equal; functions are if they have the same code and have captured equal values."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if (id(one), id(other)) in seen:
        return True  # a function that refers to itself
    seen.add((id(one), id(other)))
    parts, others = _parts(one), _parts(other)
    if parts is not None and others is not None:
        return len(parts) == len(others) and all(map(_same, parts, others, repeat(seen)))
    try:
        return (one == other) is True
    except Exception:  # noqa: BLE001 - comparing is foreign code; what cannot be compared is not the same
        return False


def _parts(value: Any) -> list[Any] | None:
    """Return what makes up a value of which the parts are compared, or None."""
    if inspect.isfunction(value):
        defaults = (value.__defaults__, value.__kwdefaults__, value.__closure__)
        return [value.__code__, *defaults, vars(value)]
    if isinstance(value, CellType):
        try:
            return [value.cell_contents]
        except ValueError:
            return []  # not set yet
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if type(value) in (list, tuple):
        return list(value)
    if type(value) is dict:
        return [list(value), *value.values()]
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, one.name, None) for one in fields(value) if one.init]
    by_identity: Any = type(value).__eq__ is object.__eq__  # type: ignore[comparison-overlap]
    if by_identity and callable(value) and not isinstance(value, type) and hasattr(value, "__dict__"):
        return [vars(value)]
    return None
