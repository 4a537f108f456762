"""The time of a search among many facts, with each index; and how often what was asked for is found."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg

from agent_statestore import MemoryStore, Store, open_store
from agent_statestore.recall import DocumentVectors, Embed, Fact, Facts, Recall, Scope, ScopeKind
from agent_statestore.recall.vectors import Vector, VectorIndex, unit
from benchmarks.recall.labelled import ASKED, FACTS
from benchmarks.report import Table, Value
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from tests.services.postgresql import driver_url

_OWNER: Final = ("user", "ada")
_MODEL: Final = "m"
_DIMENSIONS: Final = 256
_TOPICS: Final = 100
_PUT_AT_ONCE: Final = 500
_SEARCHES: Final = 30
_K: Final = 5
_LIMIT: Final = 25  # what `Recall` asks for five facts
_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_PLACES: Final = {"SQLite NORMAL": "documents", "PostgreSQL": "pgvector", "Redis": "vector sets"}


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure milliseconds of `VectorIndex.nearest`, and the recall of a small labelled set."""
    return [_speed(servers, sizes.facts), _quality()]


def _speed(servers: Servers, count: int) -> Table:
    """Time each index with the same vectors, which are of some topics, as facts are."""
    chance = random.Random(1)
    topics = [[chance.gauss(0, 1) for _ in range(_DIMENSIONS)] for _ in range(_TOPICS)]

    def about_something() -> Vector:
        return unit([each + chance.gauss(0, 0.8) for each in chance.choice(topics)])

    vectors = [(f"fact{number}", about_something()) for number in range(count)]
    questions = [about_something() for _ in range(_SEARCHES)]
    with psycopg.connect(driver_url(servers.postgresql), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    rows: list[dict[str, Value]] = []
    expected: list[set[str]] = []
    with ExitStack() as stack:
        for name, place in _PLACES.items():
            store = stack.enter_context(open_store(servers.store_url(name)))
            for index_name in dict.fromkeys(("documents", place)):
                times = _times(store, index_name, vectors, questions)
                rows.append({"store": name, "vectors in": index_name, **times})
                found = _all_found(_index(store, index_name), questions)
                expected = expected or found
                same = sum(len(one & other) for one, other in zip(found, expected, strict=True))
                rows[-1]["found of the nearest 25, %"] = 100 * same / sum(map(len, expected))
            store.clear()
    return Table(
        name="recall",
        title=f"The nearest {_LIMIT} of {count:,} facts of one user, {_DIMENSIONS} dimensions",
        note=(
            "p50 of 30 searches in one process. First: in a process that has not searched before. After a change: when "
            "one vector was put since the last search, by the same process. Stored: all, 500 at a time, and found once."
        ),
        rows=rows,
    )


def _times(
    store: Store, index_name: str, vectors: Sequence[tuple[str, Vector]], questions: Sequence[Vector]
) -> dict[str, Value]:
    index = _index(store, index_name)
    store.documents.remove_under(_OWNER)

    def put_all() -> None:
        for start in range(0, len(vectors), _PUT_AT_ONCE):
            index.put(_OWNER, _MODEL, vectors[start : start + _PUT_AT_ONCE])
        index.nearest(_OWNER, _MODEL, questions[0], 1)  # the first one makes the copies that are behind

    stored = _milliseconds(put_all)
    anew = _index(store, index_name)
    first = _milliseconds(lambda: anew.nearest(_OWNER, _MODEL, questions[0], _LIMIT))
    again = [_milliseconds(partial(anew.nearest, _OWNER, _MODEL, asked, _LIMIT)) for asked in questions]
    changed = []
    for number in range(5):
        anew.put(_OWNER, _MODEL, [vectors[number]])
        changed.append(_milliseconds(lambda: anew.nearest(_OWNER, _MODEL, questions[0], _LIMIT)))
    return {
        "p50, ms": statistics.median(again),
        "first, ms": first,
        "after a change, ms": statistics.median(changed),
        "stored, s": stored / 1000,
    }


def _index(store: Store, name: str) -> VectorIndex:
    if name == "documents":
        return DocumentVectors(store.documents)
    if type(store.vectors) is DocumentVectors:
        raise RuntimeError(f"this server has no {name}")
    return store.vectors


def _all_found(index: VectorIndex, questions: Sequence[Vector]) -> list[set[str]]:
    return [set(dict(index.nearest(_OWNER, _MODEL, asked, _LIMIT))) for asked in questions]


def _milliseconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


# -- quality -----------------------------------------------------------------------------------------------------------


def _quality() -> Table:
    rows = [_found_with("words in common", _bag_of_words()), _found_with("wordllama, 256 dimensions", _wordllama())]
    return Table(
        name="recall-quality",
        title=f"{len(ASKED)} questions about {len(FACTS)} facts, one of which answers each",
        note="MRR: the mean of 1 / the place of the right fact among all. The set: `benchmarks/recall/labelled.py`.",
        rows=rows,
    )


def _found_with(name: str, embed: Embed) -> dict[str, Value]:
    scope, places = Scope(ScopeKind.USER, "ada"), []
    with MemoryStore() as store:
        facts, recall = Facts(store.documents, scope), Recall(store.documents, embed)
        for number, text in enumerate(FACTS):
            facts.remember(Fact(key=f"{number:03d}", text=text, said_at=_AT))
        for question, answer in ASKED:
            found = [each.fact.text for each in recall.search(question, [scope], limit=len(FACTS), at=_AT)]
            places.append(found.index(answer) + 1)
    return {
        "embedding": name,
        "recall@1": sum(place == 1 for place in places) / len(places),
        f"recall@{_K}": sum(place <= _K for place in places) / len(places),
        "MRR": statistics.mean(1 / place for place in places),
    }


def _bag_of_words() -> Embed:
    """Return what a search without a model can do: count the words that both have."""
    known = sorted({word for text in FACTS for word in _words(text)})

    def embed(texts: list[str]) -> list[list[float]]:
        return [[1e-6, *(float(word in _words(text)) for word in known)] for text in texts]

    return embed


def _words(text: str) -> set[str]:
    return set(text.lower().replace("?", "").replace(",", "").split())


def _wordllama() -> Embed:
    import wordllama  # here, because it is of use for nothing else

    # Its own look for the model in its wheel fails, and it would ask the network.
    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)

    def embed(texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = model.embed(texts).tolist()
        return vectors

    return embed
