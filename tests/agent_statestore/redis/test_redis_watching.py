"""Watches on Redis: woken by the server, at once and without looking, across restarts and fail-overs."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import redis

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.contract.watch import PollingWatch, Watch
from agent_statestore.errors import StoreUnavailable
from agent_statestore.opening import open_store
from agent_statestore.redis import RedisStore, watching
from agent_statestore.redis.servers.listening import Silence
from agent_statestore.redis.watching import RedisWatch
from agent_statestore.states import AgentState
from agent_statestore.testing.kit.builders import (
    TTL,
    answer,
    cancel,
    claim,
    claimed,
    create,
    done,
    event,
    message,
    pause,
)
from agent_statestore.testing.kit.stories import export_of
from tests.services.commands import wait_until
from tests.services.redis import RedisServer
from tests.services.redis_cluster import RedisCluster
from tests.services.redis_sentinel import RedisSentinel

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


def listening(raw: redis.Redis) -> int:
    """How many connections the server has that listen to channels."""
    return len(raw.client_list(_type="pubsub"))


def drain(watch: Watch) -> None:
    """Waits for what is still on its way."""
    while watch.wait(0.1):
        pass


def wake_until(watch: Watch, has_come: Callable[[], bool], seconds: float = FAIL_OVER_SECONDS) -> None:
    """Waits as a client does whose server comes and goes."""
    give_up_at = time.monotonic() + seconds
    while True:
        try:
            if has_come():
                return
            watch.wait(1.0)
        except StoreUnavailable:
            time.sleep(0.05)
        assert time.monotonic() < give_up_at


class TestWaking:
    def test_every_write_wakes_once_and_at_once(self, store: RedisStore) -> None:
        execution_id = create(store)
        with store.watch(execution_id) as watch:
            lease = claim(store, execution_id).lease
            writes: list[Callable[[], object]] = [
                lambda: None,
                lambda: store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease),
                lambda: store.checkpoint(execution_id, Checkpoint(messages=(message("x"),)), lease),
                lambda: store.checkpoint(execution_id, pause(), lease),
                lambda: store.send(execution_id, event()),
                lambda: store.send(execution_id, answer()),
                lambda: store.release(claim(store, execution_id).lease),
                lambda: store.send(execution_id, cancel()),
                lambda: store.update_state(execution_id, AgentState.FAILED),
                lambda: store.requeue(execution_id),
                lambda: store.purge(execution_id),
            ]
            for write in writes:
                write()
                began = time.monotonic()
                assert watch.wait(LONG_SECONDS) is True
                assert time.monotonic() - began < AT_ONCE_SECONDS
                drain(watch)

    def test_what_changes_nothing_does_not_wake(self, store: RedisStore) -> None:
        execution_id, lease = claimed(store)
        other = create(store)
        change = Checkpoint(steps=(done(1),))
        store.checkpoint(execution_id, change, lease)
        with store.watch(execution_id) as watch:
            store.checkpoint(execution_id, change, lease)
            store.renew([lease], TTL)
            store.get_context(execution_id)
            store.export(execution_id)
            store.checkpoint(other, change)
            assert watch.wait(0.1) is False

    def test_a_waiting_thread_wakes_within_milliseconds(self, store: RedisStore) -> None:
        execution_id = create(store)
        woken: list[float] = []
        with store.watch(execution_id) as watch:

            def look() -> None:
                assert watch.wait(LONG_SECONDS) is True
                woken.append(time.monotonic())

            delays = []
            for _ in range(5):
                thread = threading.Thread(target=look)
                thread.start()
                time.sleep(0.05)
                store.add_message(execution_id, "user", "x")
                written = time.monotonic()
                thread.join()
                delays.append(woken.pop() - written)
                drain(watch)
        assert sorted(delays)[2] < AT_ONCE_SECONDS

    def test_waiting_sends_nothing(self, redis_server: RedisServer) -> None:
        with (
            RedisStore(redis_server.url) as store,
            redis.Redis.from_url(redis_server.url, decode_responses=True) as raw,
            store.watch(create(store)) as watch,
            raw.monitor() as monitor,
        ):
            raw.echo("begin")
            for _ in range(5):
                assert watch.wait(0.1) is False
            raw.echo("end")
            commands = (entry["command"] for entry in monitor.listen())
            assert "ECHO begin" in commands
            assert next(commands) == "ECHO end"

    def test_many_messages_are_one_waking(self, store: RedisStore) -> None:
        execution_id = create(store)
        with store.watch(execution_id) as watch:
            for number in range(500):
                store.add_message(execution_id, "user", number)
            time.sleep(0.05)
            assert watch.wait(LONG_SECONDS) is True
            assert watch.wait(0.0) is False

    def test_an_expiry_wakes_when_it_is_tidied(self, redis_url: str, redis_prefix: str) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix, completed_ttl=timedelta(milliseconds=1)) as store:
            execution_id = create(store)
            store.update_state(execution_id, AgentState.COMPLETED)
            wait_until("it has expired", lambda: store.get_summary(execution_id) is None)
            with store.watch(execution_id) as watch:
                assert store.tidy() == 1
                assert watch.wait(LONG_SECONDS) is True

    def test_clearing_wakes(self, store: RedisStore) -> None:
        with store.watch(create(store)) as watch:
            store.clear()
            assert watch.wait(LONG_SECONDS) is True

    @pytest.mark.parametrize("protocol", [2, 3])
    @pytest.mark.parametrize("decode_responses", [False, True])
    def test_with_the_settings_of_any_client(
        self, redis_url: str, redis_prefix: str, protocol: int, decode_responses: bool
    ) -> None:
        client = redis.Redis.from_url(redis_url, protocol=protocol, decode_responses=decode_responses)
        with client, RedisStore(client=client, key_prefix=redis_prefix) as store:
            execution_id = create(store)
            with store.watch(execution_id) as watch:
                assert isinstance(watch, RedisWatch)
                assert watch.wait(0.05) is False
                for _ in range(2):
                    store.add_message(execution_id, "user", "x")
                    assert watch.wait(LONG_SECONDS) is True
            store.clear()


class TestConnections:
    def test_two_hundred_watches_of_one_process(self, store: RedisStore, raw: redis.Redis) -> None:
        before = listening(raw)
        ids = [create(store) for _ in range(200)]
        watches = [store.watch(execution_id) for execution_id in ids]
        assert listening(raw) == before + 200
        with ThreadPoolExecutor(200) as pool:
            waiting = [pool.submit(watch.wait, LONG_SECONDS) for watch in watches]
            for execution_id in ids:
                store.add_message(execution_id, "user", "x")
            assert [each.result() for each in waiting] == [True] * 200
        for watch in watches:
            watch.close()
        wait_until("the server has closed the connections", lambda: listening(raw) == before)

    def test_a_closed_connection_serves_others_afterwards(self, store: RedisStore, raw: redis.Redis) -> None:
        execution_id = create(store)
        before = len(raw.client_list())
        for _ in range(20):
            with store.watch(execution_id) as watch:
                store.add_message(execution_id, "user", "x")
                assert watch.wait(LONG_SECONDS) is True
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda _: store.get_summary(execution_id), range(100)))
        assert len(raw.client_list()) <= before + 8

    def test_a_failed_subscription_leaves_no_connection(
        self, store: RedisStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        execution_id = create(store)
        before = len(raw.client_list())
        for _ in range(3):
            with monkeypatch.context() as patch:
                patch.setattr(watching._Subscription, "_listen", lambda *_: raw.execute_command("NONSENSE"))
                with pytest.raises(StoreUnavailable):
                    store.watch(execution_id)
        wait_until("the server has closed the connections", lambda: len(raw.client_list()) == before)

    def test_a_user_without_channels_looks_in_intervals(
        self, redis_url: str, redis_prefix: str, raw: redis.Redis
    ) -> None:
        name = redis_prefix.strip(":").replace(":", "-")
        raw.execute_command("ACL", "SETUSER", name, "on", ">secret", "~*", "resetchannels", "+@all")
        url = redis_url.replace("://", f"://{name}:secret@")
        try:
            with RedisStore(url, key_prefix=redis_prefix) as store:
                execution_id, lease = claimed(store)
                with store.watch(execution_id) as watch:
                    assert isinstance(watch, PollingWatch)
                    store.checkpoint(execution_id, Checkpoint(steps=(done(1),), state=AgentState.COMPLETED), lease)
                assert export_of(store, execution_id).place == (1, 1, 3)
                store.clear()
        finally:
            raw.acl_deluser(name)

    def test_a_closed_store_does_not_leave_a_watch_deaf(self, redis_url: str, redis_prefix: str) -> None:
        with RedisStore(redis_url, key_prefix=redis_prefix) as other:
            store = RedisStore(redis_url, key_prefix=redis_prefix)
            execution_id = create(store)
            with store.watch(execution_id) as watch:
                store.close()
                assert watch.wait(LONG_SECONDS) is True
                other.add_message(execution_id, "user", "x")
                assert watch.wait(LONG_SECONDS) is True
            other.clear()


class TestLostServers:
    @pytest.mark.parametrize("how", ["kill", "restart"])
    def test_a_restart(self, redis_server: RedisServer, how: str) -> None:
        with RedisStore(redis_server.url) as store:
            execution_id = create(store)
            with store.watch(execution_id) as watch:
                if how == "kill":
                    redis_server.kill()
                    for _ in range(2):
                        with pytest.raises(StoreUnavailable):
                            watch.wait(LONG_SECONDS)
                    redis_server.start()
                else:
                    redis_server.restart()
                began = time.monotonic()
                assert watch.wait(LONG_SECONDS) is True
                assert time.monotonic() - began < 1
                assert watch.wait(0.1) is False
                store.add_message(execution_id, "user", "x")
                assert watch.wait(LONG_SECONDS) is True

    def test_a_connection_that_the_server_drops(self, store: RedisStore, raw: redis.Redis) -> None:
        execution_id = create(store)
        with store._connection.at(b"") as client:
            connections = client.connection_pool._in_use_connections
        before = len(connections)
        with store.watch(execution_id) as watch, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(watch.wait, LONG_SECONDS)
            time.sleep(0.05)
            raw.client_kill_filter(_type="pubsub")
            assert waiting.result() is True
            store.add_message(execution_id, "user", "x")
            assert watch.wait(LONG_SECONDS) is True
        assert len(connections) == before

    def test_a_silent_server_is_asked_and_given_up(
        self, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(f"{Silence.__module__}._SILENCE_SECONDS", 0.1)
        monkeypatch.setattr(f"{Silence.__module__}._ANSWER_SECONDS", 0.5)
        with RedisStore(f"{redis_server.url}?socket_timeout=1&socket_connect_timeout=1") as store:
            execution_id = create(store)
            with store.watch(execution_id) as watch:
                assert watch.wait(0.5) is False  # it answers, several times
                redis_server.pause()
                try:
                    began = time.monotonic()
                    with pytest.raises(StoreUnavailable):
                        watch.wait(60)
                    assert time.monotonic() - began < LONG_SECONDS
                finally:
                    redis_server.go_on()
                assert watch.wait(LONG_SECONDS) is True
                store.add_message(execution_id, "user", "x")
                assert watch.wait(LONG_SECONDS) is True

    def test_nobody_there(self) -> None:
        with RedisStore("redis://127.0.0.1:1/0") as store, pytest.raises(StoreUnavailable):
            store.watch("x")

    def test_a_fail_over_by_sentinel(self, redis_sentinel: RedisSentinel) -> None:
        with open_store(redis_sentinel.url) as store:
            execution_id = create(store)
            redis_sentinel.wait_until_healthy()
            with store.watch(execution_id) as watch:
                redis_sentinel.kill_master()
                wake_until(watch, lambda: store.get_summary(execution_id) is not None)
                self.assert_wakes(store, watch, execution_id)

    def test_a_fail_over_in_a_cluster(self, redis_cluster: RedisCluster) -> None:
        with open_store(redis_cluster.url) as store:
            assert isinstance(store, RedisStore)
            execution_id = create(store)
            with store.watch(execution_id) as watch:
                redis_cluster.kill_master_of(store._keys.header(execution_id))
                wake_until(watch, lambda: store.get_summary(execution_id) is not None)
                self.assert_wakes(store, watch, execution_id)

    def assert_wakes(self, store: object, watch: Watch, execution_id: str) -> None:
        """Checks that the watch, after its new beginning, hears of writes and of nothing else."""
        assert isinstance(store, RedisStore)
        wake_until(watch, lambda: not watch.wait(0.5))
        store.add_message(execution_id, "user", "x")
        assert watch.wait(LONG_SECONDS) is True
        drain(watch)
        assert watch.wait(0.2) is False


class TestClusters:
    def test_a_channel_that_moves_takes_its_watch_along(self, redis_cluster: RedisCluster) -> None:
        with open_store(redis_cluster.url) as store, open_store(redis_cluster.url) as other:
            assert isinstance(store, RedisStore)
            execution_id = create(store)
            header = store._keys.header(execution_id)
            with store.watch(execution_id) as watch:
                master = redis_cluster.master_of(header)
                (replica,) = redis_cluster.replicas_of(master)
                with replica.client() as client:
                    client.execute_command("CLUSTER", "FAILOVER")
                wait_until("the replica has taken over", lambda: redis_cluster.master_of(header) is replica)
                assert watch.wait(LONG_SECONDS) is True
                wake_until(watch, lambda: not watch.wait(0.5))
                other.add_message(execution_id, "user", "x")
                assert watch.wait(LONG_SECONDS) is True

    @pytest.mark.parametrize("times", [1, 2])
    def test_a_watch_that_asks_the_wrong_server_finds_the_right_one(
        self, redis_cluster_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch, times: int
    ) -> None:
        with open_store(f"{redis_cluster_url}?key_prefix={redis_prefix}") as store:
            assert isinstance(store, RedisStore)
            execution_id = create(store)
            topology = store._connection._topology
            right = topology.node_of(store._keys.header(execution_id))
            wrong = [node for node in topology.primaries() if node is not right][:times]
            find = topology.node_of
            monkeypatch.setattr(topology, "node_of", lambda key: wrong.pop() if wrong else find(key))
            if times > 1:
                with pytest.raises(StoreUnavailable):
                    store.watch(execution_id)
            with store.watch(execution_id) as watch:
                store.add_message(execution_id, "user", "x")
                assert watch.wait(LONG_SECONDS) is True
            store.clear()
