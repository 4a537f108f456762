"""Plain Celery tasks to compare executions with; both workers know them."""

import time
from functools import cache
from typing import Any

import redis
from celery import shared_task

from benchmarks.executing import payload
from benchmarks.raw import RawRedis

_TEXT = payload(2048)


@shared_task(name="benchmarks.noop")  # type: ignore[untyped-decorator]
def noop() -> None:
    """Do nothing."""


@shared_task(name="benchmarks.write")  # type: ignore[untyped-decorator]
def write(redis_url: str) -> None:
    """Make one raw write of 2 KB."""
    raw = _raw(redis_url)
    raw.begin()
    raw.write(1, _TEXT)


@shared_task(name="benchmarks.stamp")  # type: ignore[untyped-decorator]
def stamp(redis_url: str, key: str, sent_at: float) -> None:
    """Tell when it began: how many seconds after it was sent."""
    seconds = time.time() - sent_at
    _client(redis_url).rpush(key, seconds)


@cache
def _raw(redis_url: str) -> RawRedis:
    return RawRedis(redis_url)


@cache
def _client(redis_url: str) -> Any:
    return redis.Redis.from_url(redis_url)
