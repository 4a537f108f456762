"""The contract of documents: the primitives that every backend implements, and what is built on them once.

`agent_statestore.testing` tests any backend against it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from agent_statestore.documents.codec import (
    PUT,
    EncodedOperation,
    StoredDocument,
    decode_document,
    decode_listed,
    encode_operation,
    wanted_lines,
)
from agent_statestore.documents.places import (
    DocumentPlace,
    Namespace,
    Range,
    check_namespace,
    place_of,
    place_text,
    root_of,
    within,
)
from agent_statestore.documents.query import DocumentPage, DocumentQuery, page_of
from agent_statestore.documents.records import Document, Operation, Put, Remove, Written
from agent_statestore.errors import InvalidRecord
from agent_statestore.query import check_limit
from agent_statestore.records import JSONValue, require_name

DEFAULT_MAX_DOCUMENT_BYTES: Final = 8 * 1024 * 1024
MOST_OPERATIONS: Final = 1000
_COPIED_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A range of documents as a backend looks for it.

    Attributes:
        namespace: all documents of the range are in it or below it.
        places: where they stand.
        lines: texts that the metadata of each must contain.
        newest_first: in the opposite order.
        limit: the most documents to return, in the order of their places.
        values: whether their values are wanted.
    """

    namespace: Namespace
    places: Range
    lines: Sequence[str] = ()
    newest_first: bool = False
    limit: int
    values: bool = True


class DocumentPrimitives(ABC):
    """Documents, stored so that any process can read and write them.

    Invariants, for every backend:

    * `write` is atomic: it happens as a whole or not at all, and concurrent calls have the outcome of some serial
      order. All other methods are atomic for each document.
    * Each method is one round trip, unless its docstring says otherwise.
    * Time is the store's clock. A document whose `expires_at` is not after now is not there.
    * The order of documents is that of their places as texts, by code point (see `agent_statestore.documents.places`).
    * What is damaged is one document: no other notices.
    * A driver's errors become `StoreUnavailable`, chained; a call that raised it may be repeated.

    Attributes:
        max_document_bytes: limit of one value; a larger one is refused with `ValueTooLarge`. It may be set at any time.
    """

    max_document_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES

    @abstractmethod
    def apply(self, operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
        """Execute the operations, all of one root and each at another place; see `DocumentStore.write`.

        Checked in this order, with no change when one fails: `write_id` was stored by one of the puts (success without
        any effect); `DocumentConflict`, for the first operation that is refused. `agent_statestore.documents.rules`
        decides it for backends that can read before they write.
        """

    @abstractmethod
    def read(self, places: Sequence[str]) -> Sequence[StoredDocument | None]:
        """Return what stands at these places, in their order. The places may be of several roots.

        A backend may need further round trips where the values are many megabytes.
        """

    @abstractmethod
    def read_range(self, selection: Selection) -> Sequence[StoredDocument]:
        """Return the documents of a selection, in its order.

        The cost is that of the documents between the first and the last one returned.
        A backend may need further round trips across roots, for thousands of documents that `lines` refuse, and where
        the values are many megabytes.
        """

    @abstractmethod
    def remove_range(self, namespace: Namespace) -> int:
        """Remove all documents in a namespace and below it, and return how many there were.

        Not atomic across roots, and there not one round trip either; nor is it for thousands of documents in a part of
        a root.
        """

    @abstractmethod
    def tidy(self, limit: int = 1000) -> int:
        """Remove at most `limit` documents that have expired, and return how many there were. The sweeper calls it.

        It may be one round trip if there are none, and some more otherwise.
        """


class DocumentStore(DocumentPrimitives):
    """The documents of a store: the primitives of the backend, and what users call.

    A namespace is a tuple of one or more texts, and a key is a text; neither is empty nor holds control characters, and
    together they have at most some 670 characters. The first two parts of a namespace name its root: the documents of
    one root are written together, as on a Redis Cluster they lie on one server. So choose what belongs together, such
    as `("session", session_id)`, and put no more into one root than one server should hold.
    """

    def write(self, operations: Sequence[Operation], *, write_id: str | None = None) -> Written:
        """Execute operations on documents of one root, all or nothing, in one round trip.

        With a `write_id`, which must be unique, the write may be repeated: if any of its puts stands as this write has
        stored it, the repetition succeeds without any effect.

        Raise `DocumentConflict` if an operation does not allow the version that stands at its place, `NotSerialisable`
        or `ValueTooLarge` for a value, and `InvalidRecord` for no or more than 1000 operations, several on one
        document, or several roots.
        """
        if not 0 < len(operations) <= MOST_OPERATIONS:
            raise InvalidRecord("operations", f"needs 1 to {MOST_OPERATIONS}, not {len(operations)}")
        if write_id is not None:
            require_name("write_id", write_id)
        encoded = [encode_operation(operation, self.max_document_bytes) for operation in operations]
        if len({operation.place for operation in encoded}) < len(encoded):
            raise InvalidRecord("operations", "has several for one document")
        if len({root_of(tuple(operation.namespace)) for operation in operations}) > 1:
            raise InvalidRecord("operations", "are of several roots: the first two parts of their namespaces differ")
        return self.apply(encoded, write_id)

    def put(
        self,
        namespace: Namespace,
        key: str,
        value: JSONValue | bytes,
        *,
        metadata: Mapping[str, JSONValue] | None = None,
        if_version: int | None = None,
        keep: bool = False,
        version: int | None = None,
        ttl: timedelta | None = None,
    ) -> int:
        """Store one document, and return the version that then stands there; see `Put` and `write`."""
        put = Put(
            namespace=namespace,
            key=key,
            value=value,
            metadata=metadata or {},
            if_version=if_version,
            keep=keep,
            version=version,
            ttl=ttl,
        )
        return self.write([put]).versions[0]

    def remove(self, namespace: Namespace, key: str, *, if_version: int | None = None) -> None:
        """Remove one document, if it is there. Raise `DocumentConflict` if it has another version."""
        self.write([Remove(namespace=namespace, key=key, if_version=if_version)])

    def get(self, namespace: Namespace, key: str) -> Document | None:
        """Return a document, or None. Raise `FormatTooNew` or `DocumentUnreadable`."""
        return self.get_many([DocumentPlace(namespace, key)])[0]

    def get_many(self, places: Sequence[tuple[Namespace, str]]) -> tuple[Document | None, ...]:
        """Return the documents at these places, in their order, in one round trip; None where there is none.

        Raise `FormatTooNew` or `DocumentUnreadable`.
        """
        if not places:
            return ()
        stored = self.read([place_text(DocumentPlace(*place)) for place in places])
        return tuple(None if each is None else decode_document(each) for each in stored)

    def list(self, query: DocumentQuery) -> DocumentPage:
        """Return a page of documents. What cannot be read says so (`Document.unreadable`) and hides no other."""
        selection = Selection(
            namespace=query.namespace,
            places=query.places,
            lines=wanted_lines(query.where),
            newest_first=query.newest_first,
            limit=query.limit + 1,
            values=query.values,
        )
        found = [decode_listed(stored, with_value=query.values) for stored in self.read_range(selection)]
        return page_of(found, query)

    def list_all(self, query: DocumentQuery) -> Iterator[Document]:
        """Yield the documents of all pages from this one on; one round trip for each page."""
        while True:
            page = self.list(query)
            yield from page.items
            if page.next_cursor is None:
                return
            query = replace(query, cursor=page.next_cursor)

    def namespaces(self, below: Namespace = (), *, limit: int = 100, after: Namespace = ()) -> tuple[Namespace, ...]:
        """Return at most `limit` namespaces in or below `below` that hold documents, in order.

        `after` leaves out all up to this one. One round trip for each namespace.
        """
        check_limit(limit)
        first, last = within(check_namespace(below, least=0), below=True)
        if after:
            first = max(first, _behind(check_namespace(after)))
        found: list[Namespace] = []
        while len(found) < limit:
            selection = Selection(namespace=below, places=Range(first, last), limit=1, values=False)
            stored = self.read_range(selection)
            if not stored:
                break
            namespace = place_of(stored[0].place).namespace
            found.append(namespace)
            first = _behind(namespace)
        return tuple(found)

    def remove_under(self, namespace: Namespace) -> int:
        """Remove all documents in the namespace and in those below it, and return how many there were.

        It is not atomic, and harmless to repeat. Raise `InvalidRecord` for an empty namespace.
        """
        return self.remove_range(check_namespace(namespace))

    def copy_under(self, source: Namespace, target: Namespace) -> int:
        """Copy all documents in `source` and below it to the same places under `target`; return how many there are.

        A copy has the version of its original; a document that stands in `target` with that version or a higher one
        stays. So the call is harmless to repeat. It is not atomic, and two round trips for each hundred documents. The
        time that is left to a document is left to its copy. Raise `InvalidRecord` if one namespace is within the other.
        """
        source, target = check_namespace(source), check_namespace(target)
        depth = min(len(source), len(target))
        if source[:depth] == target[:depth]:
            raise InvalidRecord("target", "needs a namespace that is neither in the source nor around it")
        count = 0
        for page in self.stored_pages(source):
            for operations in copies(
                page, lambda place: DocumentPlace((*target, *place.namespace[len(source) :]), place.key)
            ):
                self.apply(operations, None)
            count += len(page)
        return count

    def stored_pages(self, namespace: Namespace = ()) -> Iterator[Sequence[StoredDocument]]:
        """Yield all documents in the namespace and below it as they are stored, a hundred at a time, in order."""
        first, last = within(namespace, below=True)
        while True:
            page = self.read_range(Selection(namespace=namespace, places=Range(first, last), limit=_COPIED_AT_ONCE))
            if page:
                yield page
            if len(page) < _COPIED_AT_ONCE:
                return
            first = f"{page[-1].place}\x01"


def copies(
    page: Sequence[StoredDocument], moved: Callable[[DocumentPlace], DocumentPlace] = lambda place: place
) -> Iterable[Sequence[EncodedOperation]]:
    """Return the operations that store copies of documents, for each root; `moved` says where a copy stands.

    A copy has the version of its original, so that a later one stays.
    """
    by_root: dict[Namespace, list[EncodedOperation]] = {}
    for stored in page:
        place = moved(place_of(stored.place))
        operation = EncodedOperation(
            PUT,
            place_text(place),
            version=stored.version,
            ttl_us=_time_left(stored),
            text=stored.text,
            content=stored.content,
            metadata=stored.metadata,
        )
        by_root.setdefault(root_of(place.namespace), []).append(operation)
    return by_root.values()


def _behind(namespace: Namespace) -> str:
    """Return where the namespaces below this one begin."""
    return within(namespace, below=False).last or ""


def _time_left(stored: StoredDocument) -> int | None:
    # Counted from its last write, as only the store knows the time: a copy may live longer, never shorter.
    return None if stored.expires_us is None else stored.expires_us - stored.updated_us
