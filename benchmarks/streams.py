"""Streams: what they cost a step, how soon a reader has an event, and whether a provider is slowed."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final

from agent_statestore import NewExecution, Store, open_store
from benchmarks.executing import OWNER, Engine, payload
from benchmarks.measuring import Turn, percentile, take_turns
from benchmarks.report import Table, Value
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from celery_agents.client.follower import StreamFollower
from celery_agents.decorators import agent
from celery_agents.define.registry import Registry
from celery_agents.engine.executor import Defaults
from celery_agents.engine.run.current_run import current_stream
from celery_agents.engine.run.run import Run
from celery_agents.engine.stream.writer import WINDOW_SECONDS, StreamWriter
from celery_agents.lifecycle.assembly import make_executor

_STEP_BYTES: Final = 2048
_TOKENS_PER_SECOND: Final = 200
_LEASE: Final = timedelta(minutes=5)
_FOLLOWED: Final = ("memory", "Redis", "PostgreSQL", "SQLite NORMAL")


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure the cost of a step with a stream, the way of an event to a reader, and the rate of a provider."""
    return [_cost(servers, sizes), _way(servers, sizes), _rate(servers, sizes)]


def _cost(servers: Servers, sizes: Sizes) -> Table:
    output, turns = payload(_STEP_BYTES), dict[str, Turn]()
    urls = servers.store_urls()
    with ExitStack() as stack:
        for name, url in urls.items():
            store = stack.enter_context(open_store(url))
            for label, has_streams in (("without", False), ("with", True)):
                turns[f"{name} {label}"] = partial(
                    Engine(store, output, has_streams=has_streams).take_steps, sizes.calls
                )
        measured = take_turns(turns, sizes.rounds)
    rows: list[dict[str, Value]] = [
        {
            "store": name,
            "without, us": measured.median(f"{name} without") * 1e6,
            "with, us": measured.median(f"{name} with") * 1e6,
            "with / without": measured.ratio(f"{name} with", f"{name} without"),
        }
        for name in urls
    ]
    return Table(
        name="streams_cost",
        title=f"A step of {_STEP_BYTES // 1024} KB, with a stream and without",
        note="Medians of run.step. With: the event of its record rides in the checkpoint; nobody follows.",
        rows=rows,
    )


@contextmanager
def _executing(store: Store, body: Callable[[], Any]) -> Iterator[str]:
    """An execution whose one step is this, in a thread."""
    registry = Registry()

    @agent(name="benchmarks.streams", registry=registry)
    def speaking(run: Run, input: int) -> None:  # noqa: A002 - the field's standard name
        del input
        run.step("speak", body)

    executor = make_executor(store=store, registry=registry, limits=Defaults(lease=_LEASE), streams=StreamWriter(store))
    execution_id = store.create(NewExecution(agent_id="benchmarks.streams", input=0)).execution_id
    worker = threading.Thread(target=executor.execute, args=(execution_id, OWNER))
    worker.start()
    yield execution_id
    worker.join()


def _way(servers: Servers, sizes: Sizes) -> Table:
    rows: list[dict[str, Value]] = []
    for name in _FOLLOWED:
        with open_store(servers.store_url(name)) as store:
            ready = threading.Event()

            def speak(ready: threading.Event = ready) -> None:
                ready.wait()
                for number in range(sizes.spoken):
                    # At all places of the writer's window.
                    time.sleep(WINDOW_SECONDS * (0.3 + number % 7 / 10))
                    current_stream().emit(time.monotonic())

            with _executing(store, speak) as execution_id, StreamFollower(store, execution_id) as follower:
                times: list[float] = []
                follower.read(0.5)
                ready.set()
                while not follower.is_over:
                    events = follower.read()
                    now = time.monotonic()
                    times += [now - event.data["value"] for event in events if event.kind == "emitted"]
            behind = [max(seconds - WINDOW_SECONDS, 0.0) for seconds in times]
            rows.append(
                {
                    "store": name,
                    "events": len(times),
                    "p50, ms": percentile(times, 0.5) * 1e3,
                    "p99, ms": percentile(times, 0.99) * 1e3,
                    "p50 beyond the window, ms": percentile(behind, 0.5) * 1e3,
                    "p99 beyond the window, ms": percentile(behind, 0.99) * 1e3,
                }
            )
    return Table(
        name="streams_way",
        title="The way of an event from emit to a reader, through the store",
        note=f"The writer looks every {WINDOW_SECONDS * 1e3:g} ms: an event waits half of that on average.",
        rows=rows,
    )


def _rate(servers: Servers, sizes: Sizes) -> Table:
    tokens = sizes.spoken

    def provider() -> Iterator[str]:
        begun = time.monotonic()
        for number in range(tokens):
            time.sleep(max(begun + number / _TOKENS_PER_SECOND - time.monotonic(), 0.0))
            yield f"token{number} "

    def plain() -> list[float]:
        started = time.perf_counter()
        for _ in provider():
            continue
        return [time.perf_counter() - started]

    def streamed(store: Store) -> list[float]:
        taken = []

        def speak() -> None:
            started, stream = time.perf_counter(), current_stream()
            for token in provider():
                stream.text(token)
            taken.append(time.perf_counter() - started)

        with _executing(store, speak) as execution_id, StreamFollower(store, execution_id) as follower:
            text = ""
            while not follower.is_over:
                text += "".join(event.data["delta"] for event in follower.read() if event.kind == "text")
        if text != "".join(f"token{number} " for number in range(tokens)):
            raise RuntimeError("the reader has another text than the provider has said")
        return taken

    with ExitStack() as stack:
        turns: dict[str, Turn] = {"plain": plain}
        for name in _FOLLOWED:
            turns[name] = partial(streamed, stack.enter_context(open_store(servers.store_url(name))))
        measured = take_turns(turns, max(sizes.rounds // 10, 1), warm_up=False)
    rows: list[dict[str, Value]] = [
        {
            "store": name,
            "tokens, /s": tokens / measured.median(name),
            "rate / plain": measured.rate_ratio(name, "plain"),
        }
        for name in turns
    ]
    return Table(
        name="streams_rate",
        title=f"A provider of {_TOKENS_PER_SECOND} tokens/s",
        note="Read in a step that says each token, with one reader, who has exactly the text; plain: read in a loop.",
        rows=rows,
    )
