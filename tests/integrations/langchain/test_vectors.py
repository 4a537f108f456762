"""Facts in vector stores of LangChain: one that is there, Qdrant and Chroma where they are installed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from agent_statestore import MemoryStore
from agent_statestore.errors import InvalidRecord
from agent_statestore.recall import Fact, Facts, Recall, Scope, ScopeKind
from agent_statestore.recall.vectors import unit
from celery_agents import Run, VectorMemory, agent
from celery_agents.integrations.langchain import GivenVectors, VectorStoreIndex
from celery_agents.testing import LocalAgents

ADA = Scope(ScopeKind.USER, "ada")
BOB = Scope(ScopeKind.USER, "bob")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = ("tea", "coffee", "rain")

Open = Callable[[str, Embeddings], VectorStore]


def embed(texts: list[str]) -> list[list[float]]:
    return [[0.01 + text.count(word) for word in WORDS] for text in texts]


def in_memory(stack: ExitStack, folder: Path) -> Open:
    return lambda _, embeddings: InMemoryVectorStore(embeddings)


def qdrant(stack: ExitStack, **where: Any) -> Open:
    qdrant = pytest.importorskip("langchain_qdrant")
    client_module = pytest.importorskip("qdrant_client")
    client = client_module.QdrantClient(**where)
    stack.callback(client.close)

    def open_store(name: str, embeddings: Embeddings) -> VectorStore:
        if not client.collection_exists(name):
            params = client_module.models.VectorParams(size=len(WORDS), distance=client_module.models.Distance.COSINE)
            client.create_collection(name, vectors_config=params)
        store: VectorStore = qdrant.QdrantVectorStore(client, name, embeddings, validate_collection_config=False)
        return store

    return open_store


def qdrant_in_memory(stack: ExitStack, folder: Path) -> Open:
    return qdrant(stack, location=":memory:")


def qdrant_in_files(stack: ExitStack, folder: Path) -> Open:
    return qdrant(stack, path=str(folder))


def chroma(stack: ExitStack, folder: Path) -> Open:
    chroma = pytest.importorskip("langchain_chroma")
    client = pytest.importorskip("chromadb").EphemeralClient()

    def open_store(name: str, embeddings: Embeddings) -> VectorStore:
        space = {"hnsw": {"space": "cosine"}}
        store: VectorStore = chroma.Chroma(name, embeddings, client=client, collection_configuration=space)
        return store

    return open_store


@pytest.fixture(
    params=[
        in_memory,
        # The extra `vectorstores` installs them: they are big.
        *(pytest.param(kind, marks=pytest.mark.full) for kind in (qdrant_in_memory, qdrant_in_files, chroma)),
    ]
)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:
        yield request.param(stack, tmp_path)


def remember(store: MemoryStore, scope: Scope, *texts: str) -> None:
    for text in texts:
        Facts(store.documents, scope).remember(Fact(key=text, text=text, said_at=NOW))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")
def test_facts_are_found_in_a_vector_store(open_store: Open) -> None:
    with MemoryStore() as store:
        index = VectorStoreIndex(open_store)
        recall = Recall(store.documents, embed, index=index)

        def found(question: str, *scopes: Scope) -> list[str]:
            return [each.fact.text for each in recall.search(question, scopes or [ADA], at=NOW, limit=2)]

        assert found("tea") == []
        remember(store, ADA, "tea", "tea coffee", *(f"rain {number}" for number in range(150)))
        remember(store, BOB, "coffee")
        assert found("tea") == ["tea", "tea coffee"]
        assert found("coffee", ADA, BOB) == ["coffee", "tea coffee"]
        ((_, score), *_) = index.nearest(ADA.namespace, "default", unit(embed(["tea"])[0]), 1)
        assert score == pytest.approx(1, abs=1e-3)
        for _ in range(2):
            index.put(ADA.namespace, "default", [("tea", unit(embed(["coffee"])[0]))])
        assert found("coffee")[0] == "tea"
        recall.forget(ADA, "tea")
        assert "tea" not in found("coffee")
        assert "tea" not in dict(index.nearest(ADA.namespace, "default", unit(embed(["coffee"])[0]), 3))
        # Facts that were erased are found nowhere, whatever the vector store still has.
        store.documents.remove_under(ADA.namespace)
        assert found("rain") == []


def test_one_store_can_have_all_collections() -> None:
    all_of_them = InMemoryVectorStore(GivenVectors())

    def only(name: str) -> dict[str, Any]:
        return {"filter": lambda document: document.metadata["collection"] == name}

    with MemoryStore() as store:
        index = VectorStoreIndex(lambda *_: all_of_them, options=only)
        recall = Recall(store.documents, embed, index=index)
        remember(store, ADA, "tea", "rain")
        remember(store, BOB, "tea coffee", "tea")
        assert {each.fact.text for each in recall.search("tea", [ADA], at=NOW)} == {"tea", "rain"}
        assert len(recall.search("tea", [ADA, BOB], at=NOW)) == 4


def test_an_agent_recalls_from_a_vector_store() -> None:
    stores: dict[str, InMemoryVectorStore] = {}
    index = VectorStoreIndex(lambda name, embeddings: stores.setdefault(name, InMemoryVectorStore(embeddings)))

    @agent(memory=VectorMemory(embed=embed, index=index))
    def waiter(run: Run, question: str) -> list[str]:
        run.remember("prefers tea", scope="user")
        return [found.fact.text for found in run.recall(question).facts]

    assert LocalAgents().start(waiter, "tea?", user_id="ada").wait() == ["prefers tea"]
    assert len(stores) == 1


def test_a_text_that_is_no_vector_is_refused() -> None:
    for text in ("dummy_text", "abc=", ""):
        with pytest.raises(InvalidRecord):
            GivenVectors().embed_documents([text])
