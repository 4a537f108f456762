"""What is kept of a checkpoint, of a write and of a value, as bytes: facts as JSON, and what the serializer made.

They are compressed where that makes them smaller: texts of models become a third or less. What is in every checkpoint
is known beforehand, and takes hardly any room.
"""

import json
import zlib
from collections.abc import Sequence
from typing import Any, Final

_PLAIN: Final = b"\x01"
_COMPRESSED: Final = b"\x02"
_LENGTH_BYTES: Final = 4
# What checkpoints and writes of LangGraph look like. It is a part of what was compressed with it: another one would
# need another mark.
_DICTIONARY: Final = (
    b'[["__error__"],["__interrupt__"],["__resume__"],[[-1,"[[-3,"[[0,"messages"],[1,"branch:to:"],[2,"","'
    b"~__pregel_pull, "
    b'__pregel_push, model, tools, agent[["msgpack",["null",0],["bytes","0..0","0..1","0..2",'
    b"\x81\xaamessages\x94\x92\xa7content\xa4type\xa5human\xa2ai\xb1additional_kwargs\xb1response_metadata\xa4name\xa2id"
    b"\xb9langchain_core.messages.aiAIMessage\xbclangchain_core.messages.humanHumanMessage\xaatool_calls\xaeusage_metadata"
    b"\x87\xa1v\x04\xa2ts\xd9 2026-12-01T00:00:00.000000+00:00\xa2id\xd9$1f1ed1b2-0000-6000-8000-000000000000"
    b"\xaechannel_values\x80\xb0channel_versions\x84\xa9__start__\xb60000000002.\xaebranch:to:model\xaebranch:to:tools"
    b"\xaebranch:to:agent\xadversions_seen\x83\xa9__input__\x80\xa9__start__\x81\xa9__start__\xb60000000001."
    b"\xb0updated_channels\x91\xa8messages\x83\xa6source\xa5input\xa6source\xa4loop\xa4step\xa7parents\x80"
    b"\xa6run_id\xbdcounters_since_delta_snapshot\x81"
)
# Below, the compressed form is hardly ever the smaller one.
_WORTH_TRYING: Final = 64

Typed = tuple[str, bytes]


def pack(facts: Sequence[Any], parts: Sequence[Typed] = ()) -> bytes:
    """Return facts, which are JSON, and what a serializer made of values, as bytes."""
    head = json.dumps([*facts, [[kind, len(data)] for kind, data in parts]], separators=(",", ":")).encode()
    content = b"".join((len(head).to_bytes(_LENGTH_BYTES), head, *(data for _, data in parts)))
    if len(content) > _WORTH_TRYING:
        compressor = zlib.compressobj(zdict=_DICTIONARY)
        compressed = compressor.compress(content) + compressor.flush()
        if len(compressed) < len(content):
            return _COMPRESSED + compressed
    return _PLAIN + content


def unpack(packed: bytes) -> tuple[list[Any], list[Typed]]:
    """Return what was packed. Raise `ValueError` for anything else."""
    content = packed[1:]
    if packed[:1] == _COMPRESSED:
        try:
            decompressor = zlib.decompressobj(zdict=_DICTIONARY)
            content = decompressor.decompress(content)
            if not decompressor.eof:
                raise ValueError("has no end")
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
