"""Facts: what is remembered of whom, for how long, and what is found."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_statestore import InvalidRecord, MemoryStore, Store
from agent_statestore.recall import DocumentVectors, Fact, Facts, Recall, Scope, ScopeKind, vectors
from agent_statestore.recall.facts import key_of

AT = datetime(2026, 1, 1, tzinfo=UTC)
ADA = Scope(ScopeKind.USER, "ada")
BOB = Scope(ScopeKind.USER, "bob")
WORDS = ("cat", "dog", "pay", "refund", "rain", "sun")


@pytest.fixture
def store() -> Iterator[Store]:
    with MemoryStore() as store:
        yield store


class Embedding:
    """Counts words, and how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> Sequence[Sequence[float]]:
        self.asked += texts
        return [[0.01 + text.split().count(word) for word in WORDS] for text in texts]


@pytest.fixture
def embed() -> Embedding:
    return Embedding()


@pytest.fixture(params=["numpy", "no numpy"])
def with_numpy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no numpy":
        monkeypatch.setattr(vectors, "_numpy", lambda: None)
    else:
        assert vectors._numpy() is not None


def fact(text: str, **fields: Any) -> Fact:
    return Fact(key=key_of(text, fields.get("entity"), "x-1"), text=text, execution_id="x-1", said_at=AT, **fields)


def remember(store: Store, scope: Scope, *texts: str, **fields: Any) -> None:
    for text in texts:
        Facts(store.documents, scope).remember(fact(text, **fields))


def found(recall: Recall, question: str, *scopes: Scope, **options: Any) -> list[str]:
    return [each.fact.text for each in recall.search(question, scopes or [ADA], at=options.pop("at", AT), **options)]


def test_a_fact_comes_back_with_its_source(store: Store) -> None:
    facts = Facts(store.documents, ADA)
    said = fact("likes cats", data={"n": 1}, entity="ada", agent_id="a", step="chat", valid_from=AT, metadata={"m": 1})
    for _ in range(2):
        facts.remember(said)
    assert list(facts.all()) == [said]
    assert facts.get_many([said.key, "x"]) == (said, None)
    assert list(Facts(store.documents, BOB).all()) == []


def test_the_nearest_facts_are_found(store: Store, embed: Embedding, with_numpy: None) -> None:
    recall = Recall(store.documents, embed)
    assert found(recall, "cat") == []
    remember(store, ADA, "dog dog dog", "cat cat", "pay refund", "rain")
    remember(store, BOB, "cat sun")
    assert found(recall, "cat", limit=1) == ["cat cat"]
    assert found(recall, "refund dog", limit=2) in (["pay refund", "dog dog dog"], ["dog dog dog", "pay refund"])
    assert found(recall, "cat", ADA, BOB, limit=2) == ["cat cat", "cat sun"]
    (best,) = recall.search("cat", [ADA], at=AT, limit=1)
    assert math.isclose(best.score, 1.0, abs_tol=0.01)
    assert best.scope == ADA
    assert found(recall, "cat", least=0.9) == ["cat cat"]


def test_each_fact_is_turned_into_a_vector_once(store: Store, embed: Embedding) -> None:
    recall = Recall(store.documents, embed)
    remember(store, ADA, *(f"cat {number}" for number in range(250)))
    found(recall, "cat")
    assert len(embed.asked) == 251
    remember(store, ADA, "dog", "cat 3")
    embed.asked.clear()
    assert "dog" in found(recall, "dog", limit=1)
    assert sorted(embed.asked) == ["cat 3", "dog", "dog"], "the repeated one is marked anew, which is harmless"


def test_another_process_sees_what_is_new(store: Store, embed: Embedding) -> None:
    here, there = (Recall(store.documents, embed, index=DocumentVectors(store.documents)) for _ in range(2))
    remember(store, ADA, "cat")
    assert found(here, "cat") == found(there, "cat") == ["cat"]
    remember(store, ADA, "cat cat")
    assert len(found(here, "cat")) == len(found(there, "cat")) == 2
    key = fact("cat").key
    there.forget(ADA, key)
    assert found(here, "cat") == found(there, "cat") == ["cat cat"]
    assert Facts(store.documents, ADA).get_many([key]) == (None,)


def test_a_fact_holds_for_its_time(store: Store, embed: Embedding) -> None:
    recall, facts, day = Recall(store.documents, embed), Facts(store.documents, ADA), timedelta(days=1)
    remember(store, ADA, "cat")
    remember(store, ADA, "cat dog", valid_from=AT + day, valid_until=AT + 2 * day)
    assert found(recall, "cat") == ["cat"]
    assert found(recall, "cat", at=AT + day) == ["cat", "cat dog"]
    assert found(recall, "cat", at=AT + 2 * day) == ["cat"]
    key = fact("cat").key
    assert facts.end(key, AT + day) is True
    assert facts.end(key, AT + 2 * day) is False
    assert facts.end("x", AT) is False
    assert found(recall, "cat", at=AT + 3 * day) == []
    assert [each.text for each in facts.all(at=AT)] == ["cat"]


def test_facts_that_hold_no_longer_hide_no_other(store: Store, embed: Embedding) -> None:
    remember(store, ADA, *(f"cat {number}" for number in range(200)), valid_until=AT)
    remember(store, ADA, "cat dog", "cat sun", entity="e")
    recall = Recall(store.documents, embed)
    assert sorted(found(recall, "cat", limit=2)) == ["cat dog", "cat sun"]
    assert sorted(found(recall, "cat", entity="e")) == ["cat dog", "cat sun"]
    assert found(recall, "cat", entity="f") == []


def test_models_are_kept_apart(store: Store, embed: Embedding) -> None:
    remember(store, ADA, "cat", "dog")
    first = Recall(store.documents, embed)
    assert found(first, "cat", limit=1) == ["cat"]
    other = Recall(store.documents, lambda texts: [[1.0, 2.0] for _ in texts], model="other")
    assert found(other, "cat") == []
    assert Facts(store.documents, ADA).embed_again() == 2
    assert sorted(found(other, "cat")) == ["cat", "dog"]
    assert found(first, "cat", limit=1) == ["cat"]


def test_a_crash_between_vector_and_mark_is_made_up_for(store: Store, embed: Embedding) -> None:
    remember(store, ADA, "cat")
    recall = Recall(store.documents, embed)

    class Died(Exception):
        pass

    class Dying(DocumentVectors):
        def put(self, *args: Any) -> None:
            super().put(*args)
            raise Died

    with pytest.raises(Died):
        Recall(store.documents, embed, index=Dying(store.documents)).embed_new(ADA)
    assert found(recall, "cat") == ["cat"]
    assert embed.asked == ["cat", "cat", "cat"], "its text twice, and the question"


def test_a_session_is_erased_with_its_facts(store: Store, embed: Embedding) -> None:
    scope = Scope(ScopeKind.SESSION, "s/1")
    remember(store, scope, "cat")
    recall = Recall(store.documents, embed)
    assert found(recall, "cat", scope) == ["cat"]
    store.session("s/1").erase()
    assert found(recall, "cat", scope) == []
    assert store.documents.namespaces() == ()


def test_what_is_no_fact_and_no_vector_is_refused(store: Store, embed: Embedding) -> None:
    for wrong in (
        {"text": " "},
        {"text": 1},
        {"text": "x", "entity": ""},
        {"text": "x", "valid_from": AT.replace(tzinfo=None)},
    ):
        with pytest.raises(InvalidRecord):
            fact(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidRecord):
        Scope("planet", "x")  # type: ignore[arg-type]
    with pytest.raises(InvalidRecord):
        Scope(ScopeKind.USER, "")
    remember(store, ADA, "cat")
    nowhere: list[Any] = [[], [[]], [[0.0, 0.0]], [[math.nan]], [["x"]], [[1.0], [1.0]], [[1e39]]]
    for vector in nowhere:

        def embed_wrongly(texts: list[str], vector: Any = vector) -> Any:
            del texts
            return vector

        with pytest.raises(InvalidRecord):
            Recall(store.documents, embed_wrongly).search("cat", [ADA], at=AT)
    for question, limit in (("", 1), (" ", 1), ("x", 0)):
        with pytest.raises(InvalidRecord):
            Recall(store.documents, embed).search(question, [ADA], at=AT, limit=limit)
