"""Documents as the scripts take and answer them; `scripts/document.lua` describes a cell."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from agent_statestore.clock import to_us
from agent_statestore.documents.codec import LOWEST, PUT, EncodedOperation, StoredDocument
from agent_statestore.envelope import DAMAGE, octets, reason_of_damage
from agent_statestore.redis.servers.packing import Word

# A value up to this size is kept in the cell. A larger one would be a burden where values are not asked for.
_MOST_IN_CELL: Final = 1024

_HEAD: Final = re.compile(rb"(\d+):(\d*):(\d+):(\d*):(\d*):([tbTB]):(\d+):(\d+):")
_FORMAT: Final = re.compile(rb"(\d{1,9}):")
_LAST_US: Final = to_us(datetime.max.replace(tzinfo=UTC))


def arguments_of(operation: EncodedOperation, rest: str) -> Iterator[Word]:
    """Yield the arguments of `apply_documents.lua` for one operation, at the rest of its place."""
    yield "keep" if operation.keep else operation.kind
    yield rest
    yield _number(operation.if_version)
    if operation.kind != PUT:
        return
    yield _number(operation.version)
    yield _number(operation.ttl_us)
    yield operation.metadata
    if operation.content is not None:
        yield "b" if len(operation.content) <= _MOST_IN_CELL else "B"
        yield operation.content
    else:
        text = operation.text or ""
        yield "t" if octets(text) <= _MOST_IN_CELL else "T"
        yield text


def read_at(places: Sequence[str], answer: Sequence[Any]) -> Iterator[StoredDocument | None]:
    """Yield what `read_documents.lua` answered for the first of these places; None where there is no document."""
    pairs = iter(answer)
    for place, cell, beside in zip(places, pairs, pairs, strict=False):
        yield None if cell is None else _document(place, cell, beside, values=True)


def listed_in(root: str, answer: Sequence[Any], *, values: bool) -> Iterator[StoredDocument]:
    """Yield what `list_documents.lua` answered."""
    parts = iter(answer)
    for rest, cell, beside in zip(parts, parts, parts, strict=True):
        yield _document(root + rest.decode("utf-8", "replace"), cell, beside, values=values)


def _document(place: str, stored: bytes, beside: bytes | None, *, values: bool) -> StoredDocument:
    head = _HEAD.match(stored)
    if head is None:
        # All formats begin with their number.
        number = _FORMAT.match(stored)
        return _damaged(place, "its header", LOWEST if number is None else max(LOWEST, int(number[1])))
    try:
        return _parsed(place, head, stored, beside, values)
    except DAMAGE as error:
        return _damaged(place, reason_of_damage(error), LOWEST)


def _parsed(place: str, head: re.Match[bytes], stored: bytes, beside: bytes | None, values: bool) -> StoredDocument:
    format_, created_us = int(head[1]), int(head[3])
    updated_us = int(head[4] or created_us)
    expires_us = int(head[5]) if head[5] else None
    if max(created_us, updated_us, expires_us or 0) > _LAST_US:
        raise ValueError("a time that no calendar has")
    metadata_at = head.end() + int(head[7])
    value_at = metadata_at + int(head[8])
    if value_at > len(stored):
        raise ValueError("it is too short")
    kind, value = head[6], None
    if values:
        value = stored[value_at:] if kind.islower() else beside
    is_text = kind.lower() == b"t"
    return StoredDocument(
        place=place,
        version=int(head[2] or updated_us),
        write_id=stored[head.end() : metadata_at].decode() or None,
        format=format_,
        text=value.decode() if value is not None and is_text else None,
        content=None if is_text else value,
        metadata=stored[metadata_at:value_at].decode(),
        created_us=created_us,
        updated_us=updated_us,
        expires_us=expires_us,
    )


def _damaged(place: str, what: str, format_: int) -> StoredDocument:
    return StoredDocument(
        place=place,
        version=0,
        write_id=None,
        format=format_,
        text=None,
        content=None,
        metadata="",
        created_us=0,
        updated_us=0,
        expires_us=None,
        damage=what,
    )


def _number(value: int | None) -> Word:
    return "" if value is None else value
