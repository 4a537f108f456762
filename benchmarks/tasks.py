"""Plain Celery tasks to compare executions with; both workers know them."""

import time
from collections.abc import Iterator
from functools import cache
from itertools import count
from typing import Any

import redis
from celery import shared_task

from benchmarks.executing import payload
from benchmarks.raw import RawPostgreSQL, RawRedis, RawWriter

_TEXT = payload(2048)
_STEP = payload(256)


@shared_task(name="benchmarks.noop")  # type: ignore[untyped-decorator]
def noop() -> None:
    """Do nothing."""


@shared_task(name="benchmarks.write")  # type: ignore[untyped-decorator]
def write(redis_url: str) -> None:
    """Make one raw write of 2 KB."""
    raw = _raw(redis_url)
    raw.begin()
    raw.write(1, _TEXT)


@shared_task(name="benchmarks.writes")  # type: ignore[untyped-decorator]
def writes(url: str, count: int) -> None:
    """Make this many raw writes of the size of a small step's checkpoint, to Redis or PostgreSQL."""
    writer, numbers = _writer(url)
    for _ in range(count):
        writer.write(next(numbers), _STEP)


@shared_task(name="benchmarks.stamp")  # type: ignore[untyped-decorator]
def stamp(redis_url: str, key: str, sent_at: float) -> None:
    """Tell when it began: how many seconds after it was sent."""
    tell(redis_url, key, sent_at)


def tell(redis_url: str, key: str, sent_at: float) -> None:
    """Push how many seconds ago that was."""
    seconds = time.time() - sent_at
    _client(redis_url).rpush(key, seconds)


@cache
def _raw(redis_url: str) -> RawRedis:
    return RawRedis(redis_url)


@cache
def _writer(url: str) -> tuple[RawWriter, Iterator[int]]:
    """Return this process's writer, and the numbers of its writes."""
    writer = RawRedis(url) if url.startswith("redis") else RawPostgreSQL(url)
    return writer, count(1)


@cache
def _client(redis_url: str) -> Any:
    return redis.Redis.from_url(redis_url)
