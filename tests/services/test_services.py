"""The test servers themselves: they start, restart at the same place, survive a kill, and go away."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg

from statestore import open_store
from tests.services.postgresql import PostgresServer, driver_url, with_database
from tests.services.process import absent
from tests.services.redis import RedisServer, find_redis

ROOT = Path(__file__).parents[2]


def ask_redis(server: RedisServer, command: str) -> str:
    with socket.create_connection(("127.0.0.1", server.port or 0), timeout=5) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(1024).decode()


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
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
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


def test_the_database_of_a_url_is_replaced_and_its_parameters_stay() -> None:
    assert with_database("postgresql+psycopg://u:p@h:1/a?x=/y", "b") == "postgresql+psycopg://u:p@h:1/b?x=/y"
    assert with_database("postgresql+psycopg://u@h", "b") == "postgresql+psycopg://u@h/b"
