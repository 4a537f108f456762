"""Vectors of facts: which are found, how near they are, and that they go with their namespace."""

import math
from functools import partial
from operator import mul
from random import Random

from agent_statestore.documents.query import DocumentQuery
from agent_statestore.recall.vectors import DocumentVectors, Vector, VectorIndex, unit
from agent_statestore.store import Store
from agent_statestore.testing.kit.suite import Suite
from agent_statestore.testing.kit.together import all_succeeded, together

ADA = ("user", "ada")
BOB = ("user", "bob")
MODEL = "m"
DIMENSIONS = 8
THREADS = 4


def axis(number: int, *, dimensions: int = DIMENSIONS, lean: float = 0.0) -> Vector:
    """Return the unit vector along an axis, which leans to the next one."""
    values = [0.0] * dimensions
    values[number % dimensions] = 1.0
    values[(number + 1) % dimensions] = lean
    return unit(values)


def keys_near(index: VectorIndex, vector: Vector, *, limit: int = 100, model: str = MODEL) -> list[str]:
    return [key for key, _ in index.nearest(ADA, model, vector, limit)]


class VectorConformance(Suite):
    """The rules for `store.vectors`."""

    def test_the_nearest_vectors_come_first_with_their_cosine(self, store: Store) -> None:
        index = store.vectors
        assert index.nearest(ADA, MODEL, axis(0), 3) == []
        index.put(ADA, MODEL, [("near", axis(0, lean=0.5)), ("same", axis(0)), ("far", axis(4)), ("é % '", axis(3))])
        (first, best), (second, good), *rest = index.nearest(ADA, MODEL, axis(0), 4)
        assert (first, second) == ("same", "near")
        assert math.isclose(best, 1.0, abs_tol=1e-3)
        assert math.isclose(good, 1 / math.sqrt(1.25), abs_tol=1e-3)
        assert {key for key, _ in rest} == {"far", "é % '"}
        assert all(math.isclose(score, 0.0, abs_tol=1e-3) for _, score in rest)
        ((_, opposite),) = index.nearest(ADA, MODEL, unit([-each for each in axis(3)]), 4)[-1:]
        assert math.isclose(opposite, -1.0, abs_tol=1e-3)
        assert keys_near(index, axis(0), limit=1) == ["same"]

    def test_of_many_vectors_the_same_are_nearest_as_by_hand(self, store: Store) -> None:
        random, index = Random(1), store.vectors
        vectors = {f"k{number}": unit([random.gauss(0, 1) for _ in range(32)]) for number in range(500)}
        index.put(ADA, MODEL, list(vectors.items()))
        for _ in range(5):
            asked = unit([random.gauss(0, 1) for _ in range(32)])
            by_hand = sorted(vectors, key=lambda key: -sum(map(mul, vectors[key], asked)))[:5]
            assert keys_near(index, asked, limit=5) == by_hand

    def test_a_vector_is_replaced_and_removed(self, store: Store) -> None:
        index = store.vectors
        for _ in range(2):
            index.put(ADA, MODEL, [("a", axis(0)), ("b", axis(1))])
            assert keys_near(index, axis(0)) == ["a", "b"]
        index.put(ADA, MODEL, [("a", axis(2))])
        assert keys_near(index, axis(1)) == ["b", "a"]
        assert keys_near(index, axis(2), limit=1) == ["a"]
        for _ in range(2):
            index.remove(ADA, MODEL, ["a", "unknown"])
            assert keys_near(index, axis(2)) == ["b"]
        index.put(ADA, MODEL, [("a", axis(0))])
        assert keys_near(index, axis(0)) == ["a", "b"]

    def test_namespaces_models_and_lengths_are_kept_apart(self, store: Store) -> None:
        index = store.vectors
        index.put(ADA, MODEL, [("a", axis(0))])
        index.put((*ADA, "below"), MODEL, [("below", axis(0))])
        index.put(BOB, MODEL, [("b", axis(0))])
        index.put(ADA, "m 2", [("other", axis(0))])
        index.put(ADA, MODEL, [("short", axis(0, dimensions=3))])
        assert keys_near(index, axis(0)) == ["a"]
        assert keys_near(index, axis(0), model="m 2") == ["other"]
        assert keys_near(index, axis(0), model="m") == ["a"]
        assert keys_near(index, axis(0, dimensions=3)) == ["short"]
        assert keys_near(index, axis(0, dimensions=5)) == []
        index.put(ADA, MODEL, [("short", axis(0))])
        assert sorted(keys_near(index, axis(0))) == ["a", "short"]
        assert keys_near(index, axis(0, dimensions=3)) == []

    def test_concurrent_puts_lose_nothing(self, store: Store) -> None:
        index, axes = store.vectors, [axis(number) for number in range(THREADS)]

        def put(thread: int) -> None:
            for number in range(3):
                index.put(ADA, MODEL, [(f"{thread}-{number}", axes[thread])])
                index.nearest(ADA, MODEL, axes[thread], 1)

        all_succeeded(together(*(partial(put, thread) for thread in range(THREADS))))
        expected = {f"{thread}-{number}" for thread in range(THREADS) for number in range(3)}
        assert set(keys_near(index, axes[0])) == expected

    def test_vectors_go_with_their_namespace(self, store: Store) -> None:
        index = store.vectors
        for root in (ADA, ("user",)):
            index.put(ADA, MODEL, [("a", axis(0)), ("b", axis(1))])
            index.put(BOB, MODEL, [("b", axis(0))])
            assert keys_near(index, axis(0)) == ["a", "b"]
            store.documents.remove_under(root)
            assert keys_near(index, axis(0)) == []
            assert len(index.nearest(BOB, MODEL, axis(0), 9)) == (root == ADA)
            assert store.documents.list(DocumentQuery(namespace=ADA, below=True)).items == ()
        index.put(ADA, MODEL, [("c", axis(0))])
        assert keys_near(index, axis(1)) == ["c"], "nothing comes back"

    def test_a_cleared_store_has_no_vectors(self, store: Store) -> None:
        index = store.vectors
        index.put(ADA, MODEL, [("a", axis(0))])
        assert keys_near(index, axis(0)) == ["a"]
        store.clear()
        assert keys_near(index, axis(0)) == []
        index.put(ADA, MODEL, [("b", axis(0))])
        assert keys_near(index, axis(0)) == ["b"]

    def test_vectors_are_documents_for_those_who_know_no_other_index(self, store: Store) -> None:
        """A server may get an index of its own while workers run that know of none, and stores are copied."""
        index, plain = store.vectors, DocumentVectors(store.documents)
        index.put(ADA, MODEL, [("a", axis(0)), ("b", axis(1))])
        assert keys_near(index, axis(0)) == keys_near(plain, axis(0)) == ["a", "b"]
        plain.put(ADA, MODEL, [("c", axis(0)), ("a", axis(1))])
        assert keys_near(index, axis(0), limit=1) == ["c"]
        plain.remove(ADA, MODEL, ["c", "b"])
        assert keys_near(index, axis(0)) == keys_near(plain, axis(0)) == ["a"]
        store.documents.remove_under(ADA)
        plain.put(ADA, MODEL, [("d", axis(0))])
        assert keys_near(index, axis(0)) == keys_near(plain, axis(0)) == ["d"]
