"""What a claim of a long execution costs: against fetching the same texts with the raw client and `json.loads` of each.

The memory is that of Python's objects, traced while one execution is claimed.
"""

import json
import sqlite3
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, TypeAlias, cast

import psycopg
import redis

from agent_statestore import Store, open_store
from agent_statestore.memory import MemoryStore
from agent_statestore.redis import RedisStore
from agent_statestore.redis.keys import Keys
from agent_statestore.sql import SQLStore
from benchmarks.executing import LEASE, OWNER, payload, prefilled
from benchmarks.measuring import Turn, take_turns
from benchmarks.report import Table, Value
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from tests.services import mariadb
from tests.services.postgresql import driver_url

STEP_BYTES = 2048

# Fetches the texts of an execution's steps.
Fetch: TypeAlias = Callable[[str], list[str | bytes]]


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure claims of an execution with many steps, which hold its whole context."""
    output, steps = payload(STEP_BYTES), sizes.resume_steps
    turns: dict[str, Turn] = {}
    kept: dict[str, tuple[float, float]] = {}
    urls = servers.store_urls()
    with ExitStack() as stack:
        for name, url in urls.items():
            store = stack.enter_context(open_store(url))
            execution_id = prefilled(store, steps, output)
            fetch = raw_fetch(store, url, stack)
            turns[f"{name} raw"] = partial(_raw_turn, fetch, execution_id)
            turns[f"{name} claim"] = partial(_claim_turn, store, execution_id)
            payload_bytes = sum(len(text) for text in fetch(execution_id))
            kept[name] = tuple(size / payload_bytes for size in memory_of_claim(store, execution_id))  # type: ignore[assignment]
        measured = take_turns(turns, 3 * sizes.resume_rounds)
    rows: list[dict[str, Value]] = [
        {
            "store": name,
            "fetch and json.loads, ms": measured.median(f"{name} raw") * 1e3,
            "claim, ms": measured.median(f"{name} claim") * 1e3,
            "claim / raw": measured.ratio(f"{name} claim", f"{name} raw"),
            "memory kept / payload": kept[name][0],
            "at most / payload": kept[name][1],
        }
        for name in urls
    ]
    table = Table(
        name="loading",
        title=f"Loading: a claim of {steps} steps of 2 KB",
        note="Raw: fetch the texts of the steps with the bare client, json.loads of each. Memory: of Python objects.",
        rows=rows,
    )
    return [table]


def memory_of_claim(store: Store, execution_id: str) -> tuple[int, int]:
    """Return how many bytes of Python's objects a claim leaves, and how many it had at most."""
    _claim_turn(store, execution_id)  # connects, prepares
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        claim = store.claim(execution_id, OWNER, LEASE)
        after, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert claim is not None
    store.release(claim.lease)
    return after - before, most - before


def raw_fetch(store: Store, url: str, stack: ExitStack) -> Fetch:
    """Return what fetches the texts with the bare client; from the store in memory they are only listed."""
    if isinstance(store, MemoryStore):
        return lambda execution_id: [step.text for step in store._executions[execution_id].steps]
    if isinstance(store, RedisStore):
        address, _, prefix = url.partition("?key_prefix=")
        client: Any = stack.enter_context(closing(redis.Redis.from_url(address)))
        return lambda execution_id: cast(list[str | bytes], client.lrange(Keys(prefix).own(execution_id)[1], 0, -1))
    assert isinstance(store, SQLStore)
    address, table = url.partition("?")[0], store._settings.tables.steps
    mark = "?" if url.startswith("sqlite") else "%s"
    query = f"SELECT data FROM {table} WHERE execution_id = {mark} ORDER BY step_number"
    connection: Any
    if url.startswith("sqlite"):
        connection = sqlite3.connect(address.removeprefix("sqlite:///"), isolation_level=None)
    elif url.startswith("postgresql"):
        connection = psycopg.connect(driver_url(address), autocommit=True)
    else:
        connection = mariadb.connect(address)
        connection.autocommit(True)
    stack.callback(connection.close)

    def fetch(execution_id: str) -> list[str | bytes]:
        cursor = connection.cursor()
        cursor.execute(query, (execution_id,))
        return [text for (text,) in cursor.fetchall()]

    return fetch


def _raw_turn(fetch: Fetch, execution_id: str) -> list[float]:
    started = time.perf_counter()
    loaded = [json.loads(text) for text in fetch(execution_id)]
    taken = time.perf_counter() - started
    del loaded
    return [taken]


def _claim_turn(store: Store, execution_id: str) -> list[float]:
    started = time.perf_counter()
    claim = store.claim(execution_id, OWNER, LEASE)
    taken = time.perf_counter() - started
    assert claim is not None
    store.release(claim.lease)
    return [taken]
