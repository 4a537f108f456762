"""The question that `DocumentStore.list` is asked, and the pages that it answers with."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent_statestore.documents.places import Namespace, Range, check_namespace, place_of, place_text, within
from agent_statestore.documents.records import Document, DocumentPlace
from agent_statestore.errors import InvalidRecord
from agent_statestore.query import check_limit
from agent_statestore.records import JSONValue, require_text


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentQuery:
    """The documents that `DocumentStore.list` returns, in the order of their namespaces and keys.

    Attributes:
        namespace: where they stand. Empty with `below` is everywhere.
        below: also those in the namespaces below it.
        where: names of metadata and the values that they must have. Values are compared as JSON: 1 is not 1.0, nor
            true.
        after: only keys behind this one.
        before: only keys before this one. `after` and `before` cannot be given with `below`.
        newest_first: the opposite order, in which the last key comes first.
        limit: the most documents of one page.
        cursor: the `next_cursor` of the page before.
        values: whether the documents come with their values.

    Raises `InvalidRecord` for an invalid namespace, limit or cursor, and for bounds of keys with `below`.
    """

    namespace: Namespace
    below: bool = False
    where: Mapping[str, JSONValue] = field(default_factory=dict)
    after: str | None = None
    before: str | None = None
    newest_first: bool = False
    limit: int = 100
    cursor: str | None = None
    values: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "namespace", check_namespace(self.namespace, least=0 if self.below else 1))
        check_limit(self.limit)
        if self.below and not (self.after is None and self.before is None):
            raise InvalidRecord("before", "bounds of keys do not go with the namespaces below")
        for name in ("after", "before"):
            require_text(name, getattr(self, name))

    @property
    def places(self) -> Range:
        """The places that this page may hold. Raises `InvalidRecord` for a cursor that no page gave."""
        first, last = within(self.namespace, below=self.below)
        # Not a place with a character that no key holds, but the first text behind the key.
        if self.after is not None:
            first = max(first, f"{first}{self.after}\x01")
        if self.before is not None:
            last = min(last or "", f"{within(self.namespace, below=False).first}{self.before}")
        if self.cursor is not None:
            seen = _decode(self.cursor)
            if self.newest_first:
                last = seen if last is None else min(last, seen)
            else:
                first = max(first, f"{seen}\x01")
        return Range(first, last)


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPage:
    """Some of the documents that were asked for; the rest is behind `next_cursor`, None on the last page."""

    items: tuple[Document, ...]
    next_cursor: str | None = None


def page_of(found: list[Document], query: DocumentQuery) -> DocumentPage:
    """Return the page of a query whose backend has looked for one document more than its limit."""
    items = tuple(found[: query.limit])
    cursor = encode_cursor(items[-1].place) if len(found) > query.limit else None
    return DocumentPage(items=items, next_cursor=cursor)


def encode_cursor(place: DocumentPlace) -> str:
    """Return the place behind which the next page begins, as opaque text."""
    return base64.urlsafe_b64encode(place_text(place).encode()).decode().rstrip("=")


def _decode(cursor: str) -> str:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        if place_text(place_of(text)) != text:
            raise ValueError("no place")
        return text
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise InvalidRecord("cursor", f"{cursor!r:.80} is not a cursor of this store") from error
