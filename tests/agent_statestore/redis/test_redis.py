"""What only the Redis store promises: expiry, its own keys and nobody else's, one partition per script, no retries."""

import os
import pickle
import socketserver
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import redis
from redis.crc import key_slot

from agent_statestore import ManualClock, MemoryStore
from agent_statestore.checkpoint import STATE_OF_WAIT, Checkpoint, NewExecution
from agent_statestore.clock import to_us
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.errors import InvalidRecord, StoreUnavailable, UnknownScheme, UnsupportedURL
from agent_statestore.opening import open_store
from agent_statestore.query import Query
from agent_statestore.records import (
    Action,
    AgentStep,
    ErrorInfo,
    Lease,
    Message,
    RagChunk,
    Result,
    Signal,
    SignalKind,
    Wait,
    WaitKind,
)
from agent_statestore.redis import RedisStore, open_redis
from agent_statestore.redis.keys import PARTITIONS, PARTS, partition_of, partition_of_idempotency_key
from agent_statestore.redis.scripts import together
from agent_statestore.redis.servers.connection import _TOGETHER, no_retry
from agent_statestore.states import AgentState
from tests.agent_statestore.redis.redis_life import live_documents
from tests.services.redis import RedisServer
from tests.services.redis_cluster import RedisCluster

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def store(redis_url: str, redis_prefix: str) -> Iterator[RedisStore]:
    with RedisStore(redis_url, key_prefix=redis_prefix) as store:
        yield store
        store.clear()


def step(number: int, output: object = None) -> AgentStep:
    return AgentStep(
        step_number=number,
        name=f"step{number}",
        action=Action(kind="step"),
        result=Result(success=True, output=output),
        timestamp=NOW,
    )


def everything(**change: object) -> Checkpoint:
    """A checkpoint that touches each of an execution's keys."""
    intent = AgentStep(step_number=2, name="intent", action=Action(kind="tool"), timestamp=NOW)
    return Checkpoint(
        steps=(step(1), intent),
        messages=(Message(role="user", content="hi", timestamp=NOW),),
        working_memory={"a": 1},
        facts=("f",),
        entities={"e": 1},
        rag_context=(RagChunk(content="c"),),
        **change,  # type: ignore[arg-type]
    )


def paused(kind: WaitKind = WaitKind.INPUT) -> Checkpoint:
    return Checkpoint(state=STATE_OF_WAIT[kind], waits=(Wait(kind=kind, key="q", asked_at=NOW),))


def answer(signal_id: str = "s1") -> Signal:
    return Signal(signal_id=signal_id, kind=SignalKind.ANSWER, key="q", payload={"ok": []})


def claimed(store: RedisStore, execution_id: str, ttl: timedelta = MINUTE) -> Lease:
    claim = store.claim(execution_id, "host:1", ttl)
    assert claim is not None
    return claim.lease


def own_ttls(raw: redis.Redis, store: RedisStore, execution_id: str) -> set[int]:
    """The remaining milliseconds (-1: none) of each key of an execution that exists."""
    keys = [key for key in store._keys.own(execution_id) if raw.exists(key)]
    assert keys
    return {raw.pttl(key) for key in keys}


def exported_from_elsewhere(key: str) -> ExportedExecution:
    """An execution of another store, whose idempotency key belongs to another partition than itself."""
    while True:
        with MemoryStore() as source:
            execution_id = source.create_context("a", session_id="s", user_id="u", idempotency_key=key).execution_id
            exported = source.export(execution_id)
        assert exported is not None
        if partition_of(execution_id) != partition_of_idempotency_key("a", key):
            return exported


def keys_of(raw: redis.Redis, prefix: str) -> set[str]:
    return {key for key in raw.scan_iter(count=10_000) if key.startswith(prefix)}


def wait_until_gone(store: RedisStore, execution_id: str) -> None:
    deadline = time.monotonic() + 10
    while store.get_summary(execution_id) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


class TestExpiry:
    def test_active_executions_never_expire_by_default(self, store: RedisStore, raw: redis.Redis) -> None:
        execution_id = store.create_context("a").execution_id
        assert own_ttls(raw, store, execution_id) == {-1}
        lease = claimed(store, execution_id)
        store.checkpoint(execution_id, everything(), lease)
        assert own_ttls(raw, store, execution_id) == {-1}
        store.checkpoint(execution_id, paused(), lease)
        assert own_ttls(raw, store, execution_id) == {-1}

    @pytest.mark.parametrize(
        ("state", "hours"), [(AgentState.COMPLETED, 24), (AgentState.CANCELLED, 24), (AgentState.FAILED, 24 * 7)]
    )
    def test_what_is_over_expires_as_a_whole(
        self, store: RedisStore, raw: redis.Redis, state: AgentState, hours: int
    ) -> None:
        execution_id = store.create_context("a").execution_id
        store.checkpoint(execution_id, everything())
        store.update_state(execution_id, state)
        ttls = own_ttls(raw, store, execution_id)
        limit = hours * 3_600_000
        assert limit - 60_000 < min(ttls) <= max(ttls) <= limit

    def test_a_requeued_execution_stays(self, store: RedisStore, raw: redis.Redis) -> None:
        execution_id = store.create_context("a").execution_id
        store.checkpoint(execution_id, everything())
        store.update_state(execution_id, AgentState.FAILED, error=ErrorInfo(type="a:b", message="m"))
        store.requeue(execution_id)
        assert own_ttls(raw, store, execution_id) == {-1}
        assert store.tidy() == 0

    def test_default_ttl_slides_with_writes_and_spares_the_queued_and_the_paused(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix, default_ttl=timedelta(hours=1)) as store:
            execution_id = store.create_context("a").execution_id
            assert own_ttls(raw, store, execution_id) == {-1}
            lease = claimed(store, execution_id)

            def slides() -> None:
                ttls = own_ttls(raw, store, execution_id)
                assert 3_540_000 < min(ttls) <= max(ttls) <= 3_600_000
                for key in store._keys.own(execution_id):
                    raw.pexpire(key, 100_000)

            slides()
            store.checkpoint(execution_id, everything(), lease)
            slides()
            store.checkpoint(execution_id, Checkpoint(facts=("g",)), lease)
            slides()
            store.renew([lease], MINUTE)
            slides()
            store.send(execution_id, Signal(signal_id="e", kind=SignalKind.EVENT, key="k"))
            slides()
            store.checkpoint(execution_id, paused(), lease)
            assert own_ttls(raw, store, execution_id) == {-1}
            store.send(execution_id, answer())
            assert own_ttls(raw, store, execution_id) == {-1}
            lease = claimed(store, execution_id)
            slides()
            assert store.release(lease)
            assert own_ttls(raw, store, execution_id) == {-1}  # queued again
            store.send(execution_id, Signal(signal_id="f", kind=SignalKind.EVENT, key="k"))
            assert own_ttls(raw, store, execution_id) == {-1}
            claimed(store, execution_id)
            slides()
            store.clear()

    def test_expired_executions_leave_nothing_after_tidy(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix, completed_ttl=timedelta(milliseconds=1)) as store:
            new = NewExecution(agent_id="a", session_id="s", user_id="u", idempotency_key="k", first_ring=timedelta(0))
            kept = store.create_context("a", session_id="s").execution_id
            gone = store.create(new).execution_id
            store.checkpoint(
                gone, everything(state=AgentState.COMPLETED, output=1, announce_within=timedelta(milliseconds=1))
            )
            wait_until_gone(store, gone)
            assert [summary.execution_id for summary in store.find(Query(session_id="s")).items] == [kept]
            assert gone not in {due.execution_id for due in store.take_due(10, MINUTE)}
            successor = store.create(new).execution_id
            assert successor != gone
            assert store.tidy() == 1
            assert store.tidy() == 0
            assert not [key for key in keys_of(raw, redis_prefix) if gone in key]
            assert store.create(new).execution_id == successor
            assert store.clear() == 2
            assert keys_of(raw, redis_prefix) == set()

    @pytest.mark.parametrize("name", ["default_ttl", "completed_ttl", "failed_ttl"])
    def test_a_ttl_below_a_millisecond_is_refused(self, redis_url: str, name: str) -> None:
        with pytest.raises(InvalidRecord, match=name):
            RedisStore(redis_url, **{name: timedelta(0)})  # type: ignore[arg-type]

    def test_none_keeps_for_ever(self, redis_url: str, redis_prefix: str, raw: redis.Redis) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix, completed_ttl=None) as store:
            execution_id = store.create_context("a").execution_id
            store.update_state(execution_id, AgentState.COMPLETED)
            assert own_ttls(raw, store, execution_id) == {-1}
            store.clear()


class TestKeys:
    def test_clear_leaves_longer_shorter_and_glob_like_prefixes_alone(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        prefixes = [
            redis_prefix,
            f"{redis_prefix}state:",
            f"{redis_prefix}*:",
            f"{redis_prefix}[s]*:",
            redis_prefix[:-2],
        ]
        stores = [RedisStore(redis_url, key_prefix=prefix) for prefix in prefixes]
        foreign = f"{redis_prefix}foreign"
        raw.set(foreign, "1")
        for store in stores:
            for _ in range(20):
                store.create_context("a", session_id="s", idempotency_key=None)
        for number, store in enumerate(stores):
            assert store.clear() == 20
            for other in stores[number + 1 :]:
                assert len(other.find(Query(limit=100)).items) == 20
        assert keys_of(raw, redis_prefix[:-2]) == {foreign}
        raw.delete(foreign)
        for store in stores:
            store.close()

    @pytest.mark.parametrize("prefix", ["a{b}:", "{", "}"])
    def test_a_prefix_with_braces_is_refused(self, redis_url: str, prefix: str) -> None:
        with pytest.raises(InvalidRecord, match="key_prefix"):
            RedisStore(redis_url, key_prefix=prefix)

    def test_an_id_that_looks_like_a_key_is_not_found(self, store: RedisStore) -> None:
        execution_id = store.create_context("a").execution_id
        for strange in ("", "x", f"{execution_id}:steps", "{p00}:due", "\ud800", "é", "a\0b"):
            assert store.get_context(strange) is None
            assert store.delete_context(strange) is False

    def test_scripts_touch_only_declared_keys_of_one_slot(self, store: RedisStore, raw: redis.Redis) -> None:
        _use_everything(store)  # loads the scripts, so that they are recorded by name
        commands = _recorded(raw, lambda: _use_everything(store))
        declared: set[str] = set()
        # Not in a cluster.
        of_all_partitions = {together(name).sha for name in _TOGETHER}
        scripts = touched = 0
        for is_lua, words in commands:
            name = words[0].upper()
            if not is_lua and name in ("EVAL", "EVALSHA"):
                declared = set(words[3 : 3 + int(words[2])])
                scripts += 1
                slots = len({key_slot(key.encode()) for key in declared})
                assert slots == (PARTITIONS if words[1] in of_all_partitions else 1)
            elif is_lua and name != "TIME":
                assert words[1] in declared, words[:2]
                touched += 1
        assert scripts > 30
        assert touched > 100

    def test_a_checkpoint_does_the_same_work_after_many_steps(self, store: RedisStore, raw: redis.Redis) -> None:
        execution_id = store.create_context("a").execution_id
        lease = claimed(store, execution_id)
        store.checkpoint(execution_id, Checkpoint(steps=(step(1),)), lease)
        early = _recorded(raw, lambda: store.checkpoint(execution_id, Checkpoint(steps=(step(2),)), lease))
        store.checkpoint(execution_id, Checkpoint(steps=tuple(step(number) for number in range(3, 2000))), lease)
        late = _recorded(raw, lambda: store.checkpoint(execution_id, Checkpoint(steps=(step(2000),)), lease))
        assert [words[0] for _, words in early] == [words[0] for _, words in late]
        assert sum(not is_lua for is_lua, _ in late) == 1

    def test_an_idempotency_record_lives_with_its_execution(self, store: RedisStore) -> None:
        ids = {store.create_context("a", idempotency_key=f"k{number}").execution_id for number in range(40)}
        assert len({partition_of(execution_id) for execution_id in ids}) > PARTITIONS // 2
        again = {store.create_context("a", idempotency_key=f"k{number}").execution_id for number in range(40)}
        assert again == ids


def made_older(raw: redis.Redis, store: RedisStore, execution_id: str) -> None:
    """Makes an execution look as a version wrote it that knew neither the audit trail nor when something was over."""
    partition = partition_of(execution_id)
    raw.hdel(store._keys.header(execution_id), "ended_us")
    raw.hset(store._keys.own(execution_id)[1 + PARTS.index("signals")], "seq", 7)
    raw.delete(store._keys.audit(execution_id))
    for key in store._keys.ended(partition):
        raw.zrem(key, execution_id)


class TestOlderData:
    def test_what_is_active_goes_on(self, store: RedisStore, raw: redis.Redis) -> None:
        execution_id = store.create_context("a", idempotency_key="k").execution_id
        store.checkpoint(execution_id, everything())
        store.checkpoint(execution_id, paused())
        made_older(raw, store, execution_id)
        assert store.get_audit(execution_id) == ()
        assert store.send(execution_id, answer("eq")).woke  # an id that an older version took for its number
        assert not store.send(execution_id, answer("eq")).woke
        lease = claimed(store, execution_id)
        store.checkpoint(execution_id, Checkpoint(consumed=("eq",), state=AgentState.FAILED), lease)
        assert [entry.event for entry in store.get_audit(execution_id)] == ["decided", "claimed", "moved"]
        exported = store.export(execution_id)
        assert exported is not None
        assert exported.place == (3, 1, 3)
        assert [(signal.signal_id, signal.text) for signal in exported.signals] == [("eq", None)]
        assert store.find_ended(LATER) == (execution_id,)
        assert store.drop_archived(execution_id, exported.place)

    def test_what_is_over_was_over_with_its_last_write(self, store: RedisStore, raw: redis.Redis) -> None:
        execution_id = store.create_context("a").execution_id
        store.checkpoint(execution_id, everything(state=AgentState.COMPLETED, output=1, announce_within=MINUTE))
        before = store.get_context(execution_id)
        assert before is not None
        made_older(raw, store, execution_id)
        assert store.get_context(execution_id) == before
        summary = store.get_summary(execution_id)
        exported = store.export(execution_id)
        assert summary is not None
        assert exported is not None
        assert summary.ended_at == before.ended_at == before.updated_at
        with MemoryStore() as archive:
            assert archive.restore(exported)
            assert archive.get_context(execution_id) == before
        assert store.find_ended(LATER) == ()
        store.settle(execution_id)
        assert store.find_ended(LATER) == (execution_id,)
        store.settle(execution_id)
        assert store.drop_archived(execution_id, exported.place)
        assert store.find_ended(LATER) == ()

    def test_what_is_over_without_a_time_to_live_may_be_dropped(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix, completed_ttl=None) as store:
            execution_id = store.create_context("a").execution_id
            store.update_state(execution_id, AgentState.COMPLETED)
            made_older(raw, store, execution_id)
            assert store.drop_archived(execution_id, (1, 0, 0))
            assert store.get_context(execution_id) is None
            assert store.tidy() == 1
            assert keys_of(raw, redis_prefix) == set()

    def test_what_an_older_version_has_released_is_not_over(self, store: RedisStore, raw: redis.Redis) -> None:
        execution_id = store.create_context("a").execution_id
        store.update_state(execution_id, AgentState.FAILED)
        over = store.get_summary(execution_id)
        store.requeue(execution_id)
        assert over is not None
        raw.hset(store._keys.header(execution_id), "ended_us", to_us(over.updated_at))
        context, exported = store.get_context(execution_id), store.export(execution_id)
        assert context is not None
        assert exported is not None
        assert context.ended_at is None
        assert exported.header["ended_us"] is None
        assert not store.drop_archived(execution_id, exported.place)


class TestValues:
    def test_values_come_back_as_they_were(self, store: RedisStore) -> None:
        value = {"big": 2**90, "empty": [], "none": {}, "text": "žluť 🐎", "float": 0.1, "nul": "\0", "null": None}
        execution_id = store.create_context("ä", value, session_id="s:{p00}*", metadata={"m": value}).execution_id
        lease = claimed(store, execution_id)
        change = Checkpoint(
            steps=(step(1, value),),
            working_memory={"klíč": value, "state": []},
            facts=(value, [], 2**70),
            entities={"é": value},
        )
        store.checkpoint(execution_id, change, lease)
        context = store.get_context(execution_id)
        assert context is not None
        assert context.input == context.metadata["m"] == context.memory.working_memory["klíč"] == value
        assert context.memory.facts == (value, [], 2**70)
        assert context.memory.entities == {"é": value}
        assert context.steps[0].result is not None
        assert context.steps[0].result.output == value
        assert [item.execution_id for item in store.find(Query(session_id="s:{p00}*")).items] == [execution_id]

    def test_a_key_that_utf8_cannot_carry_is_refused(self, store: RedisStore) -> None:
        execution_id = store.create_context("a").execution_id
        with pytest.raises(InvalidRecord):
            store.set_working_memory(execution_id, "\ud800", 1)

    def test_thousands_of_parts_at_once(self, store: RedisStore) -> None:
        execution_id = store.create_context("a").execution_id
        count = 9000  # more than Lua can unpack in one call
        store.checkpoint(
            execution_id,
            Checkpoint(
                steps=tuple(step(number) for number in range(1, count + 1)),
                working_memory={str(number): number for number in range(count)},
                facts=tuple(range(count)),
            ),
        )
        context = store.get_context(execution_id)
        assert context is not None
        assert (len(context.steps), len(context.memory.working_memory)) == (count, count)
        assert context.memory.facts == tuple(range(count))


class TestServer:
    def test_flushed_scripts_are_loaded_again(self, store: RedisStore, raw: redis.Redis) -> None:
        execution_id = store.create_context("a", first_ring=timedelta(0)).execution_id
        raw.script_flush()
        assert [due.execution_id for due in store.take_due(10, timedelta(0))] == [execution_id]
        raw.script_flush()
        lease = claimed(store, execution_id)
        raw.script_flush()
        assert store.renew([lease], MINUTE).lost == frozenset()

    def test_a_restarted_server_is_found_again(self, redis_server: RedisServer) -> None:
        with RedisStore(redis_server.url) as store:
            execution_id = store.create_context("a").execution_id
            lease = claimed(store, execution_id)
            assert store.durability_warning() is None
            redis_server.kill()
            with pytest.raises(StoreUnavailable) as caught:
                store.checkpoint(execution_id, Checkpoint(steps=(step(1),)), lease)
            assert caught.value.__cause__ is not None
            redis_server.start()
            store.checkpoint(execution_id, Checkpoint(steps=(step(1),)), lease)
            assert store.get_steps(execution_id) == (step(1),)

    def test_out_of_memory_writes_nothing_and_says_so(self, redis_server: RedisServer) -> None:
        with RedisStore(redis_server.url) as store, redis.Redis.from_url(redis_server.url) as raw:
            execution_id = store.create_context("a").execution_id
            waiting = store.create_context("a").execution_id
            lease = claimed(store, execution_id)
            store.checkpoint(waiting, paused())
            before = store.get_context(execution_id), store.get_context(waiting)
            raw.config_set("maxmemory", 1)
            writes = [
                lambda: store.checkpoint(execution_id, everything(), lease),
                lambda: store.checkpoint(execution_id, everything(state=AgentState.COMPLETED), lease),
                lambda: store.send(waiting, answer()),
                lambda: store.create_context("a", idempotency_key="k"),
                lambda: store.release(lease),
                lambda: store.renew([lease], 2 * MINUTE),
            ]
            for write in writes:
                with pytest.raises(StoreUnavailable, match="out of memory"):
                    write()
            assert (store.get_context(execution_id), store.get_context(waiting)) == before
            assert store.delete_context(waiting)
            raw.config_set("maxmemory", 0)
            store.checkpoint(execution_id, everything(), lease)
            assert [item.execution_id for item in store.find().items] == [execution_id]
            store.delete_context(execution_id)
            assert raw.dbsize() == 0

    def test_missing_persistence_is_said(self, store: RedisStore, raw: redis.Redis) -> None:
        if raw.config_get("appendonly")["appendonly"] == "yes":
            pytest.skip("this server keeps an append-only file")
        assert "appendonly" in (store.durability_warning() or "")

    def test_eviction_is_said(self, redis_server: RedisServer) -> None:
        with RedisStore(redis_server.url) as store, redis.Redis.from_url(redis_server.url) as raw:
            raw.config_set("maxmemory-policy", "volatile-lru")
            assert store.durability_warning() is None
            raw.config_set("maxmemory", 1 << 30)
            assert "volatile-lru" in (store.durability_warning() or "")

    def test_a_server_that_hides_its_settings_gets_a_sentence(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        raw.acl_setuser(redis_prefix, enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-info"])
        try:
            url = redis_url.replace("://", f"://{redis_prefix.replace(':', '%3A')}:secret@")
            with RedisStore(url) as store:
                warning = store.durability_warning()
                assert warning is not None
                assert "cannot tell" in warning
                assert "secret" not in warning + store.url
        finally:
            raw.acl_deluser(redis_prefix)

    def test_nobody_there(self) -> None:
        with RedisStore("redis://:secret@127.0.0.1:1/0") as store, pytest.raises(StoreUnavailable) as caught:
            store.check()
        assert "secret" not in str(caught.value)
        assert isinstance(caught.value.__cause__, redis.ConnectionError)

    def test_both_sides_of_a_fork(self, store: RedisStore) -> None:
        execution_id = store.create_context("a").execution_id
        child = os.fork()
        if child == 0:
            try:
                for number in range(1, 51):
                    store.checkpoint(execution_id, Checkpoint(facts=(number,)))
                os._exit(0)
            finally:
                os._exit(1)
        for number in range(51, 101):
            store.checkpoint(execution_id, Checkpoint(facts=(number,)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        context = store.get_context(execution_id)
        assert context is not None
        assert sorted(context.memory.facts) == list(range(1, 101))

    def test_nothing_is_sent_twice(self) -> None:
        with _Deaf() as server:
            given = redis.Redis(port=server.port, protocol=2)
            for store in (RedisStore(f"redis://127.0.0.1:{server.port}"), RedisStore(client=given)):
                server.scripts = 0
                with store, pytest.raises(StoreUnavailable):
                    store.claim("x", "owner", MINUTE)
                assert server.scripts == 1
            given.close()


class TestTakeDue:
    def test_sweepers_share_a_backlog(self, store: RedisStore) -> None:
        ids = {store.create_context("a", first_ring=timedelta(0)).execution_id for _ in range(100)}
        taken = [due.execution_id for _ in range(11) for due in store.take_due(10, MINUTE)]
        assert len(taken) == 100
        assert set(taken) == ids

    @pytest.mark.parametrize("limit", [1, 3, 16, 17, 99])
    def test_the_limit_is_used_up_and_kept(self, store: RedisStore, limit: int) -> None:
        for number in range(100):
            store.create_context("a", first_ring=timedelta(0), idempotency_key=f"{number % 2}" if number < 2 else None)
        assert len(store.take_due(limit, MINUTE)) == limit

    def test_without_grace_each_is_taken_once_a_call(self, store: RedisStore) -> None:
        ids = {store.create_context("a", first_ring=timedelta(0)).execution_id for _ in range(30)}
        taken = [due.execution_id for due in store.take_due(100, timedelta(0))]
        assert len(taken) == 30
        assert set(taken) == ids

    def test_a_server_of_a_cluster_that_is_away_does_not_hold_up_the_others(self, redis_cluster: RedisCluster) -> None:
        with open_store(redis_cluster.url) as store:
            assert isinstance(store, RedisStore)
            ids = {store.create_context("a", first_ring=timedelta(0)).execution_id for _ in range(60)}
            redis_cluster.kill_master_of(store._keys.header(min(ids)))
            taken = [due.execution_id for due in store.take_due(100, MINUTE)]
            assert len(taken) == len(set(taken))
            assert 0 < len(taken) < 60
            redis_cluster.wait_until_healthy()
            for _ in range(2):  # the first meets the old server and learns of the new one
                taken += [due.execution_id for due in store.take_due(100, MINUTE)]
            assert sorted(taken) == sorted(ids)

    def test_one_round_trip_when_nothing_is_due(self, store: RedisStore, raw: redis.Redis) -> None:
        store.take_due(1, MINUTE)
        calls = _recorded(raw, lambda: store.take_due(100, MINUTE))
        assert sum(not is_lua for is_lua, _ in calls) == 1


class TestOpening:
    def test_the_url_carries_the_options(self, redis_url: str, redis_prefix: str, raw: redis.Redis) -> None:
        url = f"{redis_url.replace('redis://', 'valkey://')}?key_prefix={redis_prefix}&completed_ttl=60&failed_ttl=none"
        with open_store(url) as store:
            assert isinstance(store, RedisStore)
            done, failed = (store.create_context("a").execution_id for _ in range(2))
            store.update_state(done, AgentState.COMPLETED)
            store.update_state(failed, AgentState.FAILED)
            assert max(own_ttls(raw, store, done)) <= 60_000
            assert own_ttls(raw, store, failed) == {-1}
            store.clear()

    @pytest.mark.parametrize(
        "url",
        [
            "redis://localhost/0?key_prefixx=a",
            "redis://localhost/0?completed_ttl=soon",
            "redis://localhost/0?retry_on_timeout=yes",
            "redis://localhost/0?socket_timeout=soon",
            "redis+sentinel://localhost/0",
            "unix://socket",
        ],
    )
    def test_what_it_does_not_know_is_refused(self, url: str) -> None:
        with pytest.raises((UnsupportedURL, UnknownScheme)) as caught:
            open_redis(url)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

    def test_an_unknown_keyword_is_refused(self) -> None:
        with pytest.raises(UnsupportedURL, match="prefix"):
            open_redis("redis://localhost", prefix="a")

    def test_a_given_client_lends_its_settings_only(self, redis_url: str, redis_prefix: str) -> None:
        with redis.Redis.from_url(redis_url, decode_responses=True) as given:
            store = RedisStore(client=given, key_prefix=redis_prefix, clock=ManualClock())
            execution_id = store.create_context("a", "č", session_id="s", first_ring=timedelta(0)).execution_id
            assert [item.execution_id for item in store.find(Query(session_id="s")).items] == [execution_id]
            assert [due.execution_id for due in store.take_due(1, MINUTE)] == [execution_id]
            assert store.clear() == 1
            store.close()
            assert given.ping()
            assert given.get_retry() != no_retry()

    def test_either_a_url_or_a_client(self) -> None:
        with pytest.raises(InvalidRecord):
            RedisStore()


def _use_everything(store: RedisStore) -> None:
    """Calls every primitive, on the ways that write most."""
    new = NewExecution(agent_id="a", session_id="s", user_id="u", idempotency_key="k", first_ring=timedelta(0))
    execution_id = store.create(new).execution_id
    store.create(new)
    store.take_due(10, timedelta(0))
    store.mark_rung([(execution_id, 0)], timedelta(0), MINUTE)
    lease = claimed(store, execution_id)
    store.checkpoint(execution_id, everything(), lease)
    store.checkpoint(execution_id, Checkpoint(facts=(1,)), lease)
    store.checkpoint(execution_id, Checkpoint(messages=(Message(role="u", content="", timestamp=NOW),)), lease)
    store.renew([lease], MINUTE)
    store.find_leases("host")
    store.checkpoint(execution_id, paused(), lease)
    store.send(execution_id, answer())
    lease = claimed(store, execution_id)
    store.checkpoint(execution_id, Checkpoint(consumed=("s1",)), lease)
    store.send(execution_id, Signal(signal_id="c", kind=SignalKind.CANCEL))
    store.release(lease)
    lease = claimed(store, execution_id)
    store.checkpoint(execution_id, Checkpoint(state=AgentState.FAILED, announce_within=MINUTE), lease)
    store.settle(execution_id)
    store.find_ended(LATER)
    store.requeue(execution_id)
    store.get_context(execution_id)
    store.find(Query(session_id="s", states=[AgentState.IDLE]))
    store.get_by_idempotency_key("a", "k")
    store.get_audit(execution_id)
    exported = store.export(execution_id)
    assert exported is not None
    store.tidy()
    store.delete_context(execution_id)
    assert store.restore(exported)
    store.update_state(execution_id, AgentState.CANCELLED)
    place = store.export(execution_id).place  # type: ignore[union-attr]
    assert store.drop_archived(execution_id, place)
    store.purge(execution_id)
    stranger = exported_from_elsewhere("k")
    assert store.restore(stranger)
    assert store.create(new).execution_id == stranger.execution_id
    store.purge(stranger.execution_id)
    live_documents(store.documents)


def _recorded(raw: redis.Redis, action: object) -> list[tuple[bool, list[str]]]:
    """The commands that the server runs during an action: whether a script sent it, and its words."""
    assert callable(action)
    commands: list[tuple[bool, list[str]]] = []
    with raw.monitor() as monitor:
        action()
        raw.echo("recorded")
        for entry in monitor.listen():
            words = entry["command"].split(" ")  # recorded keys contain no space; the script's text is not recorded
            if words == ["ECHO", "recorded"]:
                return commands
            if words[0].upper() not in ("CLIENT", "HELLO", "SELECT", "PING"):
                commands.append((entry["client_type"] == "lua", words))
    raise AssertionError


class _Deaf(socketserver.ThreadingTCPServer):
    """A server that greets, and hangs up as soon as it gets a script, which it counts."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _DeafHandler)
        self.scripts = 0
        self.port: int = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> "_Deaf":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _DeafHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while line := self.rfile.readline():
            if line.startswith(b"*"):
                for number in range(int(line[1:])):
                    size = int(self.rfile.readline()[1:])
                    word = self.rfile.read(size + 2)[:-2]
                    if number == 0 and word == b"EVALSHA":
                        assert isinstance(self.server, _Deaf)
                        self.server.scripts += 1
                        return
                self.wfile.write(b"+PONG\r\n" if word == b"PING" else b"+OK\r\n")
