"""Every end is announced: cleaned of what a result backend refuses, plainly if it must be, and by any worker."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery, states
from celery.app.trace import build_tracer
from celery.backends.cache import CacheBackend

from agent_statestore import AgentState, ManualClock, open_store
from celery_agents import Registry, Run, agent, enqueue, install
from celery_agents.client.execution import Execution
from celery_agents.errors import ExecutionFailed
from celery_agents.host.announcing import cleaned, tellable
from celery_agents.host.bell import TASK_NAME
from celery_agents.host.recovery.sweeper import Sweeper
from celery_agents.host.runtime import Runtime, runtime_of
from tests.celery_agents.client.test_client import published
from tests.conftest import fresh_database


@pytest.fixture
def clock(runtime: Runtime) -> ManualClock:
    clock = ManualClock(datetime.now(UTC))
    runtime._store = open_store(runtime.settings.store_url, clock=clock)
    return clock


def echo(run: Run, input: Any) -> Any:
    return input


def ended(runtime: Runtime, value: Any = 1) -> Execution:
    """An execution whose worker died before it told of the end."""
    execution = enqueue(agent(registry=runtime.registry)(echo), value, queue="nobody", runtime=runtime)
    runtime.executor.execute(execution.id, "host/1/0")
    return execution


def test_any_worker_announces_a_cancelled_execution_whose_queue_has_none(runtime: Runtime, clock: ManualClock) -> None:
    execution = enqueue(agent(registry=runtime.registry)(echo), 1, queue="nobody", runtime=runtime)
    execution.cancel()
    assert execution.state is AgentState.CANCELLED
    clock.advance(runtime.settings.lease)
    assert Sweeper(runtime, "any@worker").sweep().rung == 0
    assert runtime.app.backend.get_state(execution.id) == states.REVOKED
    assert execution.summary().due_at is None


def test_any_worker_announces_an_end_that_several_bells_did_not(runtime: Runtime, clock: ManualClock) -> None:
    execution, sweeper = ended(runtime, "the output"), Sweeper(runtime, "any@worker")
    rung = 0
    while execution.summary().due_at is not None:
        clock.advance(runtime.settings.lease)
        rung += sweeper.sweep().rung
    assert rung == 3
    assert runtime.app.backend.get_result(execution.id) == "the output"


def test_a_result_that_is_refused_becomes_a_plain_record(
    runtime: Runtime, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_small(self: CacheBackend, key: bytes, value: bytes) -> Any:
        if len(value) > 5000:
            raise ValueError("too large")
        return self.client.set(key, value, self.expires)

    monkeypatch.setattr(CacheBackend, "set", set_small)

    def fails(run: Run, input: int) -> None:
        raise LookupError("x" * input)

    failing = agent(registry=runtime.registry)(fails)
    completed, failed = ended(runtime, "y" * 6000), enqueue(failing, 6000, runtime=runtime)
    runtime.executor.execute(failed.id, "host/1/0")
    sweeper = Sweeper(runtime, "any@worker")
    for _ in range(10):
        clock.advance(runtime.settings.lease)
        sweeper.sweep()
    for execution, said in ((completed, "it is completed"), (failed, "LookupError")):
        assert execution.summary().due_at is None, "settled, and so to be archived"
        assert runtime.app.backend.get_state(execution.id) == states.FAILURE
        assert said in str(runtime.app.backend.get_result(execution.id))


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "plain ü"])
def test_an_error_is_told_in_texts_that_every_backend_keeps(text: str) -> None:
    bare, chained = ValueError(text), KeyError("key")
    chained.__cause__ = ValueError(text)
    for error in (bare, chained):
        told = tellable("e", error)
        assert isinstance(told, type(error) if text == "plain ü" else ExecutionFailed)
        assert cleaned(str(told)) == str(told)


@pytest.fixture
def on_postgresql(postgresql_url: str, runtime: Runtime) -> Iterator[Runtime]:
    """An app whose results go to PostgreSQL."""
    with fresh_database(postgresql_url) as url:
        app = Celery("results", broker="memory://", backend=f"db+{url}", set_as_current=False)
        app.conf.agents_store_url = runtime.settings.store_url
        install(app, registry=Registry())
        yield runtime_of(app)
        runtime_of(app).store.close()
        app.backend.ResultSession().get_bind().dispose()
        app.close()


def test_a_nul_in_an_error_is_no_matter_for_results_in_postgresql(on_postgresql: Runtime) -> None:
    runtime = on_postgresql

    def fails(run: Run, input: str) -> None:
        raise ValueError(input)

    failing = agent(registry=runtime.registry)(fails)
    execution = enqueue(failing, "a\x00b", runtime=runtime)
    published(runtime)
    task = runtime.app.tasks[TASK_NAME]
    trace = build_tracer(task.name, task, app=runtime.app, hostname="w@h")
    trace(execution.id, (execution.id,), {}, {"id": execution.id})
    assert runtime.app.backend.get_state(execution.id) == states.FAILURE
    assert "a\ufffdb" in str(runtime.app.backend.get_result(execution.id))
    assert execution.summary().due_at is None
