"""Types to JSON and back, by annotation: values for the journal, and the schemas against which inputs are checked.

What comes back is what went in, type included; `carried` and `round_trip` refuse anything else. A value without an
annotation is what JSON makes of it, and refused where that would lose something.
"""

import contextlib
import inspect
import marshal
import math
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from types import CodeType, FunctionType, NoneType
from typing import Any, Final, get_type_hints

import pydantic
from pydantic_core import PydanticSerializationError

from agent_statestore.envelope import dump
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import JSONValue
from celery_agents.define import annotations, likeness, marks
from celery_agents.errors import InvalidResult, RegistrationError

Adapter = pydantic.TypeAdapter[Any]

# "constants" leaves NaN as it is, for the envelope to refuse; pydantic would write null in its place.
ANY: Adapter = pydantic.TypeAdapter(Any, config=pydantic.ConfigDict(ser_json_inf_nan="constants"))


def adapter_for(annotation: Any, name: str) -> Adapter:
    """Return the adapter of an annotation; a missing one means Any.

    Raise `RegistrationError` if pydantic has none, or if no value of the type could come back from JSON as it was.
    """
    if annotation is inspect.Parameter.empty or annotation is Any:
        return ANY
    try:
        if not _is_hashable(annotation):
            return _new_adapter(annotation)
        return _SCALAR_ADAPTERS.get(annotation) or _adapter_of(annotation)
    except (pydantic.PydanticUserError, NameError) as error:
        raise RegistrationError(name, f"the annotation {annotation!r} has no JSON form: {error}") from error
    except annotations.Uncarriable as error:
        raise RegistrationError(name, f"the annotation {annotation!r} cannot be recorded: {error}") from error


# Making an adapter takes ten times as long as a step, and functions that are defined anew for each execution have the
# same annotations each time.
@lru_cache(maxsize=1024)
def _adapter_of(annotation: Any) -> Adapter:
    return _new_adapter(annotation)


def _new_adapter(annotation: Any) -> Adapter:
    adapter: Adapter = pydantic.TypeAdapter(annotation)
    annotations.check(adapter)
    return adapter


_SCALARS: Final = (str, int, float, bool, NoneType)
_SCALAR_ADAPTERS: Final[dict[Any, Adapter]] = {kind: _new_adapter(kind) for kind in _SCALARS}
# The types of which an exact instance comes back as it went in.
_SCALARS_OF: Final[dict[Adapter, frozenset[type]]] = {
    ANY: frozenset(_SCALARS),
    **{adapter: frozenset({kind}) for kind, adapter in _SCALAR_ADAPTERS.items()},
}
_LARGEST_INT: Final = 2**63


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


@dataclass(slots=True)
class _Code:
    """What is known of the functions that one piece of code makes."""

    code: CodeType
    namespace: dict[str, Any]
    annotation: Any
    facts: tuple[Adapter, bool]


# By the identity of the code, which each entry keeps alive.
_codes: Final[dict[int, _Code]] = {}
_MOST_CODES: Final = 4096


def what_it_returns(function: Callable[..., Any]) -> tuple[Adapter, bool]:
    """Return the adapter of a function's result, and whether a call of it only makes a coroutine.

    A function that is defined anew for each step (a lambda, a function in a loop) has the code of the one before it,
    and costs as little. A name in its annotation means what it meant at first, as for any other function.
    """
    if type(function) is not FunctionType or function.__dict__:  # it may be marked, or made of another one
        return result_adapter(function), is_async(function)
    code, annotation = function.__code__, function.__annotations__.get("return", inspect.Parameter.empty)
    known = _codes.get(id(code))
    if (
        known is None
        or known.namespace is not function.__globals__
        or not (known.annotation is annotation or _is_same(known.annotation, annotation))
    ):
        facts = result_adapter(function), is_async(function)
        if len(_codes) >= _MOST_CODES:
            _codes.clear()
        known = _codes[id(code)] = _Code(code, function.__globals__, annotation, facts)
    return known.facts


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and _is_equal(one, other)


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
    """Return the value as JSON-able Python, which need not say all of it. Raise `ValueError` if it has no JSON form."""
    try:
        # warnings="error" turns "this value is not of the annotated type" into an error instead of a log line.
        return adapter.dump_python(
            value, mode="json", by_alias=adapter is not ANY, warnings="error" if adapter is not ANY else "none"
        )
    except PydanticSerializationError as error:
        raise ValueError(_reason(value, error)) from error


def _reason(value: Any, error: PydanticSerializationError) -> str:
    """Return, in words for people, what pydantic says of a value without a JSON form."""
    if inspect.iscoroutine(value):
        return "it is a coroutine; was it to be awaited?"
    faults = _UNEXPECTED.findall(str(error))
    return "; ".join(f"its annotation expects {expected} {found}" for expected, found in faults) or str(error)


def from_json(adapter: Adapter, value: JSONValue, field: str) -> Any:
    """Return the typed value of JSON from outside: an answer, an event. Raise `pydantic.ValidationError`.

    The value goes through JSON text, because pydantic's strict types accept a date's text, say, only from JSON.
    """
    return value if adapter is ANY else _read(adapter, dump(value, field))


def from_record(adapter: Adapter, value: JSONValue, field: str) -> Any:
    """Return the typed value of what `carried` recorded. Raise `pydantic.ValidationError`."""
    if adapter is ANY:
        return value
    text = dump(value, field)
    return marks.marked(adapter).read(text) if marks.AS_KEY in text else _read(adapter, text)


def _read(adapter: Adapter, text: str) -> Any:
    # By name, too: not every alias is one for both directions.
    return adapter.validate_json(text, by_alias=True, by_name=True)


# The ways to write a value, tried in this order until one comes back as it was: with marks, by alias, and as pydantic
# writes what is meant to be read again (no computed fields, JSON within JSON as text).
_WAYS: Final = (
    (False, True, False),
    (False, True, True),
    (False, False, True),
    (True, True, True),
    (True, False, True),
)


def lossless(value: Any) -> JSONValue:
    """Return what JSON makes of a value, by alias. Raise `ValueError` where that loses something."""
    output = ANY.dump_python(value, mode="json", by_alias=True, warnings="none")
    lost = None if _is_equal(output, value) else likeness.lost_as_json(value, output)
    if lost is not None:
        raise likeness.Changed(lost)
    return output


def carried(adapter: Adapter, value: Any, field: str) -> tuple[Any, JSONValue]:
    """Return a value as it comes back from its record, and the JSON to record.

    Raise `ValueError`, with a sentence that has the path, for a value that would come back as another one, and whatever
    a validator of the user's raises.
    """
    if adapter is ANY:
        output = to_json(ANY, value)
        lost = None if output is value or _is_equal(output, value) else likeness.lost_as_json(value, output)
        if lost is not None:
            raise likeness.Changed(lost)
        return output, output
    refused: Exception | None = None
    for has_marks, by_alias, for_reading in _WAYS:
        try:
            if has_marks:
                output = marks.marked(adapter).dump(value, by_alias=by_alias, round_trip=for_reading)
            else:
                output = adapter.dump_python(
                    value, mode="json", by_alias=by_alias, round_trip=for_reading, warnings="error"
                )
            back = from_record(adapter, output, field)
            if _is_plainly_same(value, back):
                return back, output
            found = likeness.difference(value, back)
        except PydanticSerializationError as error:
            refused = refused or ValueError(_reason(value, error)).with_traceback(error.__traceback__)
            continue
        except Exception as error:  # noqa: BLE001 - the first one is raised if no way is left
            refused = refused or error
            continue
        if found is None:
            return back, output
        refused = refused or likeness.Changed(found)
    assert refused is not None
    raise refused


def accepted(adapter: Adapter, value: Any, field: str) -> JSONValue:
    """Return the JSON to record of what was given: as it is, if it is of the type, else as validation makes it.

    Raise as `carried` does, and `pydantic.ValidationError`.
    """
    valid = adapter.validate_python(value)
    if not _is_plainly_same(value, valid):
        # Validation may take a member of a union for another one.
        with contextlib.suppress(Exception):
            return carried(adapter, value, field)[1]
    return carried(adapter, valid, field)[1]


_CONTAINERS: Final = frozenset({dict, list, tuple})


def _is_equal(output: JSONValue, value: Any) -> bool:
    try:
        return bool(output == value)
    except Exception:  # noqa: BLE001 - of a foreign __eq__; then it is looked at in detail
        return False


def _is_plainly_same(given: Any, back: Any) -> bool:
    """Return whether both are the same and of plain types; False also if that is not known.

    `marshal` knows exactly these types, at the speed of C; in its format 0 the same values have the same bytes.
    """
    kind = type(given)
    if given is back or kind is not type(back):
        return given is back
    if kind in _SCALARS:
        return bool(given == back)
    try:
        return kind in _CONTAINERS and marshal.dumps(given, 0) == marshal.dumps(back, 0)
    except ValueError:
        return False


def round_trip(returns: Adapter, key: str, value: Any) -> tuple[Any, JSONValue]:
    """Return the result of a step as it will be after a crash, and its JSON. Raise `InvalidResult`.

    A validator of the user's that raises makes the result invalid, too: what it judges is done.
    """
    if type(value) in _SCALARS_OF.get(returns, ()) and _is_kept(value):
        return value, value
    try:
        return carried(returns, value, key)
    except pydantic.ValidationError as error:
        raise InvalidResult(key, problems(error)) from error
    except (InvalidRecord, likeness.Changed) as error:
        raise InvalidResult(key, [str(error)]) from error
    except ValueError as error:
        raise InvalidResult(key, [f"not JSON-serialisable: {error}"]) from error
    except Exception as error:
        raise InvalidResult(key, [f"it cannot be recorded: {type(error).__name__}: {error}"]) from error


def _is_kept(scalar: Any) -> bool:
    """Return whether JSON carries this one as it is; False also if only a look in detail can tell."""
    kind = type(scalar)
    if kind is str:
        return bool(scalar.isascii()) or _is_utf8(scalar)
    if kind is int:
        return bool(-_LARGEST_INT < scalar < _LARGEST_INT)
    return kind is not float or math.isfinite(scalar)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def problems(error: pydantic.ValidationError, *within: str) -> list[str]:
    """Return one sentence per fault, each naming its field, which stands `within` others."""
    return [
        f"{'.'.join(str(part) for part in (*within, *fault['loc'])) or 'value'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    ]
