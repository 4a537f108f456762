"""What only the Redis store must take care of when executions are moved: their size, and keys of other partitions."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import redis

from agent_statestore import ManualClock, MemoryStore
from agent_statestore.checkpoint import Checkpoint
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.errors import FormatTooNew, IdempotencyKeyTaken, StoreUnavailable
from agent_statestore.query import Query
from agent_statestore.redis import RedisStore
from agent_statestore.redis.keys import partition_of, partition_of_idempotency_key
from agent_statestore.states import AgentState
from agent_statestore.testing.contract.formats import newer_package
from agent_statestore.testing.kit.builders import TTL, answer, claim, create, done, event, intent, message, pause
from agent_statestore.testing.kit.stories import export_of
from tests.services.redis import RedisServer

MOMENT = timedelta(milliseconds=1)


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def store(redis_url: str, redis_prefix: str) -> Iterator[RedisStore]:
    with RedisStore(redis_url, key_prefix=redis_prefix) as store:
        yield store
        store.clear()


def stranger(key: str = "k", *, over: bool = False) -> ExportedExecution:
    """An execution of another store, whose idempotency key belongs to another partition than itself."""
    while True:
        with MemoryStore() as source:
            execution_id = create(source, idempotency_key=key)
            source.checkpoint(execution_id, Checkpoint(steps=(done(1),)))
            if over:
                source.update_state(execution_id, AgentState.COMPLETED)
            if partition_of(execution_id) != partition_of_idempotency_key("agent", key):
                return export_of(source, execution_id)


def holder(store: RedisStore, key: str = "k") -> str | None:
    """Who has a key."""
    context = store.get_by_idempotency_key("agent", key)
    return None if context is None else context.execution_id


def leftovers(raw: redis.Redis, prefix: str) -> set[str]:
    """All keys of a prefix but the refusals, which expire."""
    return {key for key in raw.scan_iter(f"{prefix}*", count=10_000) if ":refused:" not in key}


def wait_until_gone(store: RedisStore, execution_id: str) -> None:
    deadline = time.monotonic() + 10
    while store.get_summary(execution_id) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def before_script(
    store: RedisStore, name: str, action: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Acts once, right before the store sends that script. Returns the names of the scripts that are sent."""
    run, sent, pending = store._connection.run, [], [action]

    def intercepted(script: Any, keys: Any, arguments: Any) -> Any:
        if script.name == name and pending:
            pending.pop()()
        sent.append(script.name)
        return run(script, keys, arguments)

    monkeypatch.setattr(store._connection, "run", intercepted)
    return sent


def dies() -> None:
    """What a process that is killed does next."""
    raise StoreUnavailable("redis://", "killed")


class TestKeysOfOtherPartitions:
    def test_create_returns_the_restored_execution(self, store: RedisStore) -> None:
        exported = stranger()
        assert store.restore(exported) is True
        assert create(store, idempotency_key="k") == holder(store) == exported.execution_id
        assert store.restore(exported) is False
        assert export_of(store, exported.execution_id) == exported

    @pytest.mark.parametrize("remove", ["delete_context", "purge"])
    def test_removing_frees_the_key_and_leaves_nothing(
        self, store: RedisStore, raw: redis.Redis, redis_prefix: str, remove: str
    ) -> None:
        exported = stranger()
        store.restore(exported)
        assert getattr(store, remove)(exported.execution_id) is True
        assert leftovers(raw, redis_prefix) == set()
        assert store.restore(exported) is True
        assert holder(store) == exported.execution_id
        assert store.clear() == 1
        assert leftovers(raw, redis_prefix) == set()

    @pytest.mark.parametrize("tidied", [False, True])
    def test_an_expired_one_frees_its_key_and_not_that_of_its_successor(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis, tidied: bool
    ) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix, completed_ttl=MOMENT) as store:
            exported = stranger(over=True)
            store.restore(exported)
            wait_until_gone(store, exported.execution_id)
            assert holder(store) is None
            if tidied:
                assert store.tidy() == 1
                assert leftovers(raw, redis_prefix) == set()
            successor = create(store, idempotency_key="k")
            assert successor != exported.execution_id
            assert store.tidy() == int(not tidied)
            assert create(store, idempotency_key="k") == holder(store) == successor
            with pytest.raises(IdempotencyKeyTaken):
                store.restore(exported)
            store.purge(successor)
            assert leftovers(raw, redis_prefix) == set()

    @pytest.mark.parametrize("first_over", [False, True])
    def test_one_stranger_after_the_other(self, redis_url: str, redis_prefix: str, first_over: bool) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix, completed_ttl=MOMENT) as store:
            first, second = stranger(over=first_over), stranger()
            assert store.restore(first) is True
            if first_over:
                wait_until_gone(store, first.execution_id)
                assert store.restore(second) is True
                assert holder(store) == second.execution_id
            else:
                with pytest.raises(IdempotencyKeyTaken):
                    store.restore(second)
                assert holder(store) == first.execution_id
                assert store.get_summary(second.execution_id) is None
            store.clear()

    def test_an_expired_execution_of_the_keys_own_partition_gives_way(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix, completed_ttl=MOMENT) as store:
            own = create(store, idempotency_key="k")
            store.update_state(own, AgentState.COMPLETED)
            wait_until_gone(store, own)
            exported = stranger()
            assert store.restore(exported) is True
            assert store.tidy() == 1
            assert holder(store) == exported.execution_id
            store.clear()
            assert leftovers(raw, redis_prefix) == set()


class TestHalfWay:
    """A restore into another partition than its key's takes two scripts: what may happen between them."""

    def test_a_repetition_repairs(self, store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
        exported = stranger()
        before_script(store, "restore", dies, monkeypatch)
        with pytest.raises(StoreUnavailable):
            store.restore(exported)
        assert holder(store) is None
        assert store.get_context(exported.execution_id) is None
        assert store.restore(exported) is True
        assert holder(store) == exported.execution_id

    def test_whoever_wants_the_key_gets_it(
        self, store: RedisStore, raw: redis.Redis, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exported = stranger()
        before_script(store, "restore", dies, monkeypatch)
        with pytest.raises(StoreUnavailable):
            store.restore(exported)
        own = create(store, idempotency_key="k")
        assert holder(store) == own
        with pytest.raises(IdempotencyKeyTaken):
            store.restore(exported)
        store.purge(own)
        assert store.restore(exported) is True
        store.purge(exported.execution_id)
        assert leftovers(raw, redis_prefix) == set()

    def test_clearing_leaves_no_promise(
        self, store: RedisStore, raw: redis.Redis, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before_script(store, "restore", dies, monkeypatch)
        with pytest.raises(StoreUnavailable):
            store.restore(stranger())
        assert leftovers(raw, redis_prefix) != set()
        assert store.clear() == 0
        assert leftovers(raw, redis_prefix) == set()

    def test_a_creation_in_between_wins(
        self, store: RedisStore, redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exported, made = stranger(), []
        with RedisStore(redis_url, key_prefix=redis_prefix) as rival:
            before_script(store, "restore", lambda: made.append(create(rival, idempotency_key="k")), monkeypatch)
            with pytest.raises(IdempotencyKeyTaken):
                store.restore(exported)
        assert [holder(store)] == made
        assert store.get_context(exported.execution_id) is None

    def test_a_creation_that_was_taken_back_in_between_does_not_hinder(
        self, store: RedisStore, redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exported = stranger()
        with RedisStore(redis_url, key_prefix=redis_prefix) as rival:
            sent = before_script(store, "restore", lambda: rival.purge(create(rival, idempotency_key="k")), monkeypatch)
            assert store.restore(exported) is True
        assert sent.count("restore") == 2  # the first promise was refused
        assert holder(store) == exported.execution_id

    def test_a_key_whose_promise_somebody_refused_and_died_is_not_stuck(
        self, store: RedisStore, redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exported = stranger()

        def refuse_and_die() -> None:
            with RedisStore(redis_url, key_prefix=redis_prefix) as rival, pytest.MonkeyPatch.context() as patch:
                before_script(rival, "free_key", dies, patch)
                with pytest.raises(StoreUnavailable):
                    create(rival, idempotency_key="k")

        before_script(store, "restore", refuse_and_die, monkeypatch)
        assert store.restore(exported) is True
        assert create(store, idempotency_key="k") == exported.execution_id

    def test_a_restore_before_its_key_is_freed_keeps_the_key(
        self, store: RedisStore, redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exported = stranger()
        with monkeypatch.context() as patch:
            before_script(store, "restore", dies, patch)
            with pytest.raises(StoreUnavailable):
                store.restore(exported)
        with RedisStore(redis_url, key_prefix=redis_prefix) as rival:
            before_script(rival, "free_key", lambda: store.restore(exported), monkeypatch)
            assert create(rival, idempotency_key="k") == exported.execution_id

    def test_a_restore_while_an_older_copy_is_removed_keeps_its_key(
        self, store: RedisStore, redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exported = stranger()
        store.restore(exported)
        with RedisStore(redis_url, key_prefix=redis_prefix) as rival:
            before_script(store, "refuse_promise", lambda: rival.restore(exported), monkeypatch)
            assert store.purge(exported.execution_id) is True
        assert store.get_summary(exported.execution_id) is not None
        assert create(store, idempotency_key="k") == exported.execution_id

    def test_two_restores_at_once_are_one(
        self, store: RedisStore, redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exported = stranger()
        with RedisStore(redis_url, key_prefix=redis_prefix) as rival:
            before_script(store, "restore", lambda: rival.restore(exported), monkeypatch)
            assert store.restore(exported) is False
        assert holder(store) == exported.execution_id

    def test_a_second_restore_that_dies_does_not_hide_the_first_from_a_creation(
        self, store: RedisStore, redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exported, made = stranger(), []

        def die_and_create() -> None:
            with RedisStore(redis_url, key_prefix=redis_prefix) as rival, pytest.MonkeyPatch.context() as patch:
                before_script(rival, "restore", dies, patch)
                with pytest.raises(StoreUnavailable):
                    rival.restore(exported)
                made.append(create(rival, idempotency_key="k"))

        before_script(store, "restore", die_and_create, monkeypatch)
        with pytest.raises(IdempotencyKeyTaken):
            store.restore(exported)
        assert [holder(store)] == made
        assert store.get_context(exported.execution_id) is None

    @pytest.mark.parametrize("seed", range(4))
    def test_of_all_who_want_a_key_at_once_one_gets_it(self, store: RedisStore, seed: int) -> None:
        for number in range(15):
            key = f"{seed}:{number}"
            wanted = [stranger(key), stranger(key)]
            start = threading.Barrier(4)

            def restore(exported: ExportedExecution, start: threading.Barrier = start) -> str | None:
                start.wait()
                try:
                    return exported.execution_id if store.restore(exported) else None
                except IdempotencyKeyTaken:
                    return None

            def make(key: str = key, start: threading.Barrier = start) -> str:
                start.wait()
                return create(store, idempotency_key=key)

            with ThreadPoolExecutor(4) as pool:
                made = [pool.submit(make) for _ in range(2)]
                restored = [pool.submit(restore, exported) for exported in wanted]
                ids = {each.result() for each in (*made, *restored)} - {None}
            assert len(ids) == 1
            assert ids == {holder(store, key)} == {create(store, idempotency_key=key)}
        assert len(store.find(Query(limit=1000)).items) == 15


class TestSizes:
    def test_an_execution_larger_than_lua_can_unpack(self, store: RedisStore, clock: ManualClock) -> None:
        count = 10_000
        with MemoryStore(clock=clock) as source:
            source.max_mailbox = count
            execution_id = create(source, idempotency_key="k")
            source.checkpoint(
                execution_id,
                Checkpoint(
                    steps=tuple((intent if number % 2 else done)(number) for number in range(1, count + 1)),
                    messages=(message("m"),) * count,
                    working_memory={str(number): number for number in range(count)},
                    facts=tuple(range(count)),
                    entities={str(number): number for number in range(count)},
                ),
            )
            for number in range(count // 2):
                source.send(execution_id, event(key=f"k{number}"))
            for _ in range(count // 2):
                source.update_state(execution_id, AgentState.USING_TOOL)
                source.update_state(execution_id, AgentState.THINKING)
            exported = export_of(source, execution_id)
            assert store.restore(exported) is True
            assert export_of(store, execution_id) == exported
            assert claim(store, execution_id).context.steps == source.get_steps(execution_id)
            assert len(store.get_audit(execution_id)) == count + count // 2 + 2

    def test_a_server_without_memory_keeps_the_older_copy(self, redis_server: RedisServer) -> None:
        exported = stranger()
        with MemoryStore() as source:
            source.restore(exported)
            source.checkpoint(exported.execution_id, pause())
            newer = export_of(source, exported.execution_id)
        with RedisStore(redis_server.url) as store, redis.Redis.from_url(redis_server.url) as raw:
            store.restore(exported)
            raw.config_set("maxmemory", 1)
            with pytest.raises(StoreUnavailable, match="out of memory"):
                store.restore(newer)
            assert export_of(store, exported.execution_id) == exported
            raw.config_set("maxmemory", 0)
            assert store.restore(newer) is True
            assert export_of(store, exported.execution_id) == newer


class TestContents:
    def test_a_restored_execution_lives_on_like_any_other(self, store: RedisStore) -> None:
        with MemoryStore() as source:
            execution_id = create(source)
            source.checkpoint(execution_id, Checkpoint(steps=(intent(1, "a"), intent(2, "b"))))
            source.send(execution_id, event("first", key="other"))
            source.checkpoint(execution_id, pause())
            store.restore(export_of(source, execution_id))
        assert store.send(execution_id, event("second", key="other")).woke is False
        assert store.send(execution_id, answer()).woke is True
        lease = claim(store, execution_id).lease
        store.checkpoint(execution_id, Checkpoint(steps=(done(1, "a"), done(2, "b"), done(3))), lease)
        context = store.get_context(execution_id)
        assert context is not None
        assert [signal.payload for signal in context.signals] == ["first", "second", "yes"]
        store.checkpoint(
            execution_id, Checkpoint(consumed=tuple(signal.signal_id for signal in context.signals)), lease
        )
        store.checkpoint(execution_id, pause(), lease)
        assert store.claim(execution_id, "host:2", TTL) is None

    def test_a_copy_of_a_newer_format_is_not_overwritten(self, store: RedisStore) -> None:
        with newer_package(store):
            execution_id = create(store)
            exported = export_of(store, execution_id)
        older = ExportedExecution(header={**exported.header, "format": 1, "version": 9}, audit=exported.audit)
        with pytest.raises(FormatTooNew):
            store.restore(older)
        with newer_package(store):
            assert export_of(store, execution_id) == exported
