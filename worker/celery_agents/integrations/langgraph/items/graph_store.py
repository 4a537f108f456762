"""`GraphStore`: what graphs remember across threads, as documents of a store."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
)

from agent_statestore.documents import Document, DocumentPlace, DocumentQuery, Namespace, Operation, Put, Remove
from agent_statestore.documents.codec import decode_listed
from agent_statestore.documents.contract import DocumentStore, Selection
from agent_statestore.documents.errors import DocumentConflict, DocumentUnreadable
from agent_statestore.documents.places import Range, root_of
from agent_statestore.store import Store
from celery_agents.integrations.langgraph.items.matching import literal_prefix, matches, takes
from celery_agents.integrations.langgraph.items.places import EVERYWHERE, named, names_of, namespace_of, place_of
from celery_agents.integrations.langgraph.items.vectors import Index, likeness, packed
from celery_agents.integrations.langgraph.own_store import OwnStore

_PAGE: Final = 200
_AT_ONCE: Final = 900
_VALUE: Final = "value"
_VECTORS: Final = "vectors"
_UPDATED: Final = "updated"
_TTL: Final = "ttl"


@dataclass(frozen=True, slots=True)
class _Embedded:
    """The vectors of the texts and of the questions of a batch."""

    texts: Mapping[str, Sequence[float]]
    questions: Mapping[str, Sequence[float]]


class GraphStore(BaseStore):
    """LangGraph's store for graphs (`compile(store=GraphStore())`), in the store that keeps executions.

    Without a `store` it is the one of the execution, or of the current app.

    `index` says how items are embedded, as for LangGraph's other stores: `{"dims": ..., "embed": ..., "fields": ...}`.
    A search by a question compares it with every item below the namespace: some ten thousand at most.

    `ttl` is LangGraph's: minutes without a reading or a writing after which an item is gone, at once and of itself.

    A batch is one round trip for all that it gets, and one for each two first labels of a namespace that it puts to;
    a search or a list of namespaces is one for each 200 items that it looks at. What a batch reads is as it was before
    what it puts. Values must be JSON.
    """

    supports_ttl = True

    def __init__(
        self, store: Store | None = None, *, index: IndexConfig | None = None, ttl: TTLConfig | None = None
    ) -> None:
        self._own = OwnStore(store)
        self._index = None if index is None else Index(index)
        self.ttl_config = ttl

    @property
    def _documents(self) -> DocumentStore:
        return self._own.store.documents

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute operations. Raise `NotSerialisable` or `ValueTooLarge` for a value."""
        wanted = tuple(ops)
        texts, questions = self._texts(wanted), self._questions(wanted)
        embedded = _Embedded({}, {})
        if self._index is not None:
            embeddings = self._index.embeddings
            vectors = embeddings.embed_documents(texts) if texts else []
            embedded = _Embedded(
                dict(zip(texts, vectors, strict=True)), {each: embeddings.embed_query(each) for each in questions}
            )
        return self._execute(wanted, embedded)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """See `batch`."""
        wanted = tuple(ops)
        texts, questions = self._texts(wanted), self._questions(wanted)
        embedded = _Embedded({}, {})
        if self._index is not None:
            embeddings = self._index.embeddings
            vectors = await embeddings.aembed_documents(texts) if texts else []
            asked = await asyncio.gather(*(embeddings.aembed_query(each) for each in questions))
            embedded = _Embedded(dict(zip(texts, vectors, strict=True)), dict(zip(questions, asked, strict=True)))
        return await asyncio.to_thread(self._execute, wanted, embedded)

    def _texts(self, ops: Sequence[Op]) -> list[str]:
        if self._index is None:
            return []
        puts = _last_puts(ops).values()
        return list(dict.fromkeys(text for put in puts for text in self._index.texts(put).values()))

    def _questions(self, ops: Sequence[Op]) -> list[str]:
        if self._index is None:
            return []
        return list(dict.fromkeys(op.query for op in ops if isinstance(op, SearchOp) and op.query))

    def _execute(self, ops: Sequence[Op], embedded: _Embedded) -> list[Result]:
        got = self._get([op for op in ops if isinstance(op, GetOp)])
        results: list[Result] = []
        for op in ops:
            if isinstance(op, GetOp):
                results.append(next(got))
            elif isinstance(op, SearchOp):
                results.append(self._search(op, embedded.questions.get(op.query or "")))
            elif isinstance(op, ListNamespacesOp):
                results.append(self._list_namespaces(op))
            elif isinstance(op, PutOp):
                results.append(None)
            else:
                raise ValueError(f"Unknown operation type: {type(op)}")
        self._put(_last_puts(ops), embedded)
        return results

    def _get(self, ops: Sequence[GetOp]) -> Iterator[Item | None]:
        documents = self._documents.get_many([place_of(op.namespace, op.key) for op in ops])
        for op, document in zip(ops, documents, strict=True):
            if document is not None and op.refresh_ttl:
                self._refresh(document)
        return iter([None if each is None else _item(each) for each in documents])

    def _search(self, op: SearchOp, question: Sequence[float] | None) -> list[SearchItem]:
        most = None if op.filter or question is not None else op.offset + op.limit
        found: list[Document] = []
        for each in self._below(op.namespace_prefix, most):
            if takes(op.filter, _content(each)[_VALUE]):
                found.append(each)
                if len(found) == most:
                    break
        scores: dict[DocumentPlace, float] = {}
        if question is not None:
            for each in found:
                score = likeness(question, _content(each).get(_VECTORS) or {})
                if score is not None:
                    scores[each.place] = score
            # What is not embedded comes last.
            found.sort(key=lambda each: scores.get(each.place, -2.0), reverse=True)
        taken = found[op.offset : op.offset + op.limit]
        for each in taken:
            if op.refresh_ttl:
                self._refresh(each)
        return [_search_item(each, scores.get(each.place)) for each in taken]

    def _list_namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        conditions = op.match_conditions or ()
        everything = self._below(literal_prefix(conditions), None, values=False)
        found = {labels for each in everything for labels, _ in [names_of(each)]}
        matching = [labels for labels in found if all(matches(condition, labels) for condition in conditions)]
        namespaces = sorted({labels[: op.max_depth] for labels in matching})
        return namespaces[op.offset : op.offset + op.limit]

    def _put(self, puts: Mapping[DocumentPlace, PutOp], embedded: _Embedded) -> None:
        by_root: dict[Namespace, list[Operation]] = {}
        for place, op in puts.items():
            by_root.setdefault(root_of(place.namespace), []).append(self._operation(place, op, embedded))
        for operations in by_root.values():
            for at in range(0, len(operations), _AT_ONCE):
                self._documents.write(operations[at : at + _AT_ONCE])

    def _operation(self, place: DocumentPlace, op: PutOp, embedded: _Embedded) -> Operation:
        if op.value is None:
            return Remove(namespace=place.namespace, key=place.key)
        content: dict[str, Any] = {_VALUE: dict(op.value)}
        if self._index is not None:
            vectors = {path: packed(embedded.texts[text]) for path, text in self._index.texts(op).items()}
            content |= {_VECTORS: vectors} if vectors else {}
        metadata = dict(named(op.namespace, op.key))
        if op.ttl is not None:
            metadata[_TTL] = op.ttl
        return Put(
            namespace=place.namespace,
            key=place.key,
            value=content,
            metadata=metadata,
            ttl=None if op.ttl is None else timedelta(minutes=op.ttl),
        )

    def _refresh(self, document: Document) -> None:
        """Begin the time anew after which an item is gone; who changes it meanwhile does so, too."""
        ttl: Any = document.metadata.get(_TTL)
        if document.expires_at is None or ttl is None:
            return
        content = {_UPDATED: document.updated_at.isoformat(), **_content(document)}
        with suppress(DocumentConflict):
            self._documents.put(
                document.namespace,
                document.key,
                content,
                metadata=document.metadata,
                if_version=document.version,
                ttl=timedelta(minutes=ttl),
            )

    def _below(self, labels: tuple[str, ...], most: int | None, *, values: bool = True) -> Iterator[Document]:
        limit = _PAGE if most is None else max(1, min(most, _PAGE))
        if labels:
            query = DocumentQuery(namespace=namespace_of(labels), below=True, limit=limit, values=values)
            yield from self._documents.list_all(query)
            return
        places = EVERYWHERE
        while True:
            page = self._documents.read_range(Selection(namespace=(), places=places, limit=limit, values=values))
            yield from (decode_listed(each, with_value=values) for each in page)
            if len(page) < limit:
                return
            places = Range(f"{page[-1].place}\x01", places.last)


def _last_puts(ops: Sequence[Op]) -> dict[DocumentPlace, PutOp]:
    """Return the last put of each item."""
    return {place_of(op.namespace, op.key): op for op in ops if isinstance(op, PutOp)}


def _content(document: Document) -> dict[str, Any]:
    if document.unreadable is not None or not isinstance(document.value, dict):
        raise DocumentUnreadable(document.namespace, document.key, document.unreadable or "it is no item of a graph")
    return document.value


def _updated_at(document: Document) -> datetime:
    updated: Any = _content(document).get(_UPDATED)
    return document.updated_at if updated is None else datetime.fromisoformat(updated)


def _item(document: Document) -> Item:
    namespace, key = names_of(document)
    return Item(
        value=_content(document)[_VALUE],
        key=key,
        namespace=namespace,
        created_at=document.created_at,
        updated_at=_updated_at(document),
    )


def _search_item(document: Document, score: float | None) -> SearchItem:
    item = _item(document)
    return SearchItem(
        namespace=item.namespace,
        key=item.key,
        value=item.value,
        created_at=item.created_at,
        updated_at=item.updated_at,
        score=score,
    )
