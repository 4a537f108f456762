"""Vector sets: where they are used, and that nothing is left in them."""

from random import Random

import pytest
import redis

from agent_statestore import open_store
from agent_statestore.recall.vectors import DocumentVectors, unit
from agent_statestore.redis.acl import acl_rules
from agent_statestore.redis.vectors import RedisVectors

ADA = ("user", "ada")
BOB = ("user", "bob")
X, Y = unit([1, 0]), unit([0, 1])


@pytest.fixture
def raw(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


def copies(raw: redis.Redis, prefix: str) -> list[bytes]:
    return sorted(raw.scan_iter(f"{prefix}*docvector*"))


def test_nothing_is_left_of_what_is_erased(redis_url: str, redis_prefix: str, raw: redis.Redis) -> None:
    with open_store(f"{redis_url}?key_prefix={redis_prefix}") as store:
        index = store.vectors
        assert isinstance(index, RedisVectors)
        for namespace in (("user",), ADA, (*ADA, "vectors")):
            for owner in (ADA, BOB):
                index.put(owner, "m", [("a", X), ("b", unit([1, 1, 1]))])
                index.put(owner, "other", [("a", X)])
            assert len(copies(raw, redis_prefix)) == 2 * 5
            store.documents.remove_under(namespace)
            assert len(copies(raw, redis_prefix)) == (0 if namespace == ("user",) else 5)
            assert index.nearest(ADA, "m", X, 9) == []
        store.clear()
        assert copies(raw, redis_prefix) == []


def test_what_the_sets_have_lost_comes_back(redis_url: str, redis_prefix: str, raw: redis.Redis) -> None:
    with open_store(f"{redis_url}?key_prefix={redis_prefix}") as store:
        store.vectors.put(ADA, "m", [("a", X), ("b", Y)])
        raw.delete(*copies(raw, redis_prefix))
        assert [key for key, _ in store.vectors.nearest(ADA, "m", Y, 9)] == ["b", "a"]
        documents = DocumentVectors(store.documents)
        documents.put(ADA, "m", [("c", X), ("a", Y)])
        documents.remove(ADA, "m", ["b"])
        assert [key for key, _ in store.vectors.nearest(ADA, "m", X, 9)] == ["c", "a"]
        # A vector of another length takes the place of one; and one that is damaged.
        store.documents.put((*ADA, "vectors", "m"), "a", b"\0\0\xc0\x7f")
        store.documents.put((*ADA, "vectors", "m"), "text", "text")
        documents.put(ADA, "m", [("c", unit([1, 0, 0]))])
        assert store.vectors.nearest(ADA, "m", X, 9) == []
        assert [key for key, _ in store.vectors.nearest(ADA, "m", unit([1, 0, 0]), 9)] == ["c"]


def test_a_user_without_the_rights_compares_documents(redis_url: str, redis_prefix: str, raw: redis.Redis) -> None:
    for major, kind in ((7, DocumentVectors), (8, RedisVectors)):
        user = f"user{major}" + redis_prefix.replace(":", "")
        raw.execute_command("ACL", "SETUSER", user, "on", ">secret", *acl_rules(redis_prefix, major=major))
        url = redis_url.replace("redis://", f"redis://{user}:secret@")
        try:
            with open_store(f"{url}?key_prefix={redis_prefix}") as store:
                assert type(store.vectors) is kind
                store.vectors.put(ADA, "m", [(str(major), X)])
                assert len(store.vectors.nearest(ADA, "m", X, 9)) == major - 6
                if major == 8:
                    store.vectors.remove(ADA, "m", ["7", "8"])
                    store.documents.remove_under(ADA)
        finally:
            raw.execute_command("ACL", "DELUSER", user)


def test_valkey_has_no_vector_sets(valkey_url: str, redis_prefix: str) -> None:
    with open_store(f"{valkey_url}?key_prefix={redis_prefix}") as store:
        assert type(store.vectors) is DocumentVectors


@pytest.mark.full
def test_of_thousands_of_vectors_nearly_all_nearest_are_found(redis_url: str, redis_prefix: str) -> None:
    random = Random(3)
    with open_store(f"{redis_url}?key_prefix={redis_prefix}") as store:
        vectors = [(str(number), unit([random.gauss(0, 1) for _ in range(64)])) for number in range(3000)]
        store.vectors.put(ADA, "m", vectors)
        by_hand, same = DocumentVectors(store.documents), 0
        for _ in range(20):
            asked = unit([random.gauss(0, 1) for _ in range(64)])
            found, exact = (index.nearest(ADA, "m", asked, 10) for index in (store.vectors, by_hand))
            same += len(dict(found).keys() & dict(exact).keys())
        assert same >= 0.9 * 200
        store.clear()
