"""Conversion of documents to what is stored and back. A backend never looks into the texts, but for metadata's lines.

The metadata is stored as lines of JSON, each a name and a value, between line breaks. JSON holds no line break, so a
document has a value in its metadata exactly if its lines contain that line: a search that every backend can do. Values
are concealed as those of executions are; names, keys and metadata are not, because they are searched.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from agent_statestore.clock import duration_us, from_us
from agent_statestore.documents.errors import DocumentUnreadable
from agent_statestore.documents.places import place_of, place_text
from agent_statestore.documents.records import Document, DocumentPlace, Expect, Operation, Put, Remove
from agent_statestore.envelope import (
    DAMAGE,
    LOWEST,
    conceal_bytes,
    dump,
    reason_of_damage,
    require_readable,
    reveal_bytes,
    seal_value,
    unseal_value,
)
from agent_statestore.errors import FormatTooNew, InvalidRecord, NotSerialisable, ValueTooLarge
from agent_statestore.records import JSONValue

MOST_METADATA_BYTES: Final = 64 * 1024

PUT: Final = "put"
REMOVE: Final = "remove"
EXPECT: Final = "expect"


class StoredDocument(NamedTuple):
    """A document as stored. Either `text`, JSON, or `content`, bytes, is its value; both are None without values.

    `damage` says why a backend cannot read more than its place.
    """

    place: str
    version: int
    write_id: str | None
    format: int
    text: str | None
    content: bytes | None
    metadata: str
    created_us: int
    updated_us: int
    expires_us: int | None
    damage: str | None = None


# What a backend stores of each; `damage` is found when it is read.
STORED_FIELDS: Final = StoredDocument._fields[:-1]


class EncodedOperation(NamedTuple):
    """An operation as a backend executes it. `kind` is one of `PUT`, `REMOVE`, `EXPECT`."""

    kind: str
    place: str
    if_version: int | None = None
    keep: bool = False
    version: int | None = None
    ttl_us: int | None = None
    text: str | None = None
    content: bytes | None = None
    metadata: str = ""


def encode_operation(operation: Operation, max_bytes: int) -> EncodedOperation:
    """Return an operation as a backend executes it. Raise `InvalidRecord`, `NotSerialisable` or `ValueTooLarge`."""
    place = place_text(DocumentPlace(operation.namespace, operation.key))
    match operation:
        case Put():
            text, content = _encode_value(operation.value, max_bytes)
            return EncodedOperation(
                PUT,
                place,
                if_version=operation.if_version,
                keep=operation.keep,
                version=operation.version,
                ttl_us=None if operation.ttl is None else duration_us(operation.ttl),
                text=text,
                content=content,
                metadata=encode_metadata(operation.metadata),
            )
        case Remove():
            return EncodedOperation(REMOVE, place, if_version=operation.if_version)
        case Expect():
            return EncodedOperation(EXPECT, place, if_version=operation.version)
    raise InvalidRecord("operations", f"needs Put, Remove and Expect, not {operation!r:.80}")


def decode_document(stored: StoredDocument, *, with_value: bool = True) -> Document:
    """Return a stored document. Raise `FormatTooNew` or `DocumentUnreadable`."""
    place = place_of(stored.place)
    require_readable(f"document {place.key} of {'/'.join(place.namespace)}", stored.format)
    if stored.damage is not None:
        raise DocumentUnreadable(place.namespace, place.key, stored.damage)
    try:
        value: JSONValue | bytes = None
        if stored.content is not None:
            value = reveal_bytes(stored.content)
        elif stored.text is not None:
            value = unseal_value(stored.text)
        elif with_value:
            raise ValueError("it has no value")
        metadata = decode_metadata(stored.metadata)
    except DAMAGE as error:
        raise DocumentUnreadable(place.namespace, place.key, reason_of_damage(error)) from error
    return _document(stored, place, value, metadata)


def decode_listed(stored: StoredDocument, *, with_value: bool) -> Document:
    """Return a document of a list; one that cannot be read says why, so that it does not hide the others."""
    try:
        return decode_document(stored, with_value=with_value)
    except (DocumentUnreadable, FormatTooNew) as error:
        return _document(stored, place_of(stored.place), None, {}, unreadable=str(error))


def encode_metadata(metadata: Mapping[str, JSONValue]) -> str:
    """Return the metadata as lines. Raise `InvalidRecord`, `NotSerialisable` or `ValueTooLarge`."""
    if not metadata:
        return ""
    text = "".join(f"\n{line}" for line in sorted(metadata_lines(metadata))) + "\n"
    size = len(text.encode())
    if size > MOST_METADATA_BYTES:
        raise ValueTooLarge("metadata", size, MOST_METADATA_BYTES)
    return text


def metadata_lines(metadata: Mapping[str, JSONValue]) -> list[str]:
    """Return one line for each name and value. Raise `InvalidRecord` or `NotSerialisable`."""
    lines = []
    for name, value in metadata.items():
        if not isinstance(name, str):
            raise InvalidRecord("metadata", f"needs texts as names, not {name!r:.80}")
        field = f"metadata[{name!r:.80}]"
        # Equal values must have equal texts, whatever the order of their names.
        lines.append(f"{dump(name, field)}:{dump(_ordered(value), field)}")
    return lines


def decode_metadata(lines: str) -> dict[str, JSONValue]:
    """Return the metadata that `encode_metadata` wrote."""
    if not lines:
        return {}
    first, *between, last = lines.split("\n")
    if first or last or not between:
        raise ValueError("its metadata are no lines")
    metadata: dict[str, JSONValue] = json.loads("{" + ",".join(between) + "}")
    return metadata


def wanted_lines(where: Mapping[str, JSONValue]) -> Sequence[str]:
    """Return the texts that must all be in the metadata of a document for which a query looks."""
    return [f"\n{line}\n" for line in metadata_lines(where)]


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise NotSerialisable("metadata", "JSON has texts as names")
        return {name: _ordered(value[name]) for name in sorted(value)}
    if isinstance(value, list | tuple):
        return [_ordered(each) for each in value]
    return value


def _encode_value(value: JSONValue | bytes, max_bytes: int) -> tuple[str | None, bytes | None]:
    if not isinstance(value, bytes | bytearray | memoryview):
        return seal_value(value, "value", max_bytes), None
    content = conceal_bytes(bytes(value))
    if len(content) > max_bytes:
        raise ValueTooLarge("value", len(content), max_bytes)
    return None, content


def _document(
    stored: StoredDocument,
    place: DocumentPlace,
    value: JSONValue | bytes,
    metadata: Mapping[str, JSONValue],
    *,
    unreadable: str | None = None,
) -> Document:
    return Document(
        namespace=place.namespace,
        key=place.key,
        value=value,
        metadata=metadata,
        version=stored.version,
        created_at=from_us(stored.created_us),
        updated_at=from_us(stored.updated_us),
        expires_at=None if stored.expires_us is None else from_us(stored.expires_us),
        unreadable=unreadable,
    )


__all__ = [
    "EXPECT",
    "LOWEST",
    "MOST_METADATA_BYTES",
    "PUT",
    "REMOVE",
    "STORED_FIELDS",
    "EncodedOperation",
    "StoredDocument",
    "decode_document",
    "decode_listed",
    "decode_metadata",
    "encode_metadata",
    "encode_operation",
    "metadata_lines",
    "wanted_lines",
]
