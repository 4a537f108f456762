"""Vectors on PostgreSQL with the extension pgvector: the server compares them, and only what is near leaves it.

They are documents as everywhere, and the table `vectors` has a copy of each that the server can compare. Its rows refer
to the documents, and go with them. A row in the place of the document that notes changes tells up to which change the
copies are complete; whoever finds them behind completes them. So it does not matter who writes vectors, and whether the
table was there at the time.
"""

import math
from collections.abc import Sequence
from typing import Final

from agent_statestore.documents.contract import DocumentStore
from agent_statestore.documents.places import DocumentPlace, Namespace, place_of, place_text, within
from agent_statestore.recall.vectors import (
    DocumentVectors,
    Vector,
    VectorIndex,
    changes_place,
    vector_in,
    vectors_namespace,
)
from agent_statestore.sql.beside.documents import number_of_root
from agent_statestore.sql.postgresql.database import PostgreSQLDatabase
from agent_statestore.sql.schema.vectors_table import EXTENSION

_AT_ONCE: Final = 500
_ROUNDS: Final = 3


def vectors_of(database: PostgreSQLDatabase, documents: DocumentStore) -> VectorIndex:
    """Return the index of a store's vectors: with pgvector where `migrate` has found it, else in documents alone.

    Without the right to use the table it is as if that was not there.
    """
    table = "to_regclass(CAST(:vectors AS text))"
    rights = " AND ".join(f"has_table_privilege({table}, '{right}')" for right in ("SELECT", "INSERT", "UPDATE"))
    found = database.run(f"{EXTENSION} AND {rights}", {"vectors": database.settings.tables.vectors})
    if not found:
        return DocumentVectors(documents)
    return PostgreSQLVectors(database, documents, found[0][0])


class PostgreSQLVectors(DocumentVectors):
    """Vectors as documents, and once more where pgvector compares them, exactly. `extension` is its schema."""

    def __init__(self, database: PostgreSQLDatabase, documents: DocumentStore, extension: str) -> None:
        super().__init__(documents)
        self._database = database
        self._tables = tables = database.settings.tables
        vectors, stored = tables.vectors, tables.documents
        # All have the length 1: the product is the cosine, and less to compute. The operator gives it with a minus.
        product = f"v.embedding OPERATOR({extension}.<#>) CAST(:vector AS {extension}.vector)"
        self._nearest = (
            "WITH state AS MATERIALIZED (SELECT d.version, v.version AS seen "
            f"FROM {stored} AS d LEFT JOIN {vectors} AS v ON v.place = d.place WHERE d.place = :changes) "
            "SELECT state.version, state.seen, near.place, near.score FROM state LEFT JOIN LATERAL ("
            f"SELECT v.place, -({product}) AS score FROM {vectors} AS v "
            "WHERE state.version = state.seen AND v.place >= :first AND v.place < :last "
            f"AND {extension}.vector_dims(v.embedding) = :dimensions ORDER BY {product} LIMIT :rows) AS near ON TRUE "
            "ORDER BY near.score DESC"
        )
        self._behind = (
            f"SELECT d.place, d.version, d.content FROM {stored} AS d "
            f"LEFT JOIN {vectors} AS v ON v.place = d.place AND v.version = d.version "
            "WHERE d.place >= :first AND d.place < :last AND v.place IS NULL LIMIT :rows"
        )
        # Only of what stands there: the root is locked, so that it cannot go meanwhile.
        self._copy = (
            f"INSERT INTO {vectors} AS v (place, version, embedding) "
            f"SELECT d.place, d.version, CAST(x.embedding AS {extension}.vector) "
            "FROM unnest(CAST(%(places)b AS text[]), CAST(:versions AS bigint[]), CAST(%(embeddings)b AS text[])) "
            f"AS x (place, version, embedding) JOIN {stored} AS d ON d.place = x.place AND d.version = x.version "
            "ON CONFLICT (place) DO UPDATE SET version = EXCLUDED.version, embedding = EXCLUDED.embedding"
        )
        self._note = (
            f"INSERT INTO {vectors} AS v (place, version) SELECT d.place, CAST(:version AS bigint) FROM {stored} AS d "
            "WHERE d.place = :changes ON CONFLICT (place) DO UPDATE SET version = EXCLUDED.version "
            "WHERE v.version < EXCLUDED.version"
        )

    def nearest(self, namespace: Namespace, model: str, vector: Vector, limit: int) -> list[tuple[str, float]]:
        first, last = within(vectors_namespace(namespace, model), below=False)
        changes = place_text(DocumentPlace(*changes_place(namespace, model)))
        params = {"first": first, "last": last, "changes": changes, "rows": limit}
        params |= {"vector": _as_text(vector), "dimensions": len(vector)}
        for _ in range(_ROUNDS):
            rows = self._database.run(self._nearest, params)
            if not rows:
                return []
            version, seen, *_ = rows[0]
            if version == seen:
                return [(place_of(place).key, score) for _, _, place, score in rows if place is not None]
            self._complete(first, last, changes, version)
        # Others write faster than the copies are made.
        return super().nearest(namespace, model, vector, limit)

    def _complete(self, first: str, last: str | None, changes: str, version: int) -> None:
        """Copy the documents of a range that have no copy yet; all changes up to this version are among them."""
        key = number_of_root(self._tables, first)
        places = {"first": first, "last": last, "rows": _AT_ONCE}
        is_complete = False
        while not is_complete:
            missing = self._database.run(self._behind, places)
            is_complete = len(missing) < _AT_ONCE
            copies = {
                "places": [place for place, _, _ in missing],
                "versions": [of_document for _, of_document, _ in missing],
                # Damage has a row, too: otherwise it would be missing for ever.
                "embeddings": [_embedding(content) for _, _, content in missing],
            }
            if missing:
                self._database.run_locked(key, self._copy, copies)
        self._database.run_locked(key, self._note, {"changes": changes, "version": version})


def _embedding(content: bytes | None) -> str | None:
    vector = vector_in(content)
    return None if vector is None or not all(map(math.isfinite, vector)) else _as_text(vector)


def _as_text(vector: Sequence[float]) -> str:
    # So many digits tell all floats of 32 bits apart.
    return f"[{','.join(f'{each:.9g}' for each in vector)}]"
