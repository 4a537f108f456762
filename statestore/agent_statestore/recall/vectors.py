"""Where the vectors of facts are kept, and how the nearest ones are found."""

import heapq
import importlib
import math
import os
import sys
import threading
from abc import ABC, abstractmethod
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from operator import mul
from typing import Any, Final, TypeAlias

from agent_statestore.documents.contract import DocumentStore
from agent_statestore.documents.places import DocumentPlace, Namespace, safe_part
from agent_statestore.documents.query import DocumentQuery
from agent_statestore.documents.records import Operation, Put, Remove
from agent_statestore.errors import InvalidRecord

# Turns texts into vectors, all of one length, in their order.
Embed: TypeAlias = Callable[[list[str]], Sequence[Sequence[float]]]
Vector: TypeAlias = "array[float]"

_VECTORS: Final = "vectors"
_CHANGES: Final = "changes"
_AT_ONCE: Final = 400
_MOST_DIMENSIONS: Final = 16_000
# What the vectors that a process keeps at hand may take.
_CACHED_BYTES: Final = 128 * 1024 * 1024


class VectorIndex(ABC):
    """Vectors by namespace and key. They have the length 1 (see `unit`), so that nearness is their product.

    Namespaces are those of documents, and `DocumentStore.remove_under` takes their vectors along. What is kept of
    facts that are forgotten meanwhile does no harm: whoever searches looks the facts up.
    """

    @abstractmethod
    def put(self, namespace: Namespace, model: str, vectors: Sequence[tuple[str, Vector]]) -> None:
        """Store vectors under their keys, in the place of those that stand there. Repeating is harmless."""

    @abstractmethod
    def remove(self, namespace: Namespace, model: str, keys: Sequence[str]) -> None:
        """Remove the vectors with these keys, where there are any."""

    @abstractmethod
    def nearest(self, namespace: Namespace, model: str, vector: Vector, limit: int) -> list[tuple[str, float]]:
        """Return the keys of the nearest vectors and their cosine, the nearest first, at most `limit`.

        Vectors of another length than `vector` are passed over.
        """


def unit(values: Sequence[float]) -> Vector:
    """Return the vector of length 1 that has this direction. Raise `InvalidRecord` for what is no vector."""
    try:
        vector = array("f", values)
    except (TypeError, OverflowError) as error:
        raise InvalidRecord("embed", f"needs vectors of numbers: {error}") from error
    size = math.sqrt(sum(map(mul, vector, vector)))
    if not 0 < len(vector) <= _MOST_DIMENSIONS or not 0 < size < math.inf:
        raise InvalidRecord("embed", "needs vectors of 1 to 16000 finite numbers that are not all 0")
    return array("f", [each / size for each in vector])


class DocumentVectors(VectorIndex):
    """Vectors as documents beside the facts, all of which are compared.

    A process keeps what it has read, up to 128 MiB, and asks only whether it has changed. So a search costs one round
    trip, and all vectors of the namespace once. It fits some 10,000 facts in one namespace. With numpy installed, the
    comparison of so many takes a millisecond, without it a quarter of a second.
    """

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self._cache = _Cache()

    def put(self, namespace: Namespace, model: str, vectors: Sequence[tuple[str, Vector]]) -> None:
        for start in range(0, len(vectors), _AT_ONCE):
            place = vectors_namespace(namespace, model)
            some = vectors[start : start + _AT_ONCE]
            puts: list[Operation] = [Put(namespace=place, key=key, value=as_bytes(vector)) for key, vector in some]
            self._documents.write([*puts, _has_changed(namespace, model)])

    def remove(self, namespace: Namespace, model: str, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _AT_ONCE):
            place = vectors_namespace(namespace, model)
            removals: list[Operation] = [Remove(namespace=place, key=key) for key in keys[start : start + _AT_ONCE]]
            self._documents.write([*removals, _has_changed(namespace, model)])

    def nearest(self, namespace: Namespace, model: str, vector: Vector, limit: int) -> list[tuple[str, float]]:
        place = vectors_namespace(namespace, model)
        change = self._documents.get(*changes_place(namespace, model))
        version = 0 if change is None else change.version
        table = self._cache.get((place, len(vector)), version)
        if table is None:
            table = self._read(place, len(vector))
            self._cache.put((place, len(vector)), version, table)
        return table.nearest(vector, limit)

    def _read(self, place: Namespace, dimensions: int) -> "_Table":
        keys, contents = [], bytearray()
        for document in self._documents.list_all(DocumentQuery(namespace=place, limit=1000)):
            if isinstance(document.value, bytes) and len(document.value) == dimensions * 4:
                keys.append(document.key)
                contents += document.value
        return _Table(keys, bytes(contents), dimensions)


class _Table:
    """The vectors of one namespace, all of one length, ready to be compared."""

    def __init__(self, keys: list[str], contents: bytes, dimensions: int) -> None:
        self._keys = keys
        self._dimensions = dimensions
        self.size = len(contents)
        numpy = _numpy()
        self._matrix: Any = None
        self._rows: list[Vector] = []
        if numpy is not None:
            self._matrix = numpy.frombuffer(contents, dtype="<f4").reshape(len(keys), dimensions)
        else:
            width = dimensions * 4
            self._rows = [_from_bytes(contents[at : at + width]) for at in range(0, len(contents), width)]

    def nearest(self, vector: Vector, limit: int) -> list[tuple[str, float]]:
        if not self._keys:
            return []
        numpy = _numpy()
        if numpy is None or self._matrix is None:
            scores = [sum(map(mul, row, vector)) for row in self._rows]
            best = heapq.nlargest(limit, range(len(scores)), key=scores.__getitem__)
        else:
            scores = self._matrix @ numpy.asarray(vector, dtype="<f4")
            some = min(limit, len(self._keys))
            best = numpy.argpartition(scores, -some)[-some:]
            best = best[numpy.argsort(-scores[best], kind="stable")]
        return [(self._keys[place], float(scores[place])) for place in best]


class _Cache:
    """The tables that were used last. It needs a lock of its own in each process."""

    def __init__(self) -> None:
        self._start_anew()
        os.register_at_fork(after_in_child=self._start_anew)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._tables: OrderedDict[tuple[Namespace, int], tuple[int, _Table]] = OrderedDict()

    def get(self, place: tuple[Namespace, int], version: int) -> _Table | None:
        with self._lock:
            found = self._tables.get(place)
            if found is None or found[0] != version:
                return None
            self._tables.move_to_end(place)
            return found[1]

    def put(self, place: tuple[Namespace, int], version: int, table: _Table) -> None:
        with self._lock:
            self._tables[place] = version, table
            self._tables.move_to_end(place)
            while sum(table.size for _, table in self._tables.values()) > _CACHED_BYTES:
                self._tables.popitem(last=False)


@cache
def _numpy() -> Any:
    """Return numpy; None where it is not installed."""
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


def vectors_namespace(namespace: Namespace, model: str) -> Namespace:
    """Return the namespace of the documents that hold vectors of a model."""
    return (*namespace, _VECTORS, safe_part(model))


def changes_place(namespace: Namespace, model: str) -> DocumentPlace:
    """Return the place of the document whose version grows with every change of these vectors."""
    return DocumentPlace((*namespace, _CHANGES), safe_part(model))


def vector_in(content: object) -> "Vector | None":
    """Return the vector that a document holds; None for what is none."""
    if not isinstance(content, bytes) or not content or len(content) % 4 or len(content) > 4 * _MOST_DIMENSIONS:
        return None
    return _from_bytes(content)


def _has_changed(namespace: Namespace, model: str) -> Put:
    where, key = changes_place(namespace, model)
    return Put(namespace=where, key=key, value=None)


def as_bytes(values: Sequence[float]) -> bytes:
    """Return a vector as documents hold it: floats of 32 bits, the lowest byte first."""
    vector = array("f", values)
    if sys.byteorder == "big":
        vector.byteswap()
    return vector.tobytes()


def _from_bytes(content: bytes) -> Vector:
    vector = array("f")
    vector.frombytes(content)
    if sys.byteorder == "big":
        vector.byteswap()
    return vector
