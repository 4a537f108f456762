"""The turns of all works on all ways, and the tables made of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from benchmarks.agents import none, one, ten
from benchmarks.executions.counting import Commits, RedisCount
from benchmarks.executions.cpu import Machine
from benchmarks.executions.goals import Figures, goals
from benchmarks.executions.peers import Peer
from benchmarks.executions.way import Send, Way
from benchmarks.executions.ways import Ways, started_ways
from benchmarks.measuring import Rounds, Turn, take_turns
from benchmarks.report import Table, Value
from benchmarks.servers import STORE_DATABASE, Servers
from benchmarks.sizes import Sizes
from celery_agents.decorators import Agent
from tests.services.postgresql import driver_url

_AGENTS: Final[dict[int, Agent]] = {0: none, 1: one, 10: ten}
_QUIET_SECONDS: Final = 0.5
_LONG: Final = 10  # steps from which on a turn has fewer executions


@dataclass(slots=True)
class _Work:
    """One work on one way. `sent` and `cpu` are seconds for each execution, one figure a round.

    `is_sender` says whether its sending is measured alone too.
    """

    way: Way
    send: Send
    steps: int
    is_sender: bool = False
    sent: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure executions per second from enqueue to end, enqueue alone, latency, and round trips."""
    with started_ways(servers, sizes) as ways:
        works = _works(servers, ways)
        machine = Machine(servers)
        drained = take_turns({name: _drain(machine, work, sizes) for name, work in works.items()}, sizes.queue_rounds)
        # Everything but the warm-up, whose figures `take_turns` leaves out too.
        beside = Rounds({name: work.sent[1:] for name, work in works.items()})
        cpu = Rounds({name: work.cpu[1:] for name, work in works.items()})
        senders = {name: work for name, work in works.items() if work.is_sender}
        fills = {name: _fill(work.way, work.send, sizes, sizes.executions) for name, work in senders.items()}
        for store, way in ways.alike.items():
            fills[f"alike, {store}, enqueue_many"] = _fill(way, way.enqueue_many(one, sizes.executions), sizes, 1)
        alone = take_turns(fills, sizes.queue_rounds)
        latency = take_turns(_latencies(ways, sizes), sizes.queue_rounds)
        trips = {name: _count(servers, work, sizes) for name, work in works.items()}
    figures = Figures(drained, cpu, beside, alone, latency)
    return [
        Table(
            name="executions",
            title="Executions per second, from enqueue to end, producer and workers on the same cores",
            note=(
                f"Drained in turns of {sizes.executions} ({sizes.long_executions} of ten steps), medians of "
                f"{sizes.queue_rounds} rounds. Celery: {sizes.queue_pool[0]} {sizes.queue_pool[1]} on Redis. "
                "Alike: ours without results and events, as bare Celery. Shipped: `celery -A celery_agents worker` as "
                "it is. Raw write: what a checkpoint of one small step is, one script or one statement. Absurd, DBOS: "
                "two processes each, looking for work every 10 ms, otherwise as they come. PostgreSQL commits with "
                "synchronous_commit on for all, Redis with appendfsync everysec. CPU: of producer, workers and servers "
                "alone. Sent: by the producer beside the working worker."
            ),
            rows=[
                {
                    "way and work": name,
                    "drained, /s": 1 / drained.median(name),
                    "/ bare no-op": drained.rate_ratio(name, _BARE),
                    "CPU each, ms": cpu.median(name) * 1e3,
                    "CPU / bare no-op": cpu.ratio(name, _BARE),
                    "sent, /s": 1 / beside.median(name),
                }
                for name in works
            ],
        ),
        Table(
            name="enqueue",
            title="Sent per second while the workers stand still",
            note=f"`enqueue` creates and publishes. enqueue_many: all {sizes.executions} in one call.",
            rows=[
                {"way and work": name, "sent, /s": 1 / alone.median(name), "/ delay()": alone.rate_ratio(name, _BARE)}
                for name in alone.medians
            ],
        ),
        Table(
            name="latency of executions",
            title="From before enqueue to the first step",
            note="Medians of turns; each is sent when the one before it is over.",
            rows=[
                {"way": name, "p50, ms": latency.median(name) * 1e3, "/ bare Celery": latency.ratio(name, "bare")}
                for name in latency.medians
            ],
        ),
        Table(
            name="round trips of executions",
            title="What one execution asks of the servers, counted",
            note=(
                f"Of {sizes.queue_counted} executions. Redis: clients' commands by what they are for; a script is one. "
                "Broker: with kombu's transactions. Store: calls, and which. Commits: PostgreSQL's transactions that "
                "write. Not counted: what a worker does at rest."
            ),
            rows=[{"way and work": name} | trips[name] for name in works],
        ),
        Table(
            name="goals of executions",
            title="What was to be reached",
            note=(
                "Ratios within the same rounds, medians. By CPU: the rate if only the CPU counted that an execution "
                "costs all of them. Without the extra `bench` the peers' rows are empty."
            ),
            rows=goals(figures),
        ),
    ]


_BARE: Final = "bare, no-op"


def _works(servers: Servers, ways: Ways) -> dict[str, _Work]:
    works = {
        _BARE: _Work(ways.bare, ways.bare.noop(), 0, True),
        "bare with results, no-op": _Work(ways.bare_results, ways.bare_results.noop(), 0),
    }
    raw_urls = {"Redis": servers.redis_url(STORE_DATABASE), "PostgreSQL": servers.postgresql}
    for store in ways.alike:
        url = raw_urls[store]
        for steps in (1, 10):
            name = f"bare, {store}, {steps} raw write{'s' * (steps > 1)}"
            works[name] = _Work(ways.bare, ways.bare.writes(url, steps), steps)
    for store, way in ways.alike.items():
        works |= {f"alike, {store}, {_said(n)}": _Work(way, way.enqueue(_AGENTS[n]), n, n == 1) for n in _AGENTS}
    for store, way in ways.threads.items():
        works[f"alike, {store}, threads {way.slots}, 1 step"] = _Work(way, way.enqueue(one), 1)
    for store, way in ways.shipped.items():
        works[f"shipped, {store}, no-op"] = _Work(way, way.noop(), 0, True)
        works |= {f"shipped, {store}, {_said(n)}": _Work(way, way.enqueue(_AGENTS[n]), n, n == 1) for n in (1, 10)}
    for name, peer in ways.peers.items():
        works |= {f"{name}, {_said(n)}": _Work(peer, peer.sends(n), n, n == 0) for n in _AGENTS}
    return works


def _said(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps} steps"


def _size(work: _Work, sizes: Sizes) -> int:
    return sizes.executions if work.steps < _LONG else sizes.long_executions


def _drain(machine: Machine, work: _Work, sizes: Sizes) -> Turn:
    def turn() -> list[float]:
        count = _size(work, sizes)
        before = machine.cpu_seconds(work.way.workers)
        sent, ended = work.way.turn(work.send, count)
        work.sent.append(sent / count)
        work.cpu.append((machine.cpu_seconds(work.way.workers) - before) / count)
        return [ended / count]

    return turn


def _fill(way: Way, send: Send, sizes: Sizes, calls: int) -> Turn:
    return lambda: [way.fill(send, sizes.executions, calls=calls) / sizes.executions]


def _latencies(ways: Ways, sizes: Sizes) -> dict[str, Turn]:
    first_steps: dict[str, tuple[Way, Callable[[float], object]]] = {"bare": (ways.bare, ways.bare.first_step)}
    first_steps |= {f"alike, {store}": (way, way.first_step) for store, way in ways.alike.items()}
    first_steps |= {f"shipped, {store}": (way, way.first_step) for store, way in ways.shipped.items()}
    first_steps |= {name: (peer, peer.first_step) for name, peer in ways.peers.items()}
    return {name: partial(way.latencies, send, sizes.latencies) for name, (way, send) in first_steps.items()}


def _count(servers: Servers, work: _Work, sizes: Sizes) -> dict[str, Value]:
    """Return what each of so many executions asks of the servers."""
    count = sizes.queue_counted
    commits = Commits(driver_url(servers.postgresql))
    try:
        with RedisCount(servers.redis_url(0)) as redis_count:
            before = commits.so_far()
            work.way.thaw()
            for _ in range(count):
                work.send()
            work.way.reach_end()
            time.sleep(_QUIET_SECONDS)  # the last may still be at work; to ask would be counted
            committed = commits.so_far() - before - 1
    finally:
        commits.close()
    work.way.finish()
    work.way.freeze()
    stamped = count + work.way.slots  # the stamps are messages too, and for the peers' queues executions of one step
    own = stamped if isinstance(work.way, Peer) else count
    calls = {kind: sum(names.values()) for kind, names in redis_count.counted.items()}
    store = redis_count.counted["store"]
    return {
        "broker": calls["broker"] / stamped,
        "results": calls["results"] / stamped,
        "events": calls["events"] / stamped,
        "store": (calls["store"] + calls["raw"]) / count,
        "store's calls": ", ".join(f"{name} {number / count:.3g}" for name, number in store.most_common()) or None,
        "commits": committed / own,
    }
