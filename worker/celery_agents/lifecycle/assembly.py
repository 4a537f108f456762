"""The executor that every host needs: the engine, with the ports that this package fills."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from agent_statestore.records import ExecutionSummary
from agent_statestore.store import Store
from celery_agents.define.registry import Registry
from celery_agents.engine.course import never
from celery_agents.engine.executor import Defaults, Executor
from celery_agents.engine.lease import LeaseKeeper
from celery_agents.lifecycle.relatives import Family
from celery_agents.lifecycle.ring import CheckQueue, Ring, RingFirst
from celery_agents.lifecycle.turns.gate import Gate


def left_to_a_sweeper(summary: ExecutionSummary) -> None:
    """Ring no bell: a sweeper finds the execution."""
    del summary


def any_queue(queue: str | None) -> None:
    """Accept every queue: nobody rings on it."""
    del queue


def make_executor(
    *,
    store: Store,
    registry: Registry,
    keeper: LeaseKeeper | None = None,
    ring: Ring = left_to_a_sweeper,
    ring_first: RingFirst | None = None,
    check_queue: CheckQueue = any_queue,
    limits: Defaults | None = None,
    is_draining: Callable[[], bool] | None = None,
    **options: Any,
) -> Executor:
    """Return an executor whose children and turns live on the same store.

    `ring_first` rings for new children, which are created as if that had been done. `options` are other fields of
    `Executor`.
    """
    limits = limits or Defaults()
    return Executor(
        store=store,
        registry=registry,
        keeper=keeper or LeaseKeeper(store, is_draining),
        is_draining=is_draining or never,
        limits=limits,
        relatives=Family(
            store=store,
            registry=registry,
            ring_first=ring_first or partial(_ring_each, ring),
            check_queue=check_queue,
            first_ring=limits.first_ring,
            max_depth=limits.max_depth,
            max_descendants=limits.max_descendants,
        ),
        turns=Gate(store=store, registry=registry, ring=ring),
        **options,
    )


def _ring_each(ring: Ring, summaries: Sequence[ExecutionSummary]) -> None:
    for summary in summaries:
        ring(summary)
