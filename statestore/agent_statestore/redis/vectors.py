"""Vectors on Redis 8: the server has an index of them, a vector set for each model and length.

They are documents as everywhere, and the sets have copies. It is noted up to which change the copies are complete;
whoever finds them behind completes them. So it does not matter who writes vectors, and whether the server had vector
sets at the time. Copies go with the documents of their root: see `scripts/remove_documents.lua`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

from agent_statestore.documents.contract import DocumentStore
from agent_statestore.documents.errors import DocumentConflict
from agent_statestore.documents.places import DocumentPlace, Namespace, namespace_text, place_text, root_of, within
from agent_statestore.documents.query import DocumentQuery
from agent_statestore.documents.records import Operation, Put, Remove, Written
from agent_statestore.errors import StoreUnavailable
from agent_statestore.recall.vectors import (
    DocumentVectors,
    Vector,
    VectorIndex,
    as_bytes,
    changes_place,
    vector_in,
    vectors_namespace,
)
from agent_statestore.redis.answers import text
from agent_statestore.redis.document_cells import read_at
from agent_statestore.redis.keys import Keys
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Connection
from agent_statestore.redis.servers.packing import Word

# So many are copied by one call, during which the server does nothing else: about 40 ms.
_AT_ONCE: Final = 50
_ROUNDS: Final = 3
# How many elements the server looks at: with so many, of 10,000 facts the nearest 25 were found without exception.
_LEAST_LOOKED_AT: Final = 200
_ANY_VECTOR: Final = as_bytes([1.0])


def vectors_of(
    connection: Connection, keys: Keys, now: Callable[[], str | int], documents: DocumentStore
) -> VectorIndex:
    """Return the index of a store's vectors: vector sets where the server has them and the user may use them."""
    nothing = keys.vectors("", [""])[-1]
    try:
        connection.send_each([("VSIM", nothing, "FP32", _ANY_VECTOR), ("VREM", nothing, "")])
    except StoreUnavailable as error:
        # It does not know the command, or the user has no right to it.
        if isinstance(error.__cause__, ResponseError):
            return DocumentVectors(documents)
        raise
    return RedisVectors(connection, keys, now, documents)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A change of the copies: the vector under a key comes into a set, or goes; its document has this version."""

    key: str
    version: int | None
    old: str
    new: str
    vector: bytes = b""


class RedisVectors(DocumentVectors):
    """Vectors as documents, and once more in vector sets, where the nearest ones are found by a graph of them."""

    def __init__(
        self, connection: Connection, keys: Keys, now: Callable[[], str | int], documents: DocumentStore
    ) -> None:
        super().__init__(documents)
        self._connection = connection
        self._keys = keys
        self._now = now

    def put(self, namespace: Namespace, model: str, vectors: Sequence[tuple[str, Vector]]) -> None:
        area = _Area(namespace, model)
        contents = {key: as_bytes(vector) for key, vector in vectors}
        for keys in _parts(list(contents)):
            puts = [Put(namespace=area.namespace, key=key, value=contents[key]) for key in keys]
            before, written = self._write(area, puts)
            old = self._sets_of(area, keys)
            copies = [
                _Copy(key, version, old.get(key, ""), area.set_for(len(contents[key]) // 4), contents[key])
                for key, version in zip(keys, written.versions, strict=False)
            ]
            self._copy(area, copies, before, written.versions[-1])

    def remove(self, namespace: Namespace, model: str, keys: Sequence[str]) -> None:
        area = _Area(namespace, model)
        for some in _parts(list(dict.fromkeys(keys))):
            before, written = self._write(area, [Remove(namespace=area.namespace, key=key) for key in some])
            old = self._sets_of(area, some)
            copies = [_Copy(key, None, name, "") for key, name in old.items()]
            self._copy(area, copies, before, written.versions[-1])

    def nearest(self, namespace: Namespace, model: str, vector: Vector, limit: int) -> list[tuple[str, float]]:
        area = _Area(namespace, model)
        copies, _, vector_set = self._keys.vectors(area.root, [area.set_for(len(vector))])
        looked_at = max(_LEAST_LOOKED_AT, 2 * limit)
        asked: list[Sequence[Word]] = [
            ("HGET", self._keys.documents(area.root)[0], area.changes_rest),
            ("HGET", copies, area.changes_rest),
            ("VSIM", vector_set, "FP32", as_bytes(vector), "WITHSCORES", "COUNT", limit, "EF", looked_at),
        ]
        for _ in range(_ROUNDS):
            cell, seen, near = self._connection.send_each(asked)
            change = next(read_at([area.changes], [cell, None]))
            if change is None:
                return []
            if seen is not None and int(seen) == change.version:
                found = [(text(key), 2 * float(score) - 1) for key, score in _pairs(near)]
                return sorted(found, key=lambda each: -each[1])
            self._complete(area, change.version)
        # Others write faster than the copies are made.
        return super().nearest(namespace, model, vector, limit)

    def _write(self, area: "_Area", operations: Sequence[Operation]) -> tuple[int, Written]:
        """Write documents and note the change; return the version of the change before, and what was written."""
        place = area.changes_place
        while True:
            change = self._documents.get(*place)
            before = 0 if change is None else change.version
            noted = Put(namespace=place.namespace, key=place.key, value=None, if_version=before)
            try:
                return before, self._documents.write([*operations, noted])
            except DocumentConflict:
                continue  # each round of this loop is another writer's success

    def _sets_of(self, area: "_Area", keys: Sequence[str]) -> dict[str, str]:
        """Return the names of the sets in which there are copies under these keys."""
        copies = self._keys.vectors(area.root)[0]
        (answer,) = self._connection.send_each([("HMGET", copies, *(area.rest_of(key) for key in keys))])
        return {key: _set_in(stored) for key, stored in zip(keys, answer, strict=True) if stored is not None}

    def _complete(self, area: "_Area", version: int) -> None:
        """Bring the copies up to the documents; all changes up to this version are among them."""
        (answer,) = self._connection.send_each([("HGETALL", self._keys.vectors(area.root)[0])])
        begin = area.rest_of("")
        copied = {text(rest)[len(begin) :]: stored for rest, stored in _pairs(answer) if text(rest).startswith(begin)}
        query = DocumentQuery(namespace=area.namespace, limit=1000, values=False)
        standing = {each.key: each.version for each in self._documents.list_all(query)}
        for keys in _parts([key for key in copied if key not in standing]):
            self._copy(area, [_Copy(key, None, _set_in(copied[key]), "") for key in keys], None, None)
        behind = [key for key in standing if key not in copied or _version_in(copied[key]) != standing[key]]
        for keys in _parts(behind):
            self._copy(area, self._copies_of(area, keys, copied), None, None)
        self._copy(area, [], None, version)

    def _copies_of(self, area: "_Area", keys: Sequence[str], copied: Mapping[str, bytes]) -> list[_Copy]:
        copies = []
        places = [place_text(DocumentPlace(area.namespace, key)) for key in keys]
        for key, document in zip(keys, self._documents.read(places), strict=True):
            if document is None:
                continue
            vector = vector_in(document.content)
            # Damage is noted, too: otherwise it would be behind for ever.
            is_vector = vector is not None and all(map(math.isfinite, vector))
            new = area.set_for(len(vector)) if vector is not None and is_vector else ""
            old = _set_in(copied[key]) if key in copied else ""
            copies.append(_Copy(key, document.version, old, new, document.content or b"" if new else b""))
        return copies

    def _copy(self, area: "_Area", copies: Sequence[_Copy], before: int | None, afterwards: int | None) -> None:
        names = sorted({name for copy in copies for name in (copy.old, copy.new) if name})
        numbers = {name: number for number, name in enumerate(names, 1)} | {"": 0}
        arguments: list[Word] = [self._now(), area.changes_rest]
        arguments += ["" if before is None else before, "" if afterwards is None else afterwards, *names]
        for copy in copies:
            version = "" if copy.version is None else copy.version
            numbered = numbers[copy.old], numbers[copy.new]
            arguments += [area.rest_of(copy.key), version, *numbered, copy.key, copy.vector]
        keys = [self._keys.documents(area.root)[0], *self._keys.vectors(area.root, names)]
        self._connection.run(script("copy_vectors"), keys, arguments)


class _Area:
    """The vectors of one namespace and model, and where Redis has what belongs to them."""

    def __init__(self, namespace: Namespace, model: str) -> None:
        self.namespace = vectors_namespace(namespace, model)
        self.root = namespace_text(root_of(self.namespace))
        self.changes_place = changes_place(namespace, model)
        self.changes = place_text(self.changes_place)
        self.changes_rest = self.changes[len(self.root) :]
        self._begin = within(self.namespace, below=False).first[len(self.root) :]

    def rest_of(self, key: str) -> str:
        """Return the rest of the place of the vector under a key."""
        return self._begin + key

    def set_for(self, dimensions: int) -> str:
        """Return the name of the set of its vectors of this length."""
        return f"{self._begin}{dimensions}"


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE))


def _pairs(answer: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the pairs of a map, which the older protocol answers as a list."""
    if isinstance(answer, Mapping):
        yield from answer.items()
    else:
        parts = iter(answer)
        yield from zip(parts, parts, strict=True)


def _version_in(stored: bytes) -> int:
    return int(stored.partition(b":")[0])


def _set_in(stored: bytes) -> str:
    return text(stored.partition(b":")[2])
