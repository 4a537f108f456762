"""Copying the documents of a store to another one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent_statestore.documents.codec import StoredDocument
from agent_statestore.documents.contract import copies
from agent_statestore.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedDocuments:
    """How many documents were looked at, and how many of them the target has now as they are in the source.

    `newer` counts those of which the target has a later version, which it keeps.
    """

    total: int = 0
    same: int = 0
    newer: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether the target has all of them, or newer ones."""
        return self.same + self.newer == self.total


def copy_documents(
    source: Store, target: Store, *, on_progress: Callable[[CopiedDocuments], None] | None = None
) -> CopiedDocuments:
    """Copy all documents with their versions; one that stands in the target with a later version stays.

    A copy counts as written now. It is harmless to repeat. What expires is left the time that it was given at first.
    `on_progress` is called after each page with the counts so far. Raise `StoreUnavailable`.
    """

    def copy(page: Sequence[StoredDocument]) -> None:
        for operations in copies(page):
            target.documents.apply(operations, None)

    return _each(source, target, copy, on_progress)


def verify_documents(
    source: Store, target: Store, *, on_progress: Callable[[CopiedDocuments], None] | None = None
) -> CopiedDocuments:
    """Compare the documents of the source with those of the target, and change nothing."""
    return _each(source, target, len, on_progress)


def _each(
    source: Store,
    target: Store,
    handle: Callable[[Sequence[StoredDocument]], object],
    on_progress: Callable[[CopiedDocuments], None] | None,
) -> CopiedDocuments:
    total = same = newer = 0
    for page in source.documents.stored_pages():
        handle(page)
        there = target.documents.read([stored.place for stored in page])
        for stored, found in zip(page, there, strict=True):
            total += 1
            same += found is not None and _contents(found) == _contents(stored)
            newer += found is not None and found.version > stored.version
        if on_progress is not None:
            on_progress(CopiedDocuments(total=total, same=same, newer=newer))
    return CopiedDocuments(total=total, same=same, newer=newer)


def _contents(stored: StoredDocument) -> tuple[object, ...]:
    return (stored.version, stored.text, stored.content, stored.metadata)
