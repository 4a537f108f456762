"""The test servers themselves: they start, restart at the same place, survive a kill, and go away."""

import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import psycopg
import pytest
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.cluster import RedisCluster as ClusterClient
from redis.retry import Retry

from agent_statestore import open_store
from tests.services.machine import scaled
from tests.services.mariadb import MariaDBServer, connect, fresh_mariadb_database
from tests.services.postgresql import PostgresServer, driver_url, with_database
from tests.services.process import absent
from tests.services.redis import RedisServer, RedisTLSServer, find_redis
from tests.services.redis_cluster import RedisCluster
from tests.services.redis_sentinel import RedisSentinel

ROOT = Path(__file__).parents[2]


def ask_redis(server: RedisServer, command: str) -> str:
    with socket.create_connection(("127.0.0.1", server.port or 0), timeout=5) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(1024).decode()


def ask_mariadb(url: str, question: str) -> tuple[object, ...] | None:
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchone()


def cluster_client(url: str) -> ClusterClient:
    nodes = [address.split(":") for address in url.removeprefix("redis+cluster://").split(",")]
    return ClusterClient(startup_nodes=[ClusterNode(host, int(port)) for host, port in nodes], decode_responses=True)


def test_a_durable_redis_keeps_its_data_across_a_kill_and_a_restart(redis_server: RedisServer) -> None:
    url = redis_server.url
    assert ask_redis(redis_server, "SET key value") == "+OK\r\n"
    redis_server.kill()
    redis_server.start()
    redis_server.restart()
    assert redis_server.url == url
    assert ask_redis(redis_server, "GET key") == "$5\r\nvalue\r\n"


def test_a_durable_postgresql_keeps_its_data_across_a_kill_and_a_restart(postgresql_server: PostgresServer) -> None:
    url = postgresql_server.url
    with psycopg.connect(driver_url(url), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    postgresql_server.kill()
    postgresql_server.start()
    postgresql_server.restart()
    assert postgresql_server.url == url
    with psycopg.connect(driver_url(url)) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (1,)


def test_a_durable_mariadb_keeps_its_data_across_a_kill_and_a_restart(mariadb_server: MariaDBServer) -> None:
    url = mariadb_server.url
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 1 AS number")
    mariadb_server.kill()
    mariadb_server.start()
    mariadb_server.restart()
    assert mariadb_server.url == url
    assert ask_mariadb(url, "SELECT number FROM kept") == (1,)


def test_a_redis_that_speaks_tls_is_trusted_with_its_own_authority_only(redis_tls_server: RedisTLSServer) -> None:
    url = redis_tls_server.url
    with Redis.from_url(url) as client:
        client.set("key", "value")
    redis_tls_server.kill()
    redis_tls_server.start()
    with Redis.from_url(url) as client:
        assert client.get("key") == b"value"
    with (
        Redis.from_url(url.partition("?")[0], retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(RedisConnectionError, match="certificate verify failed"),
    ):
        stranger.ping()


def test_valkey_is_valkey(valkey_url: str) -> None:
    with Redis.from_url(valkey_url.replace("valkey://", "redis://")) as client:
        assert client.info("server")["server_name"] == "valkey"


def test_a_cluster_spreads_keys_over_three_masters(redis_cluster_url: str) -> None:
    with cluster_client(redis_cluster_url) as client:
        assert len(client.get_primaries()) == 3
        keys = [f"{uuid.uuid4().hex}:{number}" for number in range(30)]
        for key in keys:
            client.set(key, key)
        assert [client.get(key) for key in keys] == keys
        assert len({client.get_node_from_key(key).port for key in keys}) == 3


def test_a_cluster_promotes_the_replica_of_a_killed_master(redis_cluster: RedisCluster) -> None:
    with cluster_client(redis_cluster.url) as client:
        client.set("key", "value")
        (replica,) = redis_cluster.replicas_of(redis_cluster.master_of("key"))
        client.wait(1, 5000, target_nodes=client.get_node_from_key("key"))
    killed = redis_cluster.kill_master_of("key")
    redis_cluster.wait_until_healthy()
    assert redis_cluster.master_of("key") is replica
    with cluster_client(redis_cluster.url) as client:
        assert client.get("key") == "value"
        client.set("key", "newer")
    redis_cluster.restart(killed)
    redis_cluster.wait_until_healthy()
    assert redis_cluster.replicas_of(replica) == [killed]
    redis_cluster.restart(replica)
    redis_cluster.wait_until_healthy()
    with cluster_client(redis_cluster.url) as client:
        assert client.get("key") == "newer"


def test_sentinels_promote_the_replica_of_a_killed_master(redis_sentinel: RedisSentinel) -> None:
    _, replica = redis_sentinel.servers
    with Redis.from_url(redis_sentinel.master.url) as client:
        client.set("key", "value")
        assert client.wait(1, 5000) == 1
    killed = redis_sentinel.kill_master()
    redis_sentinel.wait_until_healthy()
    assert redis_sentinel.master is replica
    with Redis.from_url(replica.url) as client:
        assert client.get("key") == b"value"
    killed.start()
    redis_sentinel.wait_until_healthy()
    replica.restart()
    redis_sentinel.wait_until_healthy()
    assert ask_redis(redis_sentinel.master, "GET key") == "$5\r\nvalue\r\n"


def test_a_closed_server_leaves_no_process_and_no_folder(redis_server: RedisServer) -> None:
    pid, folder = redis_server.pid, redis_server.folder
    redis_server.close()
    assert not psutil.pid_exists(pid)
    assert not Path(folder).exists()


def test_a_server_ends_with_the_process_that_started_it_even_if_that_is_killed() -> None:
    binary = find_redis()
    if binary is None:
        absent("Redis", "its binary is needed here")
    program = f"""
import os, signal
from tests.services.redis import RedisServer
server = RedisServer({binary!r}).start()
print(server.pid, server.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=scaled(60), check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pid, folder = killed.stdout.split()
    deadline = time.monotonic() + 20
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(folder).exists()
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE


def test_each_test_gets_an_empty_database(postgresql_database_url: str) -> None:
    with psycopg.connect(driver_url(postgresql_database_url)) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (0,)


def test_a_migrated_database_is_ready_for_use(postgresql_migrated_url: str) -> None:
    with open_store(postgresql_migrated_url) as store:
        store.check()
        assert store.find().items == ()


def test_postgresql_18_is_ready_for_use_too(postgresql18_migrated_url: str) -> None:
    with psycopg.connect(driver_url(postgresql18_migrated_url)) as connection:
        assert connection.info.server_version // 10_000 == 18
    with open_store(postgresql18_migrated_url) as store:
        store.check()


def test_each_test_gets_an_empty_mariadb_database(mariadb_database_url: str) -> None:
    tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = database()"
    assert ask_mariadb(mariadb_database_url, tables) == (0,)
    assert ask_mariadb(mariadb_database_url, "SELECT @@character_set_database") == ("utf8mb4",)


def test_a_mariadb_database_is_dropped_although_a_transaction_is_open_in_it(mariadb_url: str) -> None:
    with fresh_mariadb_database(mariadb_url) as url:
        left_open = connect(url)
        cursor = left_open.cursor()
        cursor.execute("CREATE TABLE held (number INT)")
        left_open.begin()
        cursor.execute("SELECT * FROM held")
    left_open.close()
    name = url.rpartition("/")[2]
    assert ask_mariadb(
        mariadb_url, f"SELECT count(*) FROM information_schema.schemata WHERE schema_name = '{name}'"
    ) == (0,)


def test_the_database_of_a_url_is_replaced_and_its_parameters_stay() -> None:
    assert with_database("postgresql+psycopg://u:p@h:1/a?x=/y", "b") == "postgresql+psycopg://u:p@h:1/b?x=/y"
    assert with_database("postgresql+psycopg://u@h", "b") == "postgresql+psycopg://u@h/b"
