"""The bytes that a store keeps for each byte of payload."""

import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import redis
from sqlalchemy import make_url

from agent_statestore import open_store
from benchmarks.executing import Writer, payload
from benchmarks.report import Table, Value
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from tests.services import mariadb
from tests.services.postgresql import driver_url

STEP_BYTES = 1024


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure the bytes that one execution of many steps of 1 KB stores."""
    output = payload(STEP_BYTES)
    total = STEP_BYTES * sizes.storage_steps
    rows: list[dict[str, Value]] = []
    for name, url in servers.store_urls().items():
        if name in ("memory", "SQLite NORMAL"):
            continue
        with open_store(url) as store:
            Writer(store, output).write()  # the cost of what the first execution makes is not the cost of each one
            before = stored_bytes(url)
            writer = Writer(store, output)
            for _ in range(sizes.storage_steps):
                writer.write()
            stored = stored_bytes(url) - before
        rows.append(
            {
                "store": name,
                "payload, KB": total / 1024,
                "stored, KB": stored / 1024,
                "stored / payload": stored / total,
            }
        )
    table = Table(
        name="storage",
        title=f"Bytes stored, {sizes.storage_steps} steps of 1 KB",
        note=(
            "Redis: MEMORY USAGE of the execution's keys. PostgreSQL: pg_total_relation_size, dead rows included. "
            "MariaDB: pages of tables and indexes. SQLite: the file after a WAL checkpoint."
        ),
        rows=rows,
    )
    return [table]


def stored_bytes(url: str) -> int:
    """Return how many bytes the store at `url` holds now. Other stores on the same server do not count."""
    if url.startswith("redis"):
        server, _, prefix = url.partition("?key_prefix=")
        client: Any = redis.Redis.from_url(server)
        with client:
            keys = list(client.scan_iter(match=f"{prefix}*", count=1000))
            return sum(client.memory_usage(key, samples=0) or 0 for key in keys)
    if url.startswith("postgresql"):
        server, _, prefix = url.partition("?table_prefix=")
        with psycopg.connect(driver_url(server), autocommit=True) as connection:
            row = connection.execute(
                "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class "
                "WHERE relkind = 'r' AND starts_with(relname, %s)",
                (prefix,),
            ).fetchone()
            assert row is not None
            return int(row[0])
    if url.startswith("mysql"):
        server, _, prefix = url.partition("?table_prefix=")
        like = f"`{make_url(url).database}`.`{prefix}%"
        # Count the pages in the buffer pool, which holds all of them: the files grow by whole extents long before these
        # are filled, and the statistics of tables are estimates.
        with mariadb.connect(server) as mariadb_connection, mariadb_connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) * @@innodb_page_size FROM information_schema.INNODB_BUFFER_PAGE "
                "WHERE table_name LIKE %s",
                (like.replace("_", r"\_"),),
            )
            (pages,) = cursor.fetchone() or (0,)
            return int(pages)
    path = Path(url.removeprefix("sqlite:///").partition("?")[0])
    sqlite = sqlite3.connect(path)
    try:
        sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        sqlite.close()
    return path.stat().st_size
