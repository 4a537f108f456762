"""What is kept of a checkpoint, of a write and of a value, as bytes: facts as JSON, and what the serializer made.

They are compressed where that makes them smaller. Texts of models, and the names and versions of channels, become a
third or less.
"""

import json
import zlib
from collections.abc import Sequence
from typing import Any, Final

_PLAIN: Final = b"\x01"
_COMPRESSED: Final = b"\x02"
_LENGTH_BYTES: Final = 4
# Below, the compressed form is hardly ever the smaller one.
_WORTH_TRYING: Final = 64

Typed = tuple[str, bytes]


def pack(facts: Sequence[Any], parts: Sequence[Typed] = ()) -> bytes:
    """Return facts, which are JSON, and what a serializer made of values, as bytes."""
    head = json.dumps([*facts, [[kind, len(data)] for kind, data in parts]], separators=(",", ":")).encode()
    content = b"".join((len(head).to_bytes(_LENGTH_BYTES), head, *(data for _, data in parts)))
    if len(content) > _WORTH_TRYING:
        compressed = zlib.compress(content)
        if len(compressed) < len(content):
            return _COMPRESSED + compressed
    return _PLAIN + content


def unpack(packed: bytes) -> tuple[list[Any], list[Typed]]:
    """Return what was packed. Raise `ValueError` for anything else."""
    content = packed[1:]
    if packed[:1] == _COMPRESSED:
        try:
            content = zlib.decompress(content)
        except zlib.error as error:
            raise ValueError(f"cannot be decompressed: {error}") from error
    elif packed[:1] != _PLAIN:
        raise ValueError("was packed in a way that this version does not know")
    start = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES])
    *facts, sizes = json.loads(content[_LENGTH_BYTES:start])
    parts: list[Typed] = []
    for kind, size in sizes:
        parts.append((kind, content[start : start + size]))
        start += size
    return facts, parts
