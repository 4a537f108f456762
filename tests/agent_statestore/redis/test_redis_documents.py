"""What only the documents of a Redis store promise: their keys, their scripts' pieces, and what damage they stand."""

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from agent_statestore import ManualClock, MemoryStore
from agent_statestore.documents import DocumentQuery, DocumentStore, Expect, Operation, Put, Remove
from agent_statestore.documents.errors import DocumentConflict, DocumentUnreadable
from agent_statestore.documents.places import DocumentPlace, namespace_text, root_of
from agent_statestore.documents.records import MOST_VERSION
from agent_statestore.envelope import FORMAT
from agent_statestore.errors import FormatTooNew, InvalidRecord, StoreError, StoreUnavailable
from agent_statestore.redis import RedisStore, documents
from benchmarks.proxy import CountingProxy
from tests.services.redis import RedisServer

NS = ("session", "s-1")
LARGE = 5000
MINUTE = timedelta(minutes=1)
EVERYTHING = DocumentQuery(namespace=(), below=True, limit=1000)


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def store(redis_url: str, redis_prefix: str) -> Iterator[RedisStore]:
    with RedisStore(redis_url, key_prefix=redis_prefix) as store:
        yield store
        store.clear()


def keys_of(raw: redis.Redis, prefix: str) -> set[bytes]:
    return {key for key in raw.scan_iter(count=10_000) if key.startswith(prefix.encode())}


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except StoreError as error:
        return type(error), str(error)


class TestDecisions:
    NAMESPACES = (("a",), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d"), ("a", "b c"), ("b", "é"), ("c", "x"))

    def write(self, rng: random.Random) -> Callable[[DocumentStore], Any]:
        root = rng.choice([("a",), ("a", "b"), ("b", "é")])
        inside = [namespace for namespace in self.NAMESPACES if root_of(namespace) == root]
        places = {DocumentPlace(rng.choice(inside), rng.choice("xyz😀")) for _ in range(rng.randint(1, 4))}
        operations: list[Operation] = []
        versions = (None, 0, 1, 2, 3)
        for namespace, key in sorted(places):
            kind = rng.randrange(8)
            if kind == 0:
                operations.append(Expect(namespace=namespace, key=key, version=rng.choice((0, 1))))
            elif kind == 1:
                operations.append(Remove(namespace=namespace, key=key, if_version=rng.choice(versions)))
            else:
                value = rng.choice((rng.random(), "v" * LARGE, b"\xff" * LARGE, b"\xfe\0\n:"))
                metadata = {"m": rng.randrange(3)} if rng.random() < 0.5 else {}
                more: dict[str, Any] = {}
                if kind == 2:
                    more["keep"] = True
                elif kind == 3:
                    more["version"] = rng.choice((1, 2, 3, MOST_VERSION - 1000))
                elif kind == 4:
                    more["if_version"] = rng.choice(versions)
                if rng.random() < 0.3:
                    more["ttl"] = timedelta(seconds=rng.randint(1, 5))
                try:
                    operations.append(Put(namespace=namespace, key=key, value=value, metadata=metadata, **more))
                except InvalidRecord:
                    continue
        write_id = rng.choice((None, None, "w1", "w2"))
        return lambda store: operations and store.write(operations, write_id=write_id)

    def question(self, rng: random.Random) -> Callable[[DocumentStore], Any]:
        below = rng.random() < 0.6
        query = DocumentQuery(
            namespace=rng.choice(((), *self.NAMESPACES)) if below else rng.choice(self.NAMESPACES),
            below=below,
            where={"m": 1} if rng.random() < 0.3 else {},
            after=None if below else rng.choice((None, "x")),
            before=None if below else rng.choice((None, "z")),
            newest_first=rng.random() < 0.5,
            limit=rng.choice((1, 2, 5, 100)),
            values=rng.random() < 0.7,
        )
        return lambda store: [*store.list_all(query)]

    def other(self, rng: random.Random) -> Callable[[DocumentStore], Any]:
        namespace = rng.choice(self.NAMESPACES)
        number = rng.randrange(12)
        if number == 0:
            return lambda store: store.remove_under(namespace)
        if number == 1:
            return lambda store: store.copy_under(namespace, ("c", "x"))
        if number == 2:
            return lambda store: store.tidy() >= 0
        if number < 5:
            below = rng.choice(((), ("a",)))
            return lambda store: store.namespaces(below, limit=3)
        places = [DocumentPlace(rng.choice(self.NAMESPACES), rng.choice("xyz😀")) for _ in range(5)]
        return lambda store: store.get_many(places)

    # In pieces as small as can be, what a call leaves over is left to further calls.
    @pytest.mark.parametrize("piece", [None, 1])
    def test_everything_is_as_in_memory(
        self,
        redis_url: str,
        redis_prefix: str,
        raw: redis.Redis,
        piece: int | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if piece:
            for name in ("_LOOKED_AT", "_REMOVED", "_ANSWERED_BYTES", "_LEAST_BYTES", "_FIRST_ROOTS", "_MOST_ROOTS"):
                monkeypatch.setattr(documents, name, piece)
        rng, clock = random.Random(piece or 0), ManualClock()
        told: set[type] = set()
        with RedisStore(redis_url, key_prefix=redis_prefix, clock=clock) as store, MemoryStore(clock=clock) as memory:
            for number in range(600):
                call = rng.choices((self.write, self.question, self.other), (5, 2, 2))[0](rng)
                expected = outcome(partial(call, memory.documents))
                assert outcome(partial(call, store.documents)) == expected, number
                told |= {each for each in (expected if isinstance(expected, tuple) else ()) if isinstance(each, type)}
                clock.advance(timedelta(seconds=rng.choice((0, 0, 0, 1))))
            assert store.documents.list(EVERYTHING) == memory.documents.list(EVERYTHING)
            assert DocumentConflict in told
            for namespace in self.NAMESPACES:
                store.documents.remove_under(namespace)
            assert keys_of(raw, redis_prefix) == set()


class TestKeys:
    def test_nothing_is_left_of_what_is_gone(self, store: RedisStore, raw: redis.Redis, redis_prefix: str) -> None:
        many = [Put(namespace=NS, key=str(number), value="v" * LARGE, ttl=MINUTE) for number in range(10)]
        below = [Put(namespace=(*NS, "x"), key=str(number), value=b"v", ttl=MINUTE) for number in range(10)]
        removals: dict[str, Callable[[], Any]] = {
            "removed": lambda: store.documents.write(
                [Remove(namespace=put.namespace, key=put.key) for put in (*many, *below)]
            ),
            "removed by root": lambda: store.documents.remove_under(NS),
            "removed from above": lambda: store.documents.remove_under(NS[:1]),
            "cleared": store.clear,
        }
        for name, removal in removals.items():
            store.documents.write([*many, *below])
            assert len(keys_of(raw, redis_prefix)) == 5, name
            removal()
            assert keys_of(raw, redis_prefix) == set(), name

    def test_what_expires_no_more_and_what_is_small_again_needs_no_further_key(
        self, store: RedisStore, raw: redis.Redis, redis_prefix: str
    ) -> None:
        store.documents.put(NS, "k", "v" * LARGE, ttl=MINUTE)
        store.documents.put(NS, "k", "v")
        kinds = {key.removeprefix(redis_prefix.encode()).split(b":")[1] for key in keys_of(raw, redis_prefix)}
        assert kinds == {b"docs", b"docindex", b"docroots"}
        assert raw.hlen(store._keys.documents(namespace_text(NS))[0]) == 1

    def test_tidy_takes_no_more_than_it_may_and_all_in_the_end(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        clock = ManualClock()
        with RedisStore(redis_url, key_prefix=redis_prefix, clock=clock) as store:
            for root in range(12):
                puts = [
                    Put(namespace=("n", str(root)), key=str(number), value=number, ttl=MINUTE)
                    for number in range(1 + 2 * (root % 3 == 0))
                ]
                store.documents.write(puts)
            store.documents.put(("n", "0"), "ever", 1)
            clock.advance(MINUTE)
            assert [store.documents.tidy(limit) for limit in (1, 7, 10, 10, 10)] == [1, 7, 10, 2, 0]
            assert [item.key for item in store.documents.list(EVERYTHING).items] == ["ever"]
            assert len(keys_of(raw, redis_prefix)) == 3
            store.clear()

    def test_documents_of_the_store_never_expire_by_themselves(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        ttls = dict.fromkeys(("default_ttl", "completed_ttl", "failed_ttl"), MINUTE)
        with RedisStore(redis_url, key_prefix=redis_prefix, **ttls) as store:  # type: ignore[arg-type]
            store.documents.put(NS, "k", "v" * LARGE, ttl=MINUTE)
            assert {raw.pttl(key) for key in keys_of(raw, redis_prefix)} == {-1}
            store.clear()


class TestRoundTrips:
    def test_one_for_each_question_and_each_write(self, redis_url: str, redis_prefix: str) -> None:
        parts = urlsplit(redis_url)
        with CountingProxy(parts.hostname or "localhost", parts.port or 6379) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}{parts.path}"
            with RedisStore(url, key_prefix=redis_prefix) as store:
                documents = store.documents
                puts = [Put(namespace=NS, key=str(number), value="v" * LARGE) for number in range(300)]
                places = [(("session", f"s-{number}"), "k") for number in range(40)]
                calls: dict[str, tuple[int, Callable[[], Any]]] = {
                    "write": (1, lambda: documents.write(puts)),
                    "get_many": (1, lambda: documents.get_many(places)),
                    "list": (1, lambda: documents.list(DocumentQuery(namespace=NS, below=True, limit=200))),
                    "filter": (1, lambda: documents.list(DocumentQuery(namespace=NS, where={"a": 1}))),
                    "remove": (1, lambda: documents.remove_under((*NS, "x"))),
                    "list all": (2, lambda: documents.list(DocumentQuery(namespace=(), below=True))),
                    "remove root": (1, lambda: documents.remove_under(NS)),
                    "tidy": (1, lambda: documents.tidy()),
                }
                for _, call in calls.values():
                    call()  # loads the script
                documents.put(NS, "k", 1)
                counted = {}
                for name, (_, call) in calls.items():
                    before = proxy.turns
                    call()
                    counted[name] = proxy.turns - before
                assert counted == {name: turns for name, (turns, _) in calls.items()}
                store.clear()


class TestOwnServer:
    """With a server that nobody else uses."""

    def test_out_of_memory_writes_nothing_and_frees_what_it_may(self, redis_server: RedisServer) -> None:
        with RedisStore(redis_server.url) as store, redis.Redis.from_url(redis_server.url) as raw:
            documents = store.documents
            documents.put(NS, "old", 1)
            documents.put(NS, "gone", "v" * LARGE)
            documents.put(("n", "m"), "k", 1)
            before = documents.list(EVERYTHING)
            raw.config_set("maxmemory", 1)
            old, gone = Put(namespace=NS, key="old", value=2), Remove(namespace=NS, key="gone")
            new = Put(namespace=NS, key="new", value="v" * LARGE, ttl=MINUTE)
            for write in ([old], [new], [gone, old, new], [Put(namespace=("n", "new"), key="k", value=1)]):
                with pytest.raises(StoreUnavailable, match="out of memory"):
                    documents.write(write)
                assert documents.list(EVERYTHING) == before
            documents.write([gone])
            assert documents.remove_under(("n",)) == 1
            raw.config_set("maxmemory", 0)
            documents.write([old, new])
            assert [item.key for item in documents.list(EVERYTHING).items] == ["new", "old"]

    def test_what_is_not_asked_for_stays_on_the_server(self, redis_server: RedisServer) -> None:
        with RedisStore(redis_server.url) as store, redis.Redis.from_url(redis_server.url) as raw:
            documents = store.documents
            for length in (1000, 100_000):
                documents.write([Put(namespace=NS, key=f"{n}", value=b"v" * length) for n in range(30)])
                before = raw.info("stats")["total_net_output_bytes"]
                assert len(documents.list(DocumentQuery(namespace=NS, values=False)).items) == 30
                # The figures of INFO itself are some 6 KB.
                assert raw.info("stats")["total_net_output_bytes"] - before < 15_000, length

    def test_a_page_costs_the_same_among_many_documents(self, redis_server: RedisServer) -> None:
        with RedisStore(redis_server.url) as store, redis.Redis.from_url(redis_server.url) as raw:
            documents = store.documents

            def calls(query: DocumentQuery) -> int:
                raw.config_resetstat()
                documents.list(query)
                return int(raw.info("commandstats")["cmdstat_zrangebylex"]["calls"])

            counted = []
            for start in range(0, 2000, 1000):
                documents.write([Put(namespace=NS, key=f"{start + n:05}", value=n) for n in range(1000)])
                counted.append([calls(DocumentQuery(namespace=NS, limit=50, after=after)) for after in ("", "00900")])
            assert counted == [[1, 1], [1, 1]]


class TestBytes:
    @pytest.mark.parametrize("protocol", [2, 3])
    def test_clients_that_decode_answers_get_bytes_as_they_were(
        self, redis_url: str, redis_prefix: str, protocol: int
    ) -> None:
        class OwnPool(redis.ConnectionPool):
            """Such a pool cannot be copied, and is used as it is."""

        for pool in (redis.ConnectionPool, redis.BlockingConnectionPool, OwnPool):
            given = redis.Redis(
                connection_pool=pool.from_url(redis_url, decode_responses=True, protocol=protocol)  # type: ignore[attr-defined]
            )
            with given, RedisStore(client=given, key_prefix=redis_prefix) as store:
                for content in (b"\xff\0\r\n", bytes(range(256)) * 20):
                    store.documents.put(NS, "é", content, metadata={"é": "ü"})
                    document = store.documents.get(NS, "é")
                    assert document is not None
                    assert (document.value, document.metadata) == (content, {"é": "ü"}), pool
                    assert store.documents.list(EVERYTHING).items == (document,)
                execution_id = store.create_context("a", "č").execution_id
                assert store.get_context(execution_id).input == "č"  # type: ignore[union-attr]
                store.clear()


class TestDamage:
    @pytest.fixture
    def documents(self, store: RedisStore) -> DocumentStore:
        for key in "abc":
            store.documents.put(NS, key, {"v": key}, metadata={"m": 1}, version=7)
        store.documents.put(NS, "d", "v" * LARGE)
        store.documents.put(("session", "s-2"), "k", 1)
        return store.documents

    @staticmethod
    def spoil(store: RedisStore, raw: redis.Redis, change: Callable[[bytes], bytes]) -> None:
        """Change the cell of document `b`, past the store."""
        key = store._keys.documents(namespace_text(NS))[0]
        raw.hset(key, "\x01b", change(raw.hget(key, "\x01b") or b""))

    def test_a_damaged_cell_says_so_and_hides_no_other(
        self, store: RedisStore, raw: redis.Redis, documents: DocumentStore
    ) -> None:
        changes: dict[str, Callable[[bytes], bytes]] = {
            "garbage": lambda _: b"\\{garbage",
            "nothing": lambda _: b"",
            "a time beyond any": lambda _: b"1:1:99999999999999999999:::t:0:0:1",
            "a length beyond the end": lambda _: b"1:1:1:::t:9:99:1",
            "no JSON": lambda cell: cell.replace(b'{"v":"b"}', b"{"),
            "no UTF-8": lambda cell: cell.replace(b'{"v":"b"}', b'"\xff"'),
            "an unknown kind": lambda cell: cell.replace(b":t:", b":x:"),
            "a value that is not there": lambda cell: cell.replace(b":t:", b":T:"),
            "no metadata": lambda cell: cell.replace(b'"m":1', b'"m":{'),
        }
        for name, change in changes.items():
            self.spoil(store, raw, change)
            for newest_first in (False, True):
                page = documents.list(DocumentQuery(namespace=("session",), below=True, newest_first=newest_first))
                told = {item.key: bool(item.unreadable) for item in page.items}
                assert told == {"a": False, "b": True, "c": False, "d": False, "k": False}, name
            with pytest.raises(DocumentUnreadable, match="damaged"):
                documents.get(NS, "b")
            assert documents.get(NS, "a") is not None
            documents.put(NS, "c", {"v": "c"}, metadata={"m": 1})
            self.heal(documents)
            assert documents.get(NS, "b").value == {"v": "b"}, name  # type: ignore[union-attr]

    @staticmethod
    def heal(documents: DocumentStore) -> None:
        documents.remove(NS, "b")
        documents.put(NS, "b", {"v": "b"}, metadata={"m": 1}, if_version=0, version=7)

    def test_what_has_no_version_is_not_written_over(
        self, store: RedisStore, raw: redis.Redis, documents: DocumentStore
    ) -> None:
        self.spoil(store, raw, lambda _: b"garbage")
        before = documents.list(EVERYTHING)
        other = Put(namespace=NS, key="new", value=1)
        for operation in (
            Put(namespace=NS, key="b", value=1),
            Put(namespace=NS, key="b", value=1, keep=True),
            Put(namespace=NS, key="b", value=1, if_version=0),
            Remove(namespace=NS, key="b", if_version=7),
            Expect(namespace=NS, key="b", version=0),
        ):
            with pytest.raises(DocumentUnreadable, match="header"):
                documents.write([other, operation])
        assert documents.list(EVERYTHING) == before
        assert documents.remove_under(NS) == 4

    def test_a_newer_format_is_told_from_damage(
        self, store: RedisStore, raw: redis.Redis, documents: DocumentStore
    ) -> None:
        newer = str(FORMAT + 1).encode()
        for change in (lambda cell: newer + cell[1:], lambda _: newer + b":as it will be"):
            self.spoil(store, raw, change)
            with pytest.raises(FormatTooNew):
                documents.get(NS, "b")
            told = {item.key: item.unreadable for item in documents.list(DocumentQuery(namespace=NS)).items}
            assert [key for key, unreadable in told.items() if unreadable] == ["b"]
            self.heal(documents)

    def test_a_large_value_that_is_gone(self, store: RedisStore, raw: redis.Redis, documents: DocumentStore) -> None:
        key = store._keys.documents(namespace_text(NS))[0]
        for damage in (lambda: raw.hdel(key, "\0\x01d"), lambda: raw.hset(key, "\0\x01d", b"{")):
            damage()
            with pytest.raises(DocumentUnreadable, match="damaged"):
                documents.get(NS, "d")
            assert [item.key for item in documents.list(DocumentQuery(namespace=NS)).items if item.unreadable] == ["d"]
            assert not any(item.unreadable for item in documents.list(DocumentQuery(namespace=NS, values=False)).items)

    def test_an_entry_of_the_index_without_its_cell_can_be_removed(
        self, store: RedisStore, raw: redis.Redis, documents: DocumentStore
    ) -> None:
        raw.hdel(store._keys.documents(namespace_text(NS))[0], "\x01b")
        assert [item.key for item in documents.list(DocumentQuery(namespace=NS)).items if item.unreadable] == ["b"]
        documents.remove(NS, "b")
        assert [item.key for item in documents.list(DocumentQuery(namespace=NS)).items] == ["a", "c", "d"]

    def test_a_root_of_another_type_is_named_and_stops_no_other(
        self, store: RedisStore, raw: redis.Redis, documents: DocumentStore, redis_prefix: str
    ) -> None:
        documents.put(NS, "short", 1, ttl=timedelta(microseconds=1))
        documents.put(("session", "s-2"), "short", 1, ttl=timedelta(microseconds=1))
        for spoilt in store._keys.documents(namespace_text(NS))[:2]:
            raw.set(spoilt, "text")
        for call in (
            lambda: documents.put(NS, "a", 1),
            lambda: documents.get_many([(("session", "s-2"), "k"), (NS, "a")]),
            lambda: documents.list(DocumentQuery(namespace=NS)),
            lambda: documents.list(EVERYTHING),
        ):
            with pytest.raises(DocumentUnreadable, match="session/s-1"):
                call()
        assert documents.get(("session", "s-2"), "k") is not None
        assert documents.tidy() == 1
        assert raw.zscore(store._keys.documents(namespace_text(NS))[4], namespace_text(NS)) is None
        documents.put(("session", "s-2"), "k", 2)
        documents.remove_under(NS)
        assert [item.key for item in documents.list(EVERYTHING).items] == ["k"]
        store.clear()
        assert keys_of(raw, redis_prefix) == set()
