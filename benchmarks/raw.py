"""The least that a step can cost: the raw clients make a checkpoint's writes, and nothing else.

Each client appends one text and updates the header of its execution, atomically: in one round trip on Redis and
PostgreSQL, in one transaction on SQLite, and in one transaction of three round trips on MariaDB. No lease is checked,
nothing is encoded, and the tables have no foreign keys and no further indexes.
"""

import sqlite3
import time
from typing import Any, Protocol
from uuid import uuid4

import psycopg
import redis

from tests.services import mariadb
from tests.services.postgresql import driver_url

_APPEND = """
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'checkpoint_id', ARGV[2], 'step_count', ARGV[1], 'updated_us', ARGV[3])
redis.call('RPUSH', KEYS[2], ARGV[4])
return 'OK'
"""

_CTE = """
WITH head AS (
    UPDATE raw_headers SET version = version + 1, step_count = %(number)s, checkpoint_id = %(checkpoint)s,
        updated_us = CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)
    WHERE execution_id = %(execution)s RETURNING execution_id
)
INSERT INTO raw_steps (execution_id, step_number, data) SELECT execution_id, %(number)s, %(text)s FROM head
"""

_HEADERS = """
CREATE TABLE IF NOT EXISTS raw_headers (
    execution_id text PRIMARY KEY, version bigint, step_count integer, checkpoint_id text, updated_us bigint
)
"""

_STEPS = """
CREATE TABLE IF NOT EXISTS raw_steps (
    execution_id text, step_number integer, data text, PRIMARY KEY (execution_id, step_number)
)
"""


class RawWriter(Protocol):
    """Writes one execution at a time."""

    def begin(self) -> None:
        """Begin a new execution."""
        ...

    def write(self, number: int, text: str) -> None:
        """Write step `number` durably."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class RawRedis:
    """EVALSHA with redis-py."""

    def __init__(self, url: str) -> None:
        self._client: Any = redis.Redis.from_url(url)
        self._sha = self._client.script_load(_APPEND)
        self.begin()

    def begin(self) -> None:
        execution = uuid4().hex
        self._header, self._steps = f"raw:header:{execution}", f"raw:steps:{execution}"

    def write(self, number: int, text: str) -> None:
        now_us = time.time_ns() // 1000
        self._client.evalsha(self._sha, 2, self._header, self._steps, number, uuid4().hex, now_us, text)

    def close(self) -> None:
        self._client.close()


class RawPostgreSQL:
    """A writable CTE in autocommit with psycopg, which prepares it."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(driver_url(url).partition("?")[0], autocommit=True)
        for table in (_HEADERS, _STEPS):
            self._connection.execute(table.encode())
        self.begin()

    def begin(self) -> None:
        self._execution = uuid4().hex
        self._connection.execute("INSERT INTO raw_headers VALUES (%s, 0, 0, '', 0)", (self._execution,))

    def write(self, number: int, text: str) -> None:
        values = {"number": number, "checkpoint": uuid4().hex, "execution": self._execution, "text": text}
        self._connection.execute(_CTE, values)

    def close(self) -> None:
        self._connection.close()


class RawSQLite:
    """One transaction with sqlite3, WAL."""

    def __init__(self, path: str, synchronous: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute(f"PRAGMA synchronous={synchronous}")
        for table in (_HEADERS, _STEPS):
            self._connection.execute(table)
        self.begin()

    def begin(self) -> None:
        self._execution = uuid4().hex
        self._connection.execute("INSERT INTO raw_headers VALUES (?, 0, 0, '', 0)", (self._execution,))

    def write(self, number: int, text: str) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "UPDATE raw_headers SET version = version + 1, step_count = ?, checkpoint_id = ?, updated_us = ? "
            "WHERE execution_id = ?",
            (number, uuid4().hex, time.time_ns() // 1000, self._execution),
        )
        connection.execute("INSERT INTO raw_steps VALUES (?, ?, ?)", (self._execution, number, text))
        connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


class RawMariaDB:
    """One transaction with pymysql."""

    def __init__(self, url: str) -> None:
        self._connection = mariadb.connect(url.partition("?")[0])
        with self._connection.cursor() as cursor:
            for table in (_HEADERS, _STEPS):
                cursor.execute(table.replace(" text", " varchar(64)", 1).replace("data text", "data mediumtext"))
        self.begin()
        self._connection.autocommit(False)

    def begin(self) -> None:
        self._execution = uuid4().hex
        with self._connection.cursor() as cursor:
            cursor.execute("INSERT INTO raw_headers VALUES (%s, 0, 0, '', 0)", (self._execution,))
        self._connection.commit()

    def write(self, number: int, text: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(
                "UPDATE raw_headers SET version = version + 1, step_count = %s, checkpoint_id = %s, updated_us = %s "
                "WHERE execution_id = %s",
                (number, uuid4().hex, time.time_ns() // 1000, self._execution),
            )
            cursor.execute("INSERT INTO raw_steps VALUES (%s, %s, %s)", (self._execution, number, text))
        self._connection.commit()

    def close(self) -> None:
        self._connection.close()


def raw_writer(url: str) -> RawWriter | None:
    """Return the raw client for the server behind a store URL; None for the store in memory."""
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme == "redis":
        return RawRedis(url.partition("?")[0])
    if scheme == "postgresql":
        return RawPostgreSQL(url)
    if scheme == "mysql":
        return RawMariaDB(url)
    if scheme == "sqlite":
        path, _, option = url.removeprefix("sqlite:///").partition("?synchronous=")
        return RawSQLite(f"{path}.raw", option)
    return None
