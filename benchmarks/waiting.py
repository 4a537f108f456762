"""The same waits on a slow server in three ways: async agents, plain Celery tasks, and a bare asyncio program.

Use `AGENTS_IMPORTS=benchmarks.waiting` for a worker; the program is `python -m benchmarks.waiting URL SECONDS STEPS
COUNT`.
"""

import asyncio
import http.client
import json
import resource
import sys
import time
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import pydantic
import redis
from celery import shared_task

from celery_agents import AsyncRun, agent

_LOOK_SECONDS: Final = 0.01


class Waits(pydantic.BaseModel):
    """The input: this many requests one after the other, each answered after this many seconds."""

    url: str
    seconds: float
    steps: int


@agent(name="benchmarks.waits", max_steps=1_000_000)
async def waits(run: AsyncRun, input: Waits) -> int:  # noqa: A002 - the field's standard name
    """Take one step for each request."""
    _watch.begin()
    return sum([await run.step("fetch", fetch, f"{input.url}/{input.seconds}") for _ in range(input.steps)])


async def fetch(url: str) -> int:
    """Make one request, with the process's client."""
    async with _client().get(url) as response:
        return len(await response.read())


@shared_task(name="benchmarks.wait")  # type: ignore[untyped-decorator]
def wait(url: str, seconds: float, steps: int, redis_url: str, key: str) -> None:
    """Do the same in the thread of a plain task, which then tells that it is done."""
    server = http.client.HTTPConnection(urlsplit(url).netloc)
    for _ in range(steps):
        server.request("GET", f"/{seconds}")
        server.getresponse().read()
    server.close()
    _redis(redis_url).rpush(key, 1)


@shared_task(name="benchmarks.lags")  # type: ignore[untyped-decorator]
def lags(redis_url: str, key: str) -> None:
    """Tell by how many seconds the event loop was late since it was last asked."""
    _redis(redis_url).rpush(key, json.dumps(_watch.take()))


class _LagWatch:
    """Measures how late the event loop is."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._lags: list[float] = []

    def begin(self) -> None:
        """Begin to look. Called on the loop, any number of times."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look())

    def take(self) -> list[float]:
        """Return what was seen since the last call, in seconds."""
        taken, self._lags = self._lags, []
        return taken

    async def _look(self) -> None:
        while True:
            due = time.perf_counter() + _LOOK_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)
            self._lags.append(max(time.perf_counter() - due, 0.0))


_watch = _LagWatch()
_session: aiohttp.ClientSession | None = None
_clients: dict[str, Any] = {}


def _client() -> aiohttp.ClientSession:
    global _session
    if _session is None:
        _session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    return _session


def _redis(url: str) -> Any:
    if url not in _clients:
        _clients[url] = redis.Redis.from_url(url)
    return _clients[url]


async def _program(url: str, seconds: float, steps: int, count: int) -> dict[str, Any]:
    """Make all requests as coroutines, without anything else."""

    async def one() -> int:
        return sum([await fetch(f"{url}/{seconds}") for _ in range(steps)])

    _watch.begin()
    cpu_before, started = time.process_time(), time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    taken = time.perf_counter() - started
    await _client().close()
    cpu_seconds = time.process_time() - cpu_before
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": taken, "cpu_seconds": cpu_seconds, "rss_bytes": kilobytes * 1024, "lags": _watch.take()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_program(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))))
