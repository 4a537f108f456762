"""Streams on Redis: what a step without events costs, expiry, lost tails, and listeners across restarts."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import redis

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.codec.streams import decode_event
from agent_statestore.contract.streams import StreamListener
from agent_statestore.errors import StoreUnavailable
from agent_statestore.opening import open_store
from agent_statestore.redis import RedisStore
from agent_statestore.redis.servers import listening
from agent_statestore.states import AgentState
from agent_statestore.testing.contract.streams import append, page_of, part_of, values_of
from agent_statestore.testing.kit.builders import cancel, claimed, done, event
from tests.services.redis import RedisServer
from tests.services.redis_cluster import RedisCluster

AT_ONCE_SECONDS = 0.05
LONG_SECONDS = 10.0
FAIL_OVER_SECONDS = 30.0


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def store(redis_url: str, redis_prefix: str) -> Iterator[RedisStore]:
    with RedisStore(redis_url, key_prefix=redis_prefix) as store:
        yield store
        store.clear()


@pytest.fixture
def listener(store: RedisStore) -> Iterator[StreamListener]:
    listener = store.listen_streams()
    yield listener
    listener.close()


def drain(listener: StreamListener) -> None:
    """Waits for what is still on its way."""
    while listener.wait(0.1):
        pass


def listening_to(listener: StreamListener, *execution_ids: str) -> None:
    """Follows these, and waits until the servers have confirmed it."""
    listener.follow(execution_ids)
    missing = set(execution_ids)
    while missing:
        named = listener.wait(LONG_SECONDS)
        assert named
        missing -= named


def named(listener: StreamListener, execution_id: str, seconds: float = FAIL_OVER_SECONDS) -> None:
    """Waits as a hub does whose server comes and goes."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        try:
            if execution_id in listener.wait(1.0):
                return
        except StoreUnavailable:
            time.sleep(0.05)
    raise AssertionError("nobody was told")


class TestWhatItCosts:
    def test_a_step_without_events_does_what_it_did_before_there_were_any(
        self, store: RedisStore, raw: redis.Redis, redis_prefix: str
    ) -> None:
        execution_id, lease = claimed(store)
        append(store, lease, 1, "a")
        for number in (1, 2):  # the server knows the script then
            store.checkpoint(execution_id, Checkpoint(steps=(done(number),)), lease)
        with raw.monitor() as monitor:
            store.checkpoint(execution_id, Checkpoint(steps=(done(3),)), lease)
            raw.echo(redis_prefix)
            commands = []
            for entry in monitor.listen():
                words = entry["command"].split(" ")
                if words[1:] == [redis_prefix]:
                    break
                if redis_prefix in entry["command"] or words[0] == "TIME":
                    commands.append((words[0].upper(), len(words)))
        (_, sent), *rest = commands
        assert sent == 3 + 2 + 7  # two keys, seven arguments
        assert rest == [("HMGET", 2 + 8), ("TIME", 1), ("HSET", 2 + 12), ("RPUSH", 3), ("SPUBLISH", 3)]

    def test_a_large_part_is_taken_whole(self, store: RedisStore) -> None:
        execution_id, lease = claimed(store)
        size = 4_500  # Lua would not pass as many in one call
        append(store, lease, 1, *range(size))
        for times, change in enumerate((Checkpoint(steps=(done(1),)), Checkpoint(working_memory={"k": 1})), 1):
            part = part_of(lease, 1 + times * size, *range(size))
            store.checkpoint(execution_id, replace(change, stream=part), lease)
        found = store.read_streams({execution_id: 0}, 3 * size)[execution_id]
        events = [decode_event(number, text) for number, text in found.events]
        assert [event.seq for event in events] == [*range(1, 3 * size + 1)]
        assert events[-1].number == found.last

    def test_a_step_with_events_is_one_call(self, store: RedisStore, raw: redis.Redis, redis_prefix: str) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),), stream=part_of(lease, 1, "a")), lease)
        with raw.monitor() as monitor:
            store.checkpoint(execution_id, Checkpoint(steps=(done(2),), stream=part_of(lease, 2, "b", "c")), lease)
            raw.echo(redis_prefix)
            calls = 0
            for entry in monitor.listen():
                if entry["command"].endswith(redis_prefix):
                    break
                calls += redis_prefix in entry["command"] and entry["client_type"] != "lua"
        assert calls == 1
        assert values_of(store, execution_id) == ["a", "b", "c"]

    def test_a_long_stream_is_read_on_from_anywhere(self, store: RedisStore) -> None:
        execution_id, lease = claimed(store)
        for first in range(1, 700, 100):
            append(store, lease, first, *range(first, first + 100))
        numbers = [event.number or 0 for event in page_of(store, execution_id).events]
        store.trim_stream(execution_id, 650)
        for after in [0, *range(1, 60), *range(300, 320), *range(640, 700)]:
            cursor = 0 if after == 0 else numbers[after - 1]
            for between in (cursor, cursor + 1 if after and cursor + 1 < numbers[after % 700] else cursor):
                page = page_of(store, execution_id, between, limit=3)
                wanted = range(max(after, 50) + 1, min(max(after, 50) + 3, 700) + 1)
                assert [event.data["value"] for event in page.events] == [*wanted], (after, between)


class TestExpiry:
    def test_a_stream_expires_with_its_execution(self, redis_url: str, redis_prefix: str, raw: redis.Redis) -> None:
        minute = timedelta(minutes=1)
        with RedisStore(redis_url, key_prefix=redis_prefix, default_ttl=minute, completed_ttl=minute) as store:
            execution_id, lease = claimed(store)
            header, events = store._keys.of_stream(execution_id)

            def check(what: str) -> None:
                assert raw.exists(events), what
                assert 0 < raw.pexpiretime(header) == raw.pexpiretime(events), what

            append(store, lease, 1, "a")
            check("append")
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),), stream=part_of(lease, 2, "b")), lease)
            check("step")
            store.trim_stream(execution_id, 0)
            append(store, lease, 3, "c")
            check("after a trim")
            store.renew([lease], minute)
            check("renew")
            store.send(execution_id, event({"n": 1}))
            check("send")
            store.checkpoint(
                execution_id, Checkpoint(state=AgentState.COMPLETED, output=1, stream=part_of(lease, 4, "d")), lease
            )
            check("end")
            exported = store.export(execution_id)
            assert exported is not None
            assert store.purge(execution_id)
            assert not raw.exists(events)
            assert store.restore(exported)
            check("restore")
            store.clear()
            assert not raw.exists(events)

    def test_a_stream_of_an_earlier_execution_with_this_id_is_not_its_own(
        self, store: RedisStore, raw: redis.Redis
    ) -> None:
        execution_id, lease = claimed(store)
        events = store._keys.events(execution_id)
        for write in (
            lambda: append(store, lease, 1, "a"),
            lambda: store.checkpoint(execution_id, Checkpoint(steps=(done(1),), stream=part_of(lease, 1, "a")), lease),
        ):
            raw.rpush(events, 1, "left behind by a version that does not know of streams")
            raw.hdel(store._keys.header(execution_id), "stream_last", "stream_place")
            assert page_of(store, execution_id).events == ()
            write()
            assert values_of(store, execution_id) == ["a"]


class TestDamage:
    def test_a_damaged_stream_is_a_gap_in_it_and_hides_no_other(self, store: RedisStore, raw: redis.Redis) -> None:
        damaged, lease = claimed(store)
        other, second = claimed(store)
        for each in (lease, second):
            append(store, each, 1, "a")
        events = store._keys.events(damaged)
        raw.lset(events, 1, "{")
        assert values_of(store, damaged) == ["gap"]
        raw.delete(events)
        raw.set(events, "no list")
        assert values_of(store, damaged) == ["gap"]
        found = store.read_streams({damaged: 0, other: 0}, 10)
        assert {name: len(stream.events) for name, stream in found.items()} == {damaged: 1, other: 1}
        assert store.read_streams({damaged: found[damaged].last}, 10)[damaged].events == ()
        raw.delete(store._keys.header(damaged))
        raw.set(store._keys.header(damaged), "no hash")
        assert [*store.read_streams({damaged: 0, other: 0}, 10)] == [other]
        assert not append(store, lease, 2, "b")
        assert append(store, second, 2, "b")


class TestLostTail:
    def test_no_number_is_used_again_by_a_server_that_lost_its_last_writes(self, redis_server: RedisServer) -> None:
        redis_server.durable = False
        redis_server.restart()
        with RedisStore(redis_server.url) as store, redis.Redis.from_url(redis_server.url) as raw:
            leases = [claimed(store)[1] for _ in range(3)]
            for lease in leases:
                append(store, lease, 1, *"ab")
            raw.save()
            lost = []
            for lease in leases:
                append(store, lease, 3, *"cd")
                step = Checkpoint(steps=(done(1),), stream=part_of(lease, 5, "e"))
                store.checkpoint(lease.execution_id, step, lease)
                lost.append(page_of(store, lease.execution_id).last)
            redis_server.kill()
            redis_server.start()
            step = Checkpoint(steps=(done(1),), stream=part_of(leases[0], 3, *"cde"))
            store.checkpoint(leases[0].execution_id, step, leases[0])
            append(store, leases[1], 3, *"cde")
            store.send(leases[2].execution_id, cancel())
            # Whoever had read up to the last one that was lost gets all that is written afterwards.
            for lease, last, anew in zip(leases, lost, ([*"cde"], [*"cde"], ["cancel_requested"]), strict=True):
                assert values_of(store, lease.execution_id) == [*"ab", *anew]
                assert values_of(store, lease.execution_id, last) == anew


class TestListener:
    def test_one_connection_for_all_and_each_write_is_told_at_once(
        self, store: RedisStore, listener: StreamListener, raw: redis.Redis
    ) -> None:
        before = len(raw.client_list(_type="pubsub"))
        leases = [claimed(store)[1] for _ in range(30)]
        ids = [lease.execution_id for lease in leases]
        listening_to(listener, *ids)
        assert len(raw.client_list(_type="pubsub")) == before + 1
        for seq, lease in enumerate([*leases, *leases[:3]]):
            append(store, lease, 1 + seq // 30, "x")
            began = time.monotonic()
            assert listener.wait(LONG_SECONDS) == {lease.execution_id}
            assert time.monotonic() - began < AT_ONCE_SECONDS
        for lease in leases[:3]:
            append(store, lease, 3, "y")
        told: set[str] = set()
        while len(told) < 3:
            told |= listener.wait(LONG_SECONDS)
        assert told == {*ids[:3]}
        assert listener.wait(0.05) == frozenset()

    def test_following_and_closing_reach_a_thread_that_waits(self, store: RedisStore, listener: StreamListener) -> None:
        execution_id, lease = claimed(store)
        other, _ = claimed(store)
        listening_to(listener, other)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(listener.wait, LONG_SECONDS)
            time.sleep(0.02)
            began = time.monotonic()
            listener.follow([execution_id])
            assert waiting.result() == {execution_id}
            append(store, lease, 1, "a")
            assert listener.wait(LONG_SECONDS) == {execution_id}
            waiting = pool.submit(listener.wait, LONG_SECONDS)
            time.sleep(0.02)
            listener.close()
            assert waiting.result() == frozenset()
            assert time.monotonic() - began < LONG_SECONDS / 2
        listener.follow([other])
        assert listener.wait(LONG_SECONDS) == frozenset()

    def test_what_is_left_and_followed_again(self, store: RedisStore, listener: StreamListener) -> None:
        execution_id, lease = claimed(store)
        seq = 0
        for pause in (0.0, 0.02) * 2:
            listening_to(listener, execution_id)
            drain(listener)
            append(store, lease, seq := seq + 1, seq)
            assert listener.wait(LONG_SECONDS) == {execution_id}
            listener.unfollow(execution_id)
            assert listener.wait(pause) == frozenset()
            append(store, lease, seq := seq + 1, seq)
            assert listener.wait(pause) == frozenset()
            listener.follow([execution_id])
            listener.unfollow(execution_id)
            assert listener.wait(pause) == frozenset()

    def test_threads_follow_and_leave_while_one_waits(self, store: RedisStore, listener: StreamListener) -> None:
        leases = [claimed(store)[1] for _ in range(8)]
        steady, spoken = leases[0], 50
        listener.follow([steady.execution_id])
        seen: list[int] = [0]
        done_ = threading.Event()

        def read() -> None:
            last = 0
            while len(seen) <= spoken and not done_.is_set():
                if steady.execution_id in listener.wait(LONG_SECONDS):
                    page = page_of(store, steady.execution_id, last)
                    seen.extend(event_.data["value"] for event_ in page.events)  # type: ignore[misc]
                    last = page.last

        def come_and_go(lease: object) -> None:
            execution_id = lease.execution_id  # type: ignore[attr-defined]
            for _ in range(100):
                listener.follow([execution_id])
                listener.unfollow(execution_id)

        with ThreadPoolExecutor(5) as pool:
            reading = pool.submit(read)
            coming = [pool.submit(come_and_go, lease) for lease in leases[1:4]]
            for seq in range(1, spoken + 1):
                append(store, steady, seq, seq)
            try:
                for each in coming:
                    each.result()
                reading.result(LONG_SECONDS)
            finally:
                done_.set()
        assert seen == [*range(spoken + 1)]

    @pytest.mark.parametrize("protocol", [2, 3])
    @pytest.mark.parametrize("decode_responses", [False, True])
    def test_with_the_settings_of_any_client(
        self, redis_url: str, redis_prefix: str, protocol: int, decode_responses: bool
    ) -> None:
        client = redis.Redis.from_url(redis_url, protocol=protocol, decode_responses=decode_responses)
        with client, RedisStore(client=client, key_prefix=redis_prefix) as store:
            execution_id, lease = claimed(store)
            listener = store.listen_streams()
            listening_to(listener, execution_id)
            append(store, lease, 1, "a")
            assert listener.wait(LONG_SECONDS) == {execution_id}
            assert values_of(store, execution_id) == ["a"]
            listener.close()
            store.clear()

    def test_a_user_without_channels_looks_in_intervals(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        name = redis_prefix.strip(":").replace(":", "-")
        raw.execute_command("ACL", "SETUSER", name, "on", ">secret", "~*", "resetchannels", "+@all")
        url = redis_url.replace("://", f"://{name}:secret@")
        before = len(raw.client_list(_type="pubsub"))
        try:
            with RedisStore(url, key_prefix=redis_prefix) as store:
                execution_id, lease = claimed(store)
                other, _ = claimed(store)
                listener = store.listen_streams()
                listener.follow([execution_id])
                for seq in range(1, 4):
                    append(store, lease, seq, "a")
                    assert listener.wait(LONG_SECONDS) == {execution_id}
                listener.follow([other])
                listener.unfollow(execution_id)
                assert listener.wait(LONG_SECONDS) == {other}
                assert len(raw.client_list(_type="pubsub")) == before
                listener.close()
                store.clear()
        finally:
            raw.acl_deluser(name)


class UnshardedServer(RedisServer):
    """A server that knows no sharded channels, as Redis 6."""

    def command(self, port: int) -> list[str]:
        return [*super().command(port), "--rename-command", "SSUBSCRIBE", "", "--rename-command", "SUNSUBSCRIBE", ""]


def test_channels_that_are_not_sharded(redis_server: RedisServer) -> None:
    with UnshardedServer(redis_server.binary) as server, RedisStore(server.start().url) as store:
        ids = [claimed(store)[1].execution_id for _ in range(5)]
        listener = store.listen_streams()
        listener.follow(ids)
        listener.unfollow(ids[4])  # before the server has said that it knows no such command
        listening_to(listener, *ids[:3])
        listener.unfollow(ids[0])
        drain(listener)
        with redis.Redis.from_url(server.url) as raw:
            for execution_id in ids:
                raw.publish(store._keys.header(execution_id), "")  # as the scripts do on such a server
            told: set[str] = set()
            while len(told) < 3:
                told |= listener.wait(LONG_SECONDS)
            assert told == {*ids[1:4]}
            assert listener.wait(0.05) == frozenset()
            assert raw.pubsub_numsub(*[store._keys.header(each) for each in ids])[0][1] == 0
        listener.close()


class TestLostServers:
    @pytest.mark.parametrize("how", ["kill", "restart", "drop"])
    def test_a_server_that_comes_back_is_listened_to_again(self, redis_server: RedisServer, how: str) -> None:
        with RedisStore(redis_server.url) as store, redis.Redis.from_url(redis_server.url) as raw:
            execution_id, lease = claimed(store)
            quiet, _ = claimed(store)
            listener = store.listen_streams()
            listening_to(listener, execution_id, quiet)
            if how == "kill":
                redis_server.kill()
                for _ in range(2):
                    with pytest.raises(StoreUnavailable):
                        listener.wait(LONG_SECONDS)
                redis_server.start()
            elif how == "restart":
                redis_server.restart()
            else:
                raw.client_kill_filter(_type="pubsub")
            told: set[str] = set()
            while told != {execution_id, quiet}:
                told |= listener.wait(LONG_SECONDS)
            drain(listener)
            append(store, lease, 1, "a")
            assert listener.wait(LONG_SECONDS) == {execution_id}
            listener.close()

    def test_a_thread_that_waits_notices_that_the_connection_is_lost(
        self, store: RedisStore, listener: StreamListener, raw: redis.Redis
    ) -> None:
        execution_id, lease = claimed(store)
        listening_to(listener, execution_id)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(listener.wait, LONG_SECONDS)
            time.sleep(0.05)
            raw.client_kill_filter(_type="pubsub")
            assert waiting.result() == {execution_id}
        append(store, lease, 1, "a")
        assert listener.wait(LONG_SECONDS) == {execution_id}

    def test_a_silent_server_is_asked_and_given_up(
        self, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(listening, "_SILENCE_SECONDS", 0.1)
        monkeypatch.setattr(listening, "_ANSWER_SECONDS", 0.5)
        with RedisStore(f"{redis_server.url}?socket_timeout=1&socket_connect_timeout=1") as store:
            execution_id, lease = claimed(store)
            listener = store.listen_streams()
            listening_to(listener, execution_id)
            assert listener.wait(0.5) == frozenset()  # it answers, several times
            redis_server.pause()
            try:
                began = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    listener.wait(60)
                assert time.monotonic() - began < LONG_SECONDS
            finally:
                redis_server.go_on()
            named(listener, execution_id)
            append(store, lease, 1, "a")
            named(listener, execution_id, LONG_SECONDS)
            listener.close()

    def test_nobody_there(self) -> None:
        with RedisStore("redis://127.0.0.1:1/0") as store:
            listener = store.listen_streams()
            listener.follow(["x"])
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    listener.wait(LONG_SECONDS)
            listener.close()

    def test_a_fail_over_in_a_cluster(self, redis_cluster: RedisCluster) -> None:
        with open_store(redis_cluster.url) as store:
            assert isinstance(store, RedisStore)
            leases = [claimed(store)[1] for _ in range(12)]
            ids = [lease.execution_id for lease in leases]
            listener = store.listen_streams()
            listening_to(listener, *ids)
            killed = store._keys.header(ids[0])
            of_others = [
                lease
                for lease in leases
                if store._connection.node_of(store._keys.header(lease.execution_id))
                != store._connection.node_of(killed)
            ]
            redis_cluster.kill_master_of(killed)
            # Those on other servers are told of meanwhile.
            assert of_others
            append(store, of_others[0], 1, "a")
            named(listener, of_others[0].execution_id, 3.0)
            named(listener, ids[0])
            listener_is_quiet(listener)
            for lease in leases:
                append(store, lease, 2 if lease == of_others[0] else 1, "b")
                named(listener, lease.execution_id, LONG_SECONDS)
            listener.close()


def listener_is_quiet(listener: StreamListener) -> None:
    """Waits, as a hub does, until nothing more has come for a while."""
    give_up_at = time.monotonic() + FAIL_OVER_SECONDS
    while time.monotonic() < give_up_at:
        try:
            if not listener.wait(0.5):
                return
        except StoreUnavailable:
            time.sleep(0.05)
    raise AssertionError("it does not come to rest")
