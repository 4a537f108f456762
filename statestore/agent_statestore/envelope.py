"""JSON text with a format version: the form in which every structured record is stored.

An envelope is one JSON object whose `v` is the format that wrote it. An older one is migrated when it is read; a newer
one is refused with `FormatTooNew`, and nothing is overwritten. Values that belong to the user (inputs, outputs, memory
values) are plain JSON inside an envelope or beside one, under the `format` of their execution's header.
"""

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar

from agent_statestore.errors import ExecutionUnreadable, FormatTooNew, NotSerialisable, StoreError, ValueTooLarge
from agent_statestore.records import JSONValue

FORMAT: Final = 1
DEFAULT_MAX_VALUE_BYTES: Final = 4 * 1024 * 1024

Fields = dict[str, Any]
T = TypeVar("T")

# What decoding raises for texts and fields that nobody has written so.
DAMAGE: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)

# For each older format, the function that brings an envelope of that kind one format further. The key is (kind of
# record, format it starts from).
MIGRATIONS: Final[dict[tuple[str, int], Callable[[Fields], Fields]]] = {}

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_parse = json.JSONDecoder().raw_decode
_UNLIMITED: Final = 1 << 62


def dump(value: JSONValue, field: str, max_bytes: int = _UNLIMITED) -> str:
    """Return the value as compact JSON text.

    Raise `NotSerialisable` for a value that JSON cannot carry, and `ValueTooLarge` over `max_bytes` of UTF-8; both name
    `field`.
    """
    try:
        text = _encoder.encode(value)
        size = octets(text)
    except RecursionError as error:
        raise NotSerialisable(field, "the value is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise NotSerialisable(field, "the text contains a lone surrogate, which UTF-8 cannot carry") from error
    except (TypeError, ValueError) as error:
        raise NotSerialisable(field, f"not JSON-serialisable: {error}") from error
    if size > max_bytes:
        raise ValueTooLarge(field, size, max_bytes)
    return text


def octets(text: str) -> int:
    """Return how many bytes a text has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def load(text: str | bytes) -> JSONValue:
    """Return the value of a JSON text that `dump` made."""
    return json.loads(text)


def conceal(value: Any) -> Any:
    """Return what is stored in the place of a record's fields, or of a user's value; `reveal` takes it back.

    This pair is the one gate through which all records go into a store and come out of it. Today it lets them pass as
    they are. Whoever changes it must return an object for an object.
    """
    return value


def reveal(value: Any) -> Any:
    """Return what `conceal` was given. An object may have got further names meanwhile, which stay."""
    return value


def conceal_bytes(content: bytes) -> bytes:
    """Return what is stored in the place of a user's bytes; `reveal_bytes` takes it back. See `conceal`."""
    return content


def reveal_bytes(content: bytes) -> bytes:
    """Return what `conceal_bytes` was given."""
    return content


def _parsed(text: str | bytes) -> Any:
    """Return what `json.loads` does, in two thirds of the time for a text that `dump` made."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogatepass")
    try:
        value, end = _parse(text)
        if end == len(text):
            return value
    except json.JSONDecodeError:
        pass
    return json.loads(text)


def seal(fields: Fields, field: str, max_bytes: int = _UNLIMITED, **beside: JSONValue) -> str:
    """Return the fields as an envelope of the current format. Fields that are None are left out.

    `beside` stands at the end of the envelope and is not concealed.
    """
    return dump({"v": FORMAT, **conceal(present(fields)), **beside}, field, max_bytes)


def seal_value(value: JSONValue, field: str, max_bytes: int = _UNLIMITED) -> str:
    """Return a value of the user's as stored: plain JSON, whose format is that of the execution's header."""
    return dump(conceal(value), field, max_bytes)


def unseal_value(text: str | bytes) -> Any:
    """Return the value that `seal_value` was given."""
    return reveal(json.loads(text))


def present(fields: Fields) -> Fields:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def unseal(text: str | bytes, kind: str) -> Fields:
    """Return the fields of an envelope, migrated to the current format. Raise `FormatTooNew`."""
    fields: Fields = reveal(_parsed(text))
    version: int = fields["v"]
    if version == FORMAT:
        return fields
    require_readable(kind, version)
    while version < FORMAT:
        migrate = MIGRATIONS.get((kind, version))
        fields = fields if migrate is None else migrate(fields)
        version += 1
    return fields


def require_readable(what: str, version: int) -> None:
    """Raise `FormatTooNew` for a format that only a newer version of this package knows."""
    if version > FORMAT:
        raise FormatTooNew(what, version, FORMAT)


def reading(execution_id: str, part: str, decode: Callable[[], T]) -> T:
    """Return what `decode` returns. Raise `ExecutionUnreadable`, which names the part, for what it cannot read."""
    try:
        return decode()
    except DAMAGE as error:
        raise ExecutionUnreadable(execution_id, part, reason_of_damage(error)) from error


def reason_of_damage(error: Exception) -> str:
    """Return a short reason. The damaged text itself, which may hold anything, is not part of it."""
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON: {error.msg} at {error.pos}"
    said = str(error) if isinstance(error, StoreError | KeyError) else ""
    return f"{type(error).__name__} {said}".strip()[:200]
