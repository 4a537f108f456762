"""Finding facts by what they are about."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from agent_statestore.documents.contract import DocumentStore
from agent_statestore.errors import InvalidRecord
from agent_statestore.query import check_limit
from agent_statestore.recall.facts import Fact, Facts, Scope
from agent_statestore.recall.vectors import DocumentVectors, Embed, Vector, VectorIndex, unit
from agent_statestore.records import require_name

_EMBEDDED_AT_ONCE: Final = 100
# How many more than wanted are looked at, as some may hold no longer.
_SPARE: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A fact that was found, whose it is, and how near it is to the question: the cosine of their vectors, -1 to 1."""

    fact: Fact
    scope: Scope
    score: float


class Recall:
    """Finds the facts that are nearest to a question.

    Attributes:
        embed: turns texts into vectors. It is called with at most 100 texts.
        model: the name of what `embed` does. Vectors of different models are kept apart; see `Facts.embed_again`.
        index: where the vectors are kept; by default in documents.
    """

    def __init__(
        self, documents: DocumentStore, embed: Embed, *, model: str = "default", index: VectorIndex | None = None
    ) -> None:
        require_name("model", model)
        self._documents = documents
        self.embed = embed
        self.model = model
        self.index = index or DocumentVectors(documents)

    def search(
        self,
        question: str,
        scopes: Sequence[Scope],
        *,
        limit: int = 5,
        at: datetime,
        entity: str | None = None,
        least: float = -1.0,
    ) -> list[Recalled]:
        """Return the facts of these scopes that are nearest to the question, the nearest first, at most `limit`.

        Only facts count that hold `at` that time, are about `entity` if it is given, and whose score is at least
        `least`. Facts without vectors get them first, by `embed`. Raise `InvalidRecord` for an invalid limit, no words,
        and for what `embed` returns if that is no vector, and what `embed` raises.
        """
        check_limit(limit)
        if not isinstance(question, str) or not question.strip():
            raise InvalidRecord("question", f"needs words, not {question!r:.80}")
        for scope in scopes:
            self.embed_new(scope)
        (vector,) = self._vectors([question])
        found = [
            each
            for scope in scopes
            for each in self._nearest(Facts(self._documents, scope), vector, limit, at, entity, least)
        ]
        found.sort(key=lambda each: -each.score)
        return found[:limit]

    def embed_new(self, scope: Scope) -> int:
        """Turn the facts of a scope that have no vectors into some; return how many there were."""
        facts, count = Facts(self._documents, scope), 0
        while new := facts.not_embedded(_EMBEDDED_AT_ONCE):
            vectors = self._vectors([fact.text for fact in new])
            keys = [fact.key for fact in new]
            self.index.put(scope.namespace, self.model, list(zip(keys, vectors, strict=True)))
            facts.is_embedded(keys)
            count += len(new)
        return count

    def forget(self, scope: Scope, key: str) -> None:
        """Remove a fact and its vector for good."""
        Facts(self._documents, scope).forget(key)
        self.index.remove(scope.namespace, self.model, [key])

    def _vectors(self, texts: list[str]) -> list[Vector]:
        given = self.embed(texts)
        if len(given) != len(texts):
            raise InvalidRecord("embed", f"returned {len(given)} vectors for {len(texts)} texts")
        return [unit(values) for values in given]

    def _nearest(
        self, facts: Facts, vector: Vector, limit: int, at: datetime, entity: str | None, least: float
    ) -> list[Recalled]:
        wanted = limit + _SPARE
        while True:
            near = self.index.nearest(facts.scope.namespace, self.model, vector, wanted)
            there = facts.get_many([key for key, _ in near]) if near else ()
            found = [
                Recalled(fact=fact, scope=facts.scope, score=score)
                for fact, (_, score) in zip(there, near, strict=True)
                if fact is not None and fact.holds(at) and score >= least and (entity is None or fact.entity == entity)
            ]
            if len(found) >= limit or len(near) < wanted or near[-1][1] < least:
                return found[:limit]
            wanted *= 4
