"""JSON text with a format version: the form in which every structured record is stored.

An envelope is one JSON object whose `v` is the lowest format that can express it: `NEEDS` lists what needs more than
the lowest of all. An older one is migrated when it is read; a newer one is refused with `FormatTooNew`, and nothing is
overwritten. The `format` of an execution's header is at least that of each of its envelopes, so a version that could
not honour one of them cannot claim the execution. Values that belong to the user (inputs, outputs, memory values) are
plain JSON inside an envelope or beside one, under the `format` of their execution's header.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from agent_statestore.errors import ExecutionUnreadable, FormatTooNew, NotSerialisable, StoreError, ValueTooLarge
from agent_statestore.records import JSONValue

# The newest format that this version reads, and the format of what needs nothing newer.
FORMAT: Final = 2
LOWEST: Final = 1
DEFAULT_MAX_VALUE_BYTES: Final = 4 * 1024 * 1024

Fields = dict[str, Any]
T = TypeVar("T")


# What an execution writes to documents, and has not written yet, stands in its working memory under this name.
OUTBOX_KEY: Final = "agents.outbox"
# In the metadata of a message that also goes to the conversation of the session.
SESSION_MARK: Final = "agents.session"
# By the names of values of the working memory: what a version that reads only lower formats would leave undone.
MEMORY_NEEDS: Final[Mapping[str, int]] = {OUTBOX_KEY: 2}


class Need(NamedTuple):
    """What a version that reads only lower formats cannot honour, and whether an envelope's fields hold it."""

    what: str
    format: int
    is_in: Callable[[Fields], bool]


# By kind of envelope, and for the "header" of a new execution. Workers of two versions run side by side on one store,
# and this list keeps an older one away from an execution that it would misread, or that it would go on with as if the
# field were not there. A new field belongs here, with a new format, unless an older version may ignore it. Each entry
# is held against every store by `testing.contract.formats`. All else is of the lowest format, which any version reads.
NEEDS: Mapping[str, tuple[Need, ...]] = {
    "header": (),
    "waits": (
        Need("several open waits", 2, lambda fields: len(fields["waits"]) > 1),
        Need("a wait that several steps share", 2, lambda fields: any(map(_is_shared, fields["waits"]))),
        Need("several interrupted waits", 2, lambda fields: any(map(_has_interrupted, fields["waits"]))),
        Need("votes of several people", 2, lambda fields: any("voters" in wait for wait in fields["waits"])),
    ),
    "step": (
        Need("the first of several waits", 2, lambda fields: fields["action"]["kind"] == "any"),
        Need("several interrupted waits", 2, lambda fields: _interrupted(fields["action"].get("input"))),
        Need("a call of a model or a handler", 2, lambda fields: fields["action"]["kind"] in ("model", "handler")),
        Need("a title", 2, lambda fields: "title" in fields["action"]),
        Need("what it has spent", 2, lambda fields: bool(fields.get("spent"))),
        Need("groups around it", 2, lambda fields: bool(fields.get("within"))),
        Need("what somebody has said", 2, lambda fields: fields["action"]["kind"] == "said"),
    ),
    "signal": (Need("what somebody says", 2, lambda fields: fields["kind"] == "say"),),
    "message": (Need("a message for a session", 2, lambda fields: SESSION_MARK in (fields.get("metadata") or ())),),
    "fact": (),
    "rag_context": (),
    "error": (),
    "via": (),
    "event": (),
}


def _is_shared(wait: Fields) -> bool:
    prompt = wait.get("prompt")
    return wait["kind"] in ("event", "child") and isinstance(prompt, dict) and "steps" in prompt


def _has_interrupted(wait: Fields) -> bool:
    return _interrupted(wait.get("prompt"))


def _interrupted(asked: Any) -> bool:
    """Return whether the question of a limit notes several waits. The lowest format has an object in their place."""
    return isinstance(asked, dict) and "limit" in asked and isinstance(asked.get("during"), list)


# What decoding raises for texts and fields that nobody has written so.
DAMAGE: Final = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)

# For each older format, the function that brings an envelope of that kind one format further. The key is (kind of
# record, format it starts from).
MIGRATIONS: Final[dict[tuple[str, int], Callable[[Fields], Fields]]] = {}

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_parse = json.JSONDecoder().raw_decode
_VERSION: Final = re.compile(r'\{"v":(\d+)')
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


def seal(kind: str, fields: Fields, field: str, max_bytes: int = _UNLIMITED, **beside: JSONValue) -> str:
    """Return the fields as an envelope of the lowest format that can express them. Fields that are None are left out.

    `beside` stands at the end of the envelope and is not concealed.
    """
    return dump({"v": needed_format(kind, fields), **conceal(present(fields)), **beside}, field, max_bytes)


def needed_format(kind: str, fields: Fields) -> int:
    """Return the lowest format that can express a record of this kind with these fields."""
    needed = LOWEST
    for need in NEEDS[kind]:
        if need.format > needed and need.is_in(fields):
            needed = need.format
    return needed


def format_of(*texts: str) -> int:
    """Return the highest format of these envelopes; of none, the lowest."""
    highest = LOWEST
    for text in texts:
        if not text.startswith('{"v":1,'):
            version = _VERSION.match(text)
            assert version is not None, "not an envelope"
            highest = max(highest, int(version[1]))
    return highest


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
    if version > FORMAT:
        require_readable(kind, version)  # not called for each envelope of a long execution
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
