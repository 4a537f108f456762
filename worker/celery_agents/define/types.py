"""Types to JSON and back, by annotation: values for the journal, and the schemas against which inputs are checked."""

import inspect
import re
import weakref
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final, get_type_hints

import pydantic
from pydantic_core import PydanticSerializationError

from agent_statestore.envelope import dump
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import JSONValue
from celery_agents.errors import InvalidResult, RegistrationError

Adapter = pydantic.TypeAdapter[Any]

# "constants" leaves NaN as it is, for the envelope to refuse; pydantic would write null in its place.
ANY: Adapter = pydantic.TypeAdapter(Any, config=pydantic.ConfigDict(ser_json_inf_nan="constants"))


def adapter_for(annotation: Any, name: str) -> Adapter:
    """Return the adapter of an annotation; a missing one means Any. Raise `RegistrationError` if pydantic has none."""
    if annotation is inspect.Parameter.empty or annotation is Any:
        return ANY
    try:
        return _adapter_of(annotation) if _is_hashable(annotation) else pydantic.TypeAdapter(annotation)
    except (pydantic.PydanticUserError, NameError) as error:
        raise RegistrationError(name, f"the annotation {annotation!r} has no JSON form: {error}") from error


# Making an adapter takes ten times as long as a step, and functions that are defined anew for each execution have the
# same annotations each time.
@lru_cache(maxsize=1024)
def _adapter_of(annotation: Any) -> Adapter:
    return pydantic.TypeAdapter(annotation)


def _is_hashable(annotation: Any) -> bool:
    try:
        hash(annotation)
    except TypeError:
        return False
    return True


# One of pydantic's lines about a value that is not of its annotated type.
_UNEXPECTED: Final = re.compile(
    r"PydanticSerializationUnexpectedValue\(Expected (.+?) - serialized value may not be as expected (\[.*\])\)"
)
# The keys are weak: a lambda that is made anew for each step must not be kept alive with all that it closes over.
_result_adapters: "weakref.WeakKeyDictionary[Callable[..., Any], Adapter]" = weakref.WeakKeyDictionary()


def result_adapter(function: Callable[..., Any]) -> Adapter:
    """Return the adapter of a function's return annotation; the one of Any if there is no annotation."""
    target = plain_function(function)
    if inspect.isclass(target):
        return adapter_for(target, name_of(target))
    if "return" not in getattr(target, "__annotations__", ()):
        return ANY
    known = _result_adapters.get(target)
    if known is None:
        known = _result_adapters[target] = adapter_for(hints(target)["return"], name_of(target))
    return known


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function's resolved annotations. Raise `RegistrationError` for one that names an unknown type."""
    try:
        return get_type_hints(plain_function(function), include_extras=True)
    except (NameError, TypeError) as error:
        raise RegistrationError(name_of(function), f"its annotations cannot be resolved: {error}") from error


def plain_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what carries the annotations: the function inside partials and methods, or an object's `__call__`."""
    target = unwrap(function)
    if inspect.isclass(target) or inspect.isbuiltin(target):
        return target
    if not inspect.isroutine(target):
        target = type(target).__call__
    return getattr(target, "__func__", target)


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a call of the function only makes a coroutine."""
    return inspect.iscoroutinefunction(plain_function(function))


def unwrap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside any number of partials."""
    while isinstance(function, partial):
        function = function.func
    return function


def name_of(function: Callable[..., Any]) -> str:
    """Return a callable's name, for messages."""
    target = unwrap(function)
    return getattr(target, "__qualname__", None) or type(target).__qualname__


def to_json(adapter: Adapter, value: Any) -> JSONValue:
    """Return the value as JSON-able Python. Raise `ValueError` with the reason if it has no JSON form."""
    try:
        # warnings="error" turns "this value is not of the annotated type" into an error instead of a log line.
        return adapter.dump_python(value, mode="json", warnings="error" if adapter is not ANY else "none")
    except PydanticSerializationError as error:
        raise ValueError(_reason(value, error)) from error


def _reason(value: Any, error: PydanticSerializationError) -> str:
    """Return, in words for people, what pydantic says of a value without a JSON form."""
    if inspect.iscoroutine(value):
        return "it is a coroutine; was it to be awaited?"
    faults = _UNEXPECTED.findall(str(error))
    return "; ".join(f"its annotation expects {expected} {found}" for expected, found in faults) or str(error)


def from_json(adapter: Adapter, value: JSONValue, field: str) -> Any:
    """Return the typed value of JSON-able Python. Raise `pydantic.ValidationError`.

    The value goes through JSON text, because pydantic's strict types accept a date's text, say, only from JSON.
    """
    return value if adapter is ANY else adapter.validate_json(dump(value, field))


def round_trip(returns: Adapter, key: str, value: Any) -> tuple[Any, JSONValue]:
    """Return the result of a step as it will be after a crash, through JSON and back by its type, and its JSON.

    Raise `InvalidResult`.
    """
    try:
        output = to_json(returns, value)
        return from_json(returns, output, key), output
    except pydantic.ValidationError as error:
        raise InvalidResult(key, problems(error)) from error
    except InvalidRecord as error:
        raise InvalidResult(key, [str(error)]) from error
    except ValueError as error:
        raise InvalidResult(key, [f"not JSON-serialisable: {error}"]) from error


def problems(error: pydantic.ValidationError) -> list[str]:
    """Return one sentence per fault, each naming its field."""
    return [
        f"{'.'.join(str(part) for part in fault['loc']) or 'value'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    ]
