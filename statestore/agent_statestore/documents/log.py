"""A log: documents that are only appended, numbered from 1 without gaps, each write at the place that it expects.

Entry n has the key of that number and the version n, so that an append says which entry it comes behind. Entries may be
removed at the beginning (what is summarised) and at the end (what is taken back).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent_statestore.documents.contract import DocumentStore
from agent_statestore.documents.places import Namespace
from agent_statestore.documents.query import DocumentQuery
from agent_statestore.documents.records import Document, Expect, Operation, Put, Remove
from agent_statestore.records import JSONValue

_DIGITS: Final = 12
_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """What is appended to a log."""

    value: JSONValue | bytes
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)


class DocumentLog:
    """The log that a namespace holds, with nothing else in it."""

    def __init__(self, documents: DocumentStore, namespace: Namespace) -> None:
        self._documents = documents
        self._namespace = namespace

    def length(self) -> int:
        """Return the number of the last entry; 0 without one. One round trip."""
        last = self._documents.list(
            DocumentQuery(namespace=self._namespace, newest_first=True, limit=1, values=False)
        ).items
        return number_of(last[0]) if last else 0

    def read(self, after: int = 0, *, up_to: int | None = None) -> Iterator[Document]:
        """Yield the entries behind number `after`, in order, up to and with number `up_to`."""
        before = None if up_to is None else key_of(up_to + 1)
        query = DocumentQuery(namespace=self._namespace, after=key_of(after), before=before, limit=_PAGE)
        return self._documents.list_all(query)

    def last(self, count: int) -> tuple[Document, ...]:
        """Return the last `count` entries, in order. One round trip."""
        page = self._documents.list(DocumentQuery(namespace=self._namespace, newest_first=True, limit=count))
        return page.items[::-1]

    def append(self, entries: Sequence[LogEntry], *, at: int, write_id: str | None = None) -> int:
        """Append entries behind number `at`, the last one, and return the number of the last new one.

        Raise `DocumentConflict` if entry `at` is not the last one. With a unique `write_id` it may be repeated.
        """
        if entries:
            self._documents.write(self.appending(entries, at=at), write_id=write_id)
        return at + len(entries)

    def appending(self, entries: Sequence[LogEntry], *, at: int) -> list[Operation]:
        """Return the operations that append; see `append`. They may be written with others of the same root."""
        operations: list[Operation] = []
        if at:
            operations.append(Expect(namespace=self._namespace, key=key_of(at), version=at))
        for number, entry in enumerate(entries, at + 1):
            operations.append(
                Put(
                    namespace=self._namespace,
                    key=key_of(number),
                    value=entry.value,
                    metadata=entry.metadata,
                    if_version=0,
                    version=number,
                )
            )
        return operations

    def removing(self, first: int, last: int) -> list[Operation]:
        """Return the operations that remove the entries with these numbers."""
        return [Remove(namespace=self._namespace, key=key_of(number)) for number in range(first, last + 1)]


def key_of(number: int) -> str:
    """Return the key of an entry: its number, in such a way that keys have the order of numbers."""
    return f"{number:0{_DIGITS}}"


def number_of(entry: Document) -> int:
    """Return the number of an entry."""
    return int(entry.key)
