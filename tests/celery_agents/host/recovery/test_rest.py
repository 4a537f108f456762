"""A real worker that has nothing to do, and the calls that it makes to a real store."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from tests.celery_agents.their_workers import worker
from tests.services.commands import Command
from tests.services.postgresql import driver_url
from tests.services.redis import RedisServer

AT_REST = {"AGENTS_WATCH_SECONDS": "1", "AGENTS_SWEEP_SECONDS": "5"}  # the defaults
WINDOW_SECONDS = 15.0
A_SECOND = 2.0


@contextmanager
def resting(tmp_path: Path, url: str, name: str) -> Iterator[Command]:
    """A worker that has just started, and finds nothing to do."""
    (tmp_path / "their_agents.py").write_text("")
    with worker(tmp_path, "-P solo", log=f"{name}.log", AGENTS_STORE_URL=url, **AT_REST) as running:
        yield running


def rate_of(calls: Callable[[], int]) -> float:
    """Calls a second."""
    before, since = calls(), time.monotonic()
    time.sleep(WINDOW_SECONDS)
    return (calls() - before) / (time.monotonic() - since)


def test_on_redis_it_makes_at_most_two_calls_a_second(tmp_path: Path, redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as raw, resting(tmp_path, redis_server.url, "redis"):

        def calls() -> int:
            stats = raw.info("commandstats")
            # What a script calls is counted by name as well, but no script calls a script.
            return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha", "ping"))

        assert 0 < rate_of(calls) <= A_SECOND


@pytest.mark.full
def test_on_postgresql_it_makes_at_most_two_calls_a_second(tmp_path: Path, postgresql_migrated_url: str) -> None:
    name = postgresql_migrated_url.partition("?")[0].rpartition("/")[2]
    other = driver_url(postgresql_migrated_url).replace(name, "postgres")  # which is not counted
    with psycopg.connect(other, autocommit=True) as raw, resting(tmp_path, postgresql_migrated_url, "postgresql"):

        def calls() -> int:
            row = raw.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = %s", (name,)).fetchone()
            assert row is not None
            return int(row[0])

        assert 0 < rate_of(calls) <= A_SECOND
