"""Whether a value fits a JSON Schema that was stored with a question. Fetches nothing, and ends soon whatever they say.

The library's own keywords would not do. Python's regular expressions take exponential time on some patterns, a `$ref`
is fetched from wherever it points, and a check costs whatever the schema makes it cost. Here patterns run on pydantic's
engine, which is linear, a `$ref` finds only what the schema itself holds, and the number of checks is bounded.

What cannot be checked here (a malformed schema, a pattern with look-around, a `$ref` to elsewhere) is left to the
worker, which checks each answer again and asks anew.
"""

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from typing import Any, Final, TypeAlias
from uuid import UUID

import jsonschema
import pydantic
from jsonschema.exceptions import SchemaError, ValidationError
from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from agent_statestore.envelope import dump
from agent_statestore.records import JSONValue

_MOST_PROBLEMS: Final = 20
_LONGEST_PROBLEM: Final = 500
# About a second of work. An honest answer, even of a megabyte, takes fewer.
_MOST_CHECKS: Final = 50_000

Keyword: TypeAlias = Callable[[Any, Any, Any, Any], Iterator[ValidationError]]

_DRAFT: Final = jsonschema.Draft202012Validator
_checks_left: ContextVar[int] = ContextVar("checks_left")


class _TooCostly(Exception):
    """The checks of one value are used up."""


def problems(schema: Mapping[str, JSONValue], value: JSONValue, what: str) -> list[str]:
    """Return what is wrong with a value, one sentence per fault; an empty list if it fits as far as can be checked."""
    try:
        _DRAFT.check_schema(dict(schema), format_checker=None)  # type: ignore[arg-type]
    except (SchemaError, RecursionError):
        return []  # the worker does not use it either: it has the type from which the schema was made
    token = _checks_left.set(_MOST_CHECKS)
    try:
        validator = _Validator(dict(schema), registry=EMPTY_REGISTRY, format_checker=_FORMATS)
        faults = sorted(islice(validator.iter_errors(value), _MOST_PROBLEMS), key=_place)
    except RecursionError:
        return [f"{what}: nested too deeply"]
    except _TooCostly:
        return [f"{what}: too large to be checked against its schema"]
    finally:
        _checks_left.reset(token)
    return [f"{_place(fault) or what}: {fault.message}"[:_LONGEST_PROBLEM] for fault in faults]


def _place(fault: ValidationError) -> str:
    return ".".join(str(part) for part in fault.path)


# -- keywords ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> SchemaValidator | None:
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, strict=True))
    except PatternError:
        return None


def _matches(pattern: str, text: str) -> bool:
    """Return whether the pattern is found in the text; true also where the pattern is none of the linear engine's."""
    matcher = _matcher(pattern)
    return matcher is None or matcher.isinstance_python(text)


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    del schema
    if validator.is_type(value, "string") and not _matches(pattern, value):
        yield ValidationError(f"{value!r:.200} does not match {pattern!r:.200}")


def _pattern_properties(validator: Any, patterns: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    del schema
    if validator.is_type(value, "object"):
        for pattern, inner in patterns.items():
            if _matcher(pattern) is not None:
                for key in [key for key in value if _matches(pattern, key)]:
                    yield from validator.descend(value[key], inner, path=key, schema_path=pattern)


def _additional_properties(validator: Any, inner: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(value, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extras = [key for key in value if key not in known and not any(_matches(pattern, key) for pattern in patterns)]
    if inner is False and extras:
        names, were = ", ".join(f"{key!r:.80}" for key in extras[:10]), "was" if len(extras) == 1 else "were"
        yield ValidationError(f"Additional properties are not allowed ({names} {were} unexpected)")
    elif inner is not False:
        for key in extras:
            yield from validator.descend(value[key], inner, path=key)


def _unique_items(validator: Any, wanted: bool, value: Any, schema: Any) -> Iterator[ValidationError]:
    del schema
    if wanted and validator.is_type(value, "array") and len({_exact(one) for one in value}) < len(value):
        yield ValidationError("has an item twice")


def _enum(validator: Any, choices: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    del validator, schema
    if _exact(value) not in {_exact(choice) for choice in choices}:
        yield ValidationError(f"{value!r:.200} is not one of {choices!r:.200}")


def _const(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    return _enum(validator, [wanted], value, schema)


def _exact(value: JSONValue) -> str:
    """Return the value as JSON tells it from others: 1 is neither true nor 1.0."""
    return dump(value, "answer")


def _bounded(keyword: Keyword) -> Keyword:
    def check(validator: Any, asked: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        left = _checks_left.get()
        if left <= 0:
            raise _TooCostly
        _checks_left.set(left - 1)
        try:
            yield from keyword(validator, asked, value, schema)
        except Unresolvable:
            return  # what it points to is not in the schema, and is not fetched
        except OverflowError:
            yield ValidationError("is too large a number")

    return check


_OWN: Final[dict[str, Keyword]] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
    "enum": _enum,
    "const": _const,
}
# They look for names with Python's regular expressions, inside of everything else that a schema says.
_LEFT_OUT: Final = frozenset({"unevaluatedProperties", "unevaluatedItems"})


def _is_whole(checker: Any, value: Any) -> bool:
    del checker
    return isinstance(value, int) and not isinstance(value, bool)  # 1.0 is none, as for a strict type


_Validator: Final = jsonschema.validators.create(
    meta_schema=_DRAFT.META_SCHEMA,
    validators={
        name: _bounded(keyword) for name, keyword in {**_DRAFT.VALIDATORS, **_OWN}.items() if name not in _LEFT_OUT
    },
    type_checker=_DRAFT.TYPE_CHECKER.redefine("integer", _is_whole),
)


# -- formats -----------------------------------------------------------------------------------------------------------

# The formats of the types of the standard library, as pydantic reads them inside.
_TYPES: Final[Mapping[str, Any]] = {
    "date-time": datetime,
    "date": date,
    "time": time,
    "duration": timedelta,
    "uuid": UUID,
    "ipv4": IPv4Address,
    "ipv6": IPv6Address,
    "ipvanyaddress": pydantic.IPvAnyAddress,
    "uri": pydantic.AnyUrl,
    "base64": pydantic.Base64Str,
    "base64url": pydantic.Base64UrlStr,
}


def _format_checker() -> jsonschema.FormatChecker:
    formats = jsonschema.FormatChecker(formats=())
    for name, kind in _TYPES.items():
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(kind)
        formats.checks(name, raises=pydantic.ValidationError)(_reader(adapter))
    return formats


def _reader(adapter: pydantic.TypeAdapter[Any]) -> Callable[[object], bool]:
    def read(value: object) -> bool:
        if isinstance(value, str):
            adapter.validate_json(dump(value, "answer"))
        return True

    return read


_FORMATS: Final = _format_checker()
