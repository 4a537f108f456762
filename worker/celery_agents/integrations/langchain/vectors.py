"""Vectors of facts in any vector database that LangChain has a `VectorStore` for."""

import base64
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from operator import mul
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid5

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from agent_statestore.documents.places import Namespace, namespace_text
from agent_statestore.errors import InvalidRecord
from agent_statestore.recall.vectors import Vector, VectorIndex, as_bytes, vector_in

# Is given the name of a collection, and what makes vectors of the texts that the index stores.
OpenVectorStore: TypeAlias = Callable[[str, Embeddings], VectorStore]
# Is given the name of a collection; returns arguments for `VectorStore.similarity_search`.
SearchOptions: TypeAlias = Callable[[str], Mapping[str, Any]]

_AT_ONCE: Final = 100
_DIGEST_BYTES: Final = 16
_KEY: Final = "fact"
_COLLECTION: Final = "collection"
_IDS: Final = UUID("b5a7a1f0-6c2e-5b57-9d0b-0f6f3d1f7c11")


class GivenVectors(Embeddings):
    """Gives back the vectors that were made before: a text is a vector, written in base64.

    Raises `InvalidRecord` for any other text. So a vector store must not try it with one: Qdrant's needs
    `validate_collection_config=False`.
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return list(_vector_of(text))


class VectorStoreIndex(VectorIndex):
    """A `VectorIndex` that keeps the vectors in LangChain's vector stores, such as those of Qdrant or Chroma.

        def open_store(name, embeddings):
            return Chroma(name, embeddings, persist_directory="/var/lib/facts")

        memory = VectorMemory(embed=embed, index=VectorStoreIndex(open_store))

    A vector store is opened for each collection: the vectors of one owner and one model, all of one length. Its name
    has 32 hexadecimal digits behind "facts_". If one store shall have them all, let `open_store` return the same each
    time, and `options` the filter by which it finds one collection: each text has the metadata `{"collection": name}`.

    The texts in the store are the vectors themselves. So no words of a fact leave the state store, and the cosines are
    computed here, the same for every kind of store. The facts are looked up in the state store, and those that are
    erased there are not found; but their vectors stay until `remove` is called with their keys, as nothing else of the
    state store reaches them.
    """

    def __init__(self, open_store: OpenVectorStore, *, options: SearchOptions | None = None) -> None:
        self._open_store = open_store
        self._options = options
        self._stores: dict[str, VectorStore] = {}
        self._embeddings = GivenVectors()

    def put(self, namespace: Namespace, model: str, vectors: Sequence[tuple[str, Vector]]) -> None:
        name = _collection(namespace, model)
        for start in range(0, len(vectors), _AT_ONCE):
            part = vectors[start : start + _AT_ONCE]
            self._store(name).add_texts(
                [_text_of(vector) for _, vector in part],
                [{_KEY: key, _COLLECTION: name} for key, _ in part],
                ids=[_id_of(name, key) for key, _ in part],
            )

    def remove(self, namespace: Namespace, model: str, keys: Sequence[str]) -> None:
        name = _collection(namespace, model)
        for start in range(0, len(keys), _AT_ONCE):
            self._store(name).delete([_id_of(name, key) for key in keys[start : start + _AT_ONCE]])

    def nearest(self, namespace: Namespace, model: str, vector: Vector, limit: int) -> list[tuple[str, float]]:
        name = _collection(namespace, model)
        options = {} if self._options is None else self._options(name)
        found = self._store(name).similarity_search(_text_of(vector), k=limit, **options)
        near = {document.metadata[_KEY]: _cosine(document.page_content, vector) for document in found}
        return sorted(near.items(), key=lambda each: -each[1])

    def _store(self, name: str) -> VectorStore:
        store = self._stores.get(name)
        if store is None:
            store = self._stores[name] = self._open_store(name, self._embeddings)
        return store


def _collection(namespace: Namespace, model: str) -> str:
    digest = hashlib.blake2b(namespace_text((*namespace, model)).encode(), digest_size=_DIGEST_BYTES)
    return f"facts_{digest.hexdigest()}"


def _id_of(name: str, key: str) -> str:
    # Some databases take nothing else for an id.
    return str(uuid5(_IDS, f"{name}/{key}"))


def _text_of(vector: Vector) -> str:
    return base64.b64encode(as_bytes(vector)).decode()


def _vector_of(text: str) -> Vector:
    try:
        vector = vector_in(base64.b64decode(text, validate=True))
    except ValueError:
        vector = None
    if vector is None:
        raise InvalidRecord("text", f"is no vector of VectorStoreIndex, which alone may write there: {text!r:.80}")
    return vector


def _cosine(text: str, vector: Vector) -> float:
    return math.fsum(map(mul, _vector_of(text), vector))
