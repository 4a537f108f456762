"""Reads the checkpoints of threads: one, the last one, or many, newest first."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, Final

from langgraph.checkpoint.base import CheckpointTuple

from agent_statestore.documents import Document, DocumentPlace, DocumentQuery, DocumentStore, Namespace
from celery_agents.integrations.langgraph.saver.index import MARK, passes, wanted
from celery_agents.integrations.langgraph.saver.names import (
    GRAPH,
    ID_KEY,
    THREADS,
    before_all_of,
    behind_all_of,
    blob_key,
    blobs_of,
    graph_of,
    id_of,
    is_checkpoint,
    is_checkpoint_id,
    is_hashed,
    thread_id_of,
)
from celery_agents.integrations.langgraph.saver.stored import Form, StoredCheckpoint, Where, add_writes, thread_of

# The last checkpoint has no writes on top of it where the graph has ended, and those of each task that asks where it
# waits.
_FIRST_LOOK: Final = 4
PAGE: Final = 200
# So many checkpoints are read at once where they are looked for by their metadata.
_AT_ONCE: Final = 50


class Reader:
    """Reads what a store has of threads."""

    def __init__(self, documents: DocumentStore, form: Form) -> None:
        self.documents = documents
        self.form = form

    def last(self, where: Where) -> StoredCheckpoint | None:
        """Return the last checkpoint of a namespace. One round trip, or two with many writes on top of it."""
        return next(self.newest_first(where, first_page=_FIRST_LOOK), None)

    def one(self, where: Where, checkpoint_id: str) -> StoredCheckpoint | None:
        """Return a checkpoint with the writes on top of it. One round trip, and one more for each 200 writes."""
        if not is_checkpoint_id(checkpoint_id):
            return None
        found = list(self.documents.list_all(_all_of(where, checkpoint_id)))
        return next(self._grouped(found, where.thread_id), None)

    def newest_first(
        self, where: Where, *, up_to: str | None = None, below: str | None = None, first_page: int = PAGE
    ) -> Iterator[StoredCheckpoint]:
        """Yield the checkpoints of a namespace with their writes, up to this id, or below it. One trip for each page.

        Writes without a checkpoint, which came to the store before it, are nobody's yet.
        """
        bound = None
        if up_to is not None:
            bound = behind_all_of(up_to)
        elif below is not None:
            bound = before_all_of(below)
        query = DocumentQuery(
            namespace=graph_of(where.root, where.checkpoint_ns), newest_first=True, before=bound, limit=first_page
        )
        yield from self._grouped(_all_pages(self.documents, query), where.thread_id)

    def values(self, checkpoints: Sequence[StoredCheckpoint]) -> list[dict[str, Any]]:
        """Return the values of each of the checkpoints that are not small. One round trip."""
        places = [self._blobs_of(each) for each in checkpoints]
        distinct = list({place: None for each in places for place in each.values()})
        found = self.found(distinct)
        return [
            {channel: self.form.value_of(found[place]) for channel, place in each.items() if place in found}
            for each in places
        ]

    def found(self, places: Sequence[DocumentPlace]) -> dict[DocumentPlace, Document]:
        """Return the documents that there are at these places. One round trip."""
        documents = self.documents.get_many(places)
        return {place: each for place, each in zip(places, documents, strict=True) if each is not None}

    def tuples(self, checkpoints: Iterable[StoredCheckpoint], at_once: int = _AT_ONCE) -> Iterator[CheckpointTuple]:
        """Yield the checkpoints as LangGraph takes them. One round trip for so many at once."""
        remaining = iter(checkpoints)
        while some := list(islice(remaining, at_once)):
            for each, values in zip(some, self.values(some), strict=True):
                yield each.tuple(values, self.form.serde)

    def search(
        self,
        thread: tuple[str, Namespace] | None,
        checkpoint_ns: str | None,
        filter: Mapping[str, Any] | None,  # noqa: A002 - LangGraph's name for it
        below: str | None,
    ) -> Iterator[StoredCheckpoint]:
        """Yield the checkpoints that pass the filter, newest first: of a thread, or of all, in one namespace or in all.

        One round trip for each page of what is found; and for 50 of these one, and one more each for their writes.
        """
        found = self._search(thread, checkpoint_ns, filter, below)
        names: dict[Namespace, str] = {} if thread is None else {thread[1]: thread[0]}
        while some := list(islice(found, _AT_ONCE)):
            yield from self._read(some, names, filter)

    def _search(
        self,
        thread: tuple[str, Namespace] | None,
        checkpoint_ns: str | None,
        filter: Mapping[str, Any] | None,  # noqa: A002
        below: str | None,
    ) -> Iterator[DocumentPlace]:
        if thread is not None and checkpoint_ns is not None:
            query = DocumentQuery(
                namespace=graph_of(thread[1], checkpoint_ns),
                where=wanted(filter),
                newest_first=True,
                before=None if below is None else before_all_of(below),
                limit=PAGE,
                values=False,
            )
            yield from (each.place for each in self.documents.list_all(query))
            return
        # The order of documents is that of threads and namespaces, and not that of ids.
        everywhere = THREADS if thread is None else graph_of(thread[1])
        query = DocumentQuery(namespace=everywhere, below=True, where=wanted(filter), limit=PAGE, values=False)
        namespace = None if checkpoint_ns is None else graph_of((), checkpoint_ns)
        places = [
            each.place
            for each in self.documents.list_all(query)
            if each.namespace[2] == GRAPH
            and (namespace is None or each.namespace[2:] == namespace)
            and (below is None or id_of(each.key) < below)
        ]
        yield from sorted(places, key=lambda place: id_of(place.key), reverse=True)

    def _read(
        self,
        places: Sequence[DocumentPlace],
        names: dict[Namespace, str],
        filter: Mapping[str, Any] | None,  # noqa: A002
    ) -> Iterator[StoredCheckpoint]:
        found = self.found(places)
        self._name_threads({place.namespace[:2] for place in found} - set(names), names)
        for document in found.values():
            checkpoint = self.form.checkpoint_of(document, names[document.namespace[:2]])
            if passes(checkpoint.metadata, filter):
                writes = self.documents.list_all(_all_of(checkpoint.where, checkpoint.id))
                add_writes(checkpoint, [each for each in writes if not is_checkpoint(each.key)])
                yield checkpoint

    def _name_threads(self, roots: set[Namespace], names: dict[Namespace, str]) -> None:
        """Add the ids of threads to those that are known."""
        hashed = [DocumentPlace(root, ID_KEY) for root in roots if is_hashed(root)]
        found = self.found(hashed)
        names |= {root: thread_id_of(root) for root in roots if not is_hashed(root)}
        names |= {place.namespace: thread_of(found.get(place)) for place in hashed}

    def _grouped(self, documents: Iterable[Document], thread_id: str) -> Iterator[StoredCheckpoint]:
        """Yield the checkpoints among documents that stand together, each with its writes."""
        for _, group in groupby(documents, key=lambda each: id_of(each.key)):
            some = list(group)
            for each in some:
                if is_checkpoint(each.key):
                    checkpoint = self.form.checkpoint_of(each, thread_id)
                    add_writes(checkpoint, [other for other in some if other is not each])
                    yield checkpoint

    @staticmethod
    def _blobs_of(checkpoint: StoredCheckpoint) -> dict[str, DocumentPlace]:
        where = checkpoint.where
        namespace = blobs_of(where.root, where.checkpoint_ns)
        return {
            channel: DocumentPlace(namespace, blob_key(channel, version))
            for channel, version in checkpoint.versions.items()
            if channel not in checkpoint.inline
        }


def last_id(documents: DocumentStore, root: Namespace, checkpoint_ns: str) -> str | None:
    """Return the id of the last checkpoint of a namespace. One round trip."""
    query = DocumentQuery(namespace=graph_of(root, checkpoint_ns), where=MARK, newest_first=True, limit=1, values=False)
    return next((id_of(each.key) for each in documents.list(query).items), None)


def _all_of(where: Where, checkpoint_id: str) -> DocumentQuery:
    return DocumentQuery(
        namespace=graph_of(where.root, where.checkpoint_ns),
        after=before_all_of(checkpoint_id),
        before=behind_all_of(checkpoint_id),
        limit=PAGE,
    )


def _all_pages(documents: DocumentStore, query: DocumentQuery) -> Iterator[Document]:
    """Yield the documents of all pages, of which only the first is as small as the query says."""
    page = documents.list(query)
    yield from page.items
    if page.next_cursor is not None:
        namespace, before = query.namespace, query.before
        yield from documents.list_all(
            DocumentQuery(namespace=namespace, before=before, newest_first=True, limit=PAGE, cursor=page.next_cursor)
        )
