"""The sizes of the measurements."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of one run.

    Each figure of a comparison takes its turn `rounds` times, and a turn has `calls` steps. `growth_at` are the numbers
    of recorded steps at which a further step is measured. `executions` and `long_executions` (agents of one and of ten
    steps) are how many executions a worker drains in a turn. `worker_stores` are stores, with the live-state events on
    or off. The section `scale` compares stores with `scale_finished` and `scale_active` executions to stores with a
    tenth of them, and purges and archives `scale_batch` at a time. `copies` executions are copied from each of
    `copied_between` to each other one. The section `executions` runs Celery with `queue_pool`, and once more with
    `queue_threads` threads (0: not), on each of `queue_stores`; it takes `queue_rounds` rounds, and counts the round
    trips of `queue_counted` executions. The section `scaling` takes `scaling_rounds` rounds, plays fleets of `fleets`
    workers, watches `resting_workers` for `resting_seconds`, and pauses `paused` executions. `concurrent` executions at
    once each take `concurrent_steps` steps of `concurrent_seconds`. The section `recall` searches among `facts` facts.
    Threads of LangGraph have `thread_steps` super-steps. The section `streams` follows `spoken` events on their way.
    """

    rounds: int
    calls: int
    growth_rounds: int
    growth_at: tuple[int, ...]
    storage_steps: int
    resume_rounds: int
    resume_steps: int
    pools: tuple[tuple[str, int], ...]
    worker_stores: tuple[tuple[str, bool], ...]
    drain_rounds: int
    executions: int
    long_executions: int
    latencies: int
    scale_finished: int
    scale_active: int
    scale_rounds: int
    scale_calls: int
    scale_batch: int
    copies: int
    concurrent: int
    concurrent_steps: int
    concurrent_seconds: float
    concurrent_rounds: int
    facts: int = 10_000
    queue_pool: tuple[str, int] = ("prefork", 2)
    queue_threads: int = 8
    queue_stores: tuple[str, ...] = ("Redis", "PostgreSQL")
    queue_rounds: int = 4
    queue_counted: int = 100
    scaling_rounds: int = 5
    fleets: tuple[int, ...] = (1, 10, 100, 1000)
    resting_workers: tuple[int, int] = (1, 4)
    resting_seconds: float = 30.0
    paused: int = 5_000
    thread_steps: int = 1000
    spoken: int = 300
    copied_between: tuple[str, ...] = ("memory", "SQLite NORMAL", "PostgreSQL", "MariaDB", "Redis")


DEFAULT: Final = Sizes(
    rounds=30,
    calls=20,
    growth_rounds=15,
    growth_at=(0, 100, 1000, 10_000),
    storage_steps=800,
    resume_rounds=7,
    resume_steps=1000,
    pools=(("prefork", 2), ("threads", 8)),
    worker_stores=(("Redis", False), ("Redis", True), ("PostgreSQL", False), ("SQLite FULL", False)),
    drain_rounds=3,
    executions=300,
    long_executions=60,
    latencies=150,
    scale_finished=10_000,
    scale_active=1_000,
    scale_rounds=7,
    scale_calls=5,
    scale_batch=100,
    copies=10_000,
    concurrent=500,
    concurrent_steps=5,
    concurrent_seconds=1.0,
    concurrent_rounds=3,
)

QUICK: Final = Sizes(
    thread_steps=100,
    spoken=100,
    rounds=5,
    calls=10,
    growth_rounds=2,
    growth_at=(0, 100, 1000),
    storage_steps=100,
    resume_rounds=3,
    resume_steps=1000,
    pools=(("prefork", 2),),
    worker_stores=(("Redis", False),),
    drain_rounds=1,
    executions=150,
    long_executions=30,
    latencies=50,
    scale_finished=5_000,
    scale_active=500,
    scale_rounds=2,
    scale_calls=3,
    scale_batch=20,
    copies=1_000,
    concurrent=500,
    concurrent_steps=3,
    concurrent_seconds=1.0,
    concurrent_rounds=1,
    queue_rounds=2,
    queue_counted=30,
    scaling_rounds=2,
    fleets=(1, 10, 100),
    resting_workers=(1, 2),
    resting_seconds=10.0,
    paused=500,
    facts=1_000,
)
