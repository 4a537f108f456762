"""Crowds that wait for each other, on every kind of store, without a sweeper and without anybody looking by himself."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_statestore import AgentState, MemoryStore, Store, open_store
from agent_statestore.hybrid import HybridStore
from agent_statestore.query import Query
from agent_statestore.sql import SQLStore
from celery_agents import Registry, Run, agent
from tests.celery_agents.lifecycle.turns.lining import Crowd, Gauge


@pytest.fixture(params=["memory", "sqlite", "postgresql", "mariadb", "redis", "hybrid"])
def real_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store on its own clock."""
    if request.param == "memory":
        yield MemoryStore()
        return
    if request.param == "hybrid":
        with HybridStore(open_store(f"sqlite:///{tmp_path}/store.db"), MemoryStore()) as hybrid:
            yield hybrid
        return
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/store.db"
    elif request.param == "redis":
        prefix = request.getfixturevalue("redis_prefix")
        url = f"{request.getfixturevalue('redis_url')}?key_prefix={prefix}"
    else:
        url = request.getfixturevalue(f"{request.param}_database_url")
        with SQLStore(url) as server:
            server.migrate()
    with open_store(url) as store:
        yield store
        store.clear()


def all_over(store: Store, count: int) -> bool:
    return len(store.find(Query(states=[AgentState.COMPLETED], limit=count + 1)).items) == count


def test_never_more_than_n_of_a_crowd_work_at_once(real_store: Store) -> None:
    gauge, registry = Gauge(), Registry()

    def works(run: Run, input: list[Any]) -> None:
        with gauge.counting(input[0]):
            run.step("hold", time.sleep, 0.02)
        if input[1] % 5 == 0:
            run.wait_for("go", timeout=timedelta(0))

    limited = agent(registry=registry, concurrency=2, concurrency_key=lambda value: value[0])(works)
    crowd, made = Crowd(real_store, registry, threads=8), []
    for number in range(40):
        value = ["ab"[number % 2], number]
        metadata = limited.turns.added_to({}, lambda value=value: value)  # type: ignore[misc]
        made.append(real_store.create_context("works", value, metadata=metadata).execution_id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("celery_agents.lifecycle.turns.gate.FIRST_LOOK", timedelta(hours=10))
        crowd.run(made, lambda: len(over(real_store, made)) == 40)
    assert set(gauge.most) == {"a", "b"}
    assert max(gauge.most.values()) == 2
    assert {summary.state for summary in over(real_store, made)} <= {AgentState.COMPLETED, AgentState.FAILED}


def over(store: Store, made: list[str]) -> list[Any]:
    return [
        summary
        for summary in store.find(Query(states=[AgentState.COMPLETED, AgentState.FAILED], limit=len(made) + 1)).items
        if summary.execution_id in made
    ]


def test_sessions_of_a_crowd_keep_their_order(real_store: Store) -> None:
    gauge, registry = Gauge(), Registry()

    def works(run: Run, input: list[Any]) -> None:
        with gauge.counting(input[0], input):
            run.step("hold", time.sleep, 0.004)

    agent(registry=registry, session_policy="queue", concurrency=3)(works)
    made = [
        real_store.create_context("works", ["abcd"[number % 4], number], session_id="abcd"[number % 4]).execution_id
        for number in range(32)
    ]
    Crowd(real_store, registry, threads=8).run(made[::-1], lambda: all_over(real_store, 32))
    assert set(gauge.most.values()) == {1}
    for session in "abcd":
        numbers = [number for name, number in gauge.order if name == session]
        assert numbers == sorted(numbers)
