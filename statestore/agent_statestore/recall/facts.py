"""Facts: texts about something, with their source and the time for which they hold, as documents of a scope."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from agent_statestore.clock import from_us, to_us
from agent_statestore.documents.contract import DocumentStore
from agent_statestore.documents.errors import DocumentConflict, DocumentUnreadable
from agent_statestore.documents.places import Namespace, safe_part
from agent_statestore.documents.query import DocumentQuery
from agent_statestore.documents.records import Document, Operation, Put, Remove
from agent_statestore.envelope import DAMAGE, reason_of_damage
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import JSONValue, require_aware, require_name

_FACTS: Final = "facts"
_NEW: Final = "unembedded"
_PAGE: Final = 500
_DIGEST_BYTES: Final = 12


class ScopeKind(StrEnum):
    """What a fact is remembered for."""

    USER = "user"
    SESSION = "session"
    AGENT = "agent"
    TEAM = "team"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a fact is remembered for, and whose it is: `Scope(ScopeKind.USER, "ada")`.

    Raises `InvalidRecord` for an unknown kind or an invalid id.
    """

    kind: ScopeKind
    id: str

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "kind", ScopeKind(self.kind))
        except ValueError as error:
            kinds = ", ".join(kind.value for kind in ScopeKind)
            raise InvalidRecord("scope", f"is one of {kinds}, not {self.kind!r:.80}") from error
        require_name("scope", self.id)

    @property
    def namespace(self) -> Namespace:
        """The root of all that is remembered for it."""
        return (self.kind.value, safe_part(self.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something that is remembered.

    Attributes:
        key: by which it is found in its scope; `key_of` makes one.
        text: what is remembered, in words: what a search compares.
        data: the same as data, or more of it.
        entity: what it is about: a person, an order, a product.
        execution_id: the execution that said so; None for what was stored otherwise.
        agent_id: the agent of that execution.
        step: the last step that the execution had recorded by then.
        said_at: when it was said.
        valid_from: since when it holds; None for always.
        valid_until: until when it holds; None for no end.

    Raises `InvalidRecord` for an invalid key, text, entity or time.
    """

    key: str
    text: str
    data: JSONValue = None
    entity: str | None = None
    execution_id: str | None = None
    agent_id: str | None = None
    step: str | None = None
    said_at: datetime
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_name("key", self.key)
        if not isinstance(self.text, str) or not self.text.strip():
            raise InvalidRecord("fact", f"needs words, not {self.text!r:.80}")
        if self.entity is not None:
            require_name("entity", self.entity)
        for name in ("said_at", "valid_from", "valid_until"):
            require_aware(name, getattr(self, name))

    def holds(self, at: datetime) -> bool:
        """Return whether it holds at that time."""
        has_begun = self.valid_from is None or self.valid_from <= at
        return has_begun and (self.valid_until is None or at < self.valid_until)


def key_of(text: str, entity: str | None, execution_id: str | None) -> str:
    """Return the key of what an execution says: the same for the same, so that a replay adds nothing."""
    digest = hashlib.blake2b(f"{entity or ''}\x1f{text}".encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return digest if execution_id is None else f"{execution_id}-{digest}"


class Facts:
    """The facts of one scope."""

    def __init__(self, documents: DocumentStore, scope: Scope) -> None:
        self.scope = scope
        self._documents = documents
        self._facts = (*scope.namespace, _FACTS)
        self._new = (*scope.namespace, _NEW)

    # -- reading -------------------------------------------------------------------------------------------------------

    def get_many(self, keys: Sequence[str]) -> tuple[Fact | None, ...]:
        """Return the facts with these keys, in their order; None for what is forgotten. One round trip."""
        found = self._documents.get_many([(self._facts, key) for key in keys])
        return tuple(None if each is None else _fact_of(each) for each in found)

    def all(self, *, entity: str | None = None, at: datetime | None = None) -> Iterator[Fact]:
        """Yield the facts, those of the oldest executions first; only those about `entity`, and that hold `at` a time.

        One round trip for each 500.
        """
        where: dict[str, JSONValue] = {} if entity is None else {"entity": entity}
        query = DocumentQuery(namespace=self._facts, where=where, limit=_PAGE)
        facts = map(_fact_of, self._documents.list_all(query))
        return (fact for fact in facts if at is None or fact.holds(at))

    def not_embedded(self, limit: int) -> tuple[Fact, ...]:
        """Return at most `limit` facts for which no vectors are kept yet. Two round trips, or one if there are none."""
        page = self._documents.list(DocumentQuery(namespace=self._new, limit=limit, values=False))
        keys = [each.key for each in page.items]
        found = self.get_many(keys)
        gone = [Remove(namespace=self._new, key=key) for key, fact in zip(keys, found, strict=True) if fact is None]
        if gone:
            self._documents.write(gone)
        return tuple(fact for fact in found if fact is not None)

    # -- writing -------------------------------------------------------------------------------------------------------

    def remember(self, fact: Fact) -> None:
        """Store a fact, unless one with its key is stored. One round trip."""
        self._documents.write(self.remembering(fact))

    def remembering(self, fact: Fact) -> list[Operation]:
        """Return the operations that store a fact, unless one with its key is stored."""
        metadata: dict[str, JSONValue] = {
            name: value
            for name, value in (
                ("entity", fact.entity),
                ("execution", fact.execution_id),
                ("agent", fact.agent_id),
                ("step", fact.step),
            )
            if value is not None
        }
        return [
            Put(namespace=self._facts, key=fact.key, value=_as_value(fact), metadata=metadata, keep=True),
            Put(namespace=self._new, key=fact.key, value=None, keep=True),
        ]

    def is_embedded(self, keys: Sequence[str]) -> None:
        """Vectors of these facts are kept now."""
        self._documents.write([Remove(namespace=self._new, key=key) for key in keys])

    def end(self, key: str, at: datetime) -> bool:
        """Let a fact hold no longer than until that time; return False if there is none, or it ended before."""
        while True:
            document = self._documents.get(self._facts, key)
            if document is None:
                return False
            fact = _fact_of(document)
            if fact.valid_until is not None and fact.valid_until <= at:
                return False
            try:
                self._documents.put(
                    self._facts,
                    key,
                    _as_value(replace(fact, valid_until=at)),
                    metadata=document.metadata,
                    if_version=document.version,
                )
            except DocumentConflict:
                continue  # each round of this loop is another writer's success
            return True

    def forget(self, key: str) -> None:
        """Remove a fact for good. Its vectors go with `Recall.forget`."""
        self._documents.write([Remove(namespace=self._facts, key=key), Remove(namespace=self._new, key=key)])

    def embed_again(self) -> int:
        """Have all facts turned into vectors once more, for another model; return how many there are."""
        count, puts = 0, list[Operation]()
        for document in self._documents.list_all(DocumentQuery(namespace=self._facts, limit=_PAGE, values=False)):
            puts.append(Put(namespace=self._new, key=document.key, value=None, keep=True))
            if len(puts) == _PAGE:
                self._documents.write(puts)
                count, puts = count + len(puts), []
        if puts:
            self._documents.write(puts)
        return count + len(puts)


def _as_value(fact: Fact) -> JSONValue:
    return {
        "text": fact.text,
        "data": fact.data,
        "said_at": to_us(fact.said_at),
        "from": None if fact.valid_from is None else to_us(fact.valid_from),
        "until": None if fact.valid_until is None else to_us(fact.valid_until),
        "metadata": dict(fact.metadata),
    }


def _fact_of(document: Document) -> Fact:
    if document.unreadable is not None:
        raise DocumentUnreadable(document.namespace, document.key, document.unreadable)
    said: Any = document.value
    where: Any = document.metadata
    try:
        return Fact(
            key=document.key,
            text=said["text"],
            data=said["data"],
            entity=where.get("entity"),
            execution_id=where.get("execution"),
            agent_id=where.get("agent"),
            step=where.get("step"),
            said_at=from_us(said["said_at"]),
            valid_from=None if said["from"] is None else from_us(said["from"]),
            valid_until=None if said["until"] is None else from_us(said["until"]),
            metadata=said["metadata"],
        )
    except DAMAGE as error:
        raise DocumentUnreadable(document.namespace, document.key, reason_of_damage(error)) from error
