"""How often an execution asks its store: once to create it, once to claim it, once for each step, once to end it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.app.trace import build_tracer

from celery_agents import Registry, Run, agent, enqueue, install
from celery_agents.client.execution import Execution
from celery_agents.engine.stream import outlet
from celery_agents.host.bell import TASK_NAME
from celery_agents.host.runtime import Runtime, runtime_of
from celery_agents.lifecycle.relatives import children_of
from tests.benchmarks.test_round_trips import NotingStore

STEPS = 3


def stepping(run: Run, input: int) -> int:
    for number in range(STEPS):
        run.step(f"step {number}", lambda number=number: number)
    if input < 0:
        raise ValueError(input)
    return input


def parent(run: Run, input: int) -> Any:
    return run.gather(run.spawn("stepping", input))[0]


@pytest.fixture(params=["cache+memory://", "disabled://", "ignored"])
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    # What takes long is told beside the checkpoints; nothing does here, however busy this machine is.
    monkeypatch.setattr(outlet, "LATE_SECONDS", 600.0)
    backend = "cache+memory://" if request.param == "ignored" else request.param
    app = Celery("theirs", broker="memory://", backend=backend, set_as_current=False)
    app.conf.task_ignore_result = request.param == "ignored"
    install(app, registry=Registry())
    runtime = runtime_of(app)
    runtime._store = NotingStore()
    for each in (stepping, parent):
        agent(registry=runtime.registry)(each)
    yield runtime
    app.close()


def executed(runtime: Runtime, execution: Execution) -> list[str]:
    """Call the task as a worker's pool does; return the calls of the store until it has ended."""
    task = runtime.app.tasks[TASK_NAME]
    tracer = build_tracer(task.name, task, app=runtime.app, hostname="w@host")
    request = {"id": execution.id, "args": (execution.id,), "kwargs": {}, "hostname": "w@host", "is_eager": False}
    tracer(execution.id, (execution.id,), {}, request)
    store = runtime.store
    assert isinstance(store, NotingStore)
    calls = list(store.calls)
    store.calls.clear()
    return calls


@pytest.mark.parametrize("value", [1, -1])
def test_an_execution_of_n_steps_makes_n_and_three_calls(runtime: Runtime, value: int) -> None:
    execution = enqueue(runtime.registry.agent("stepping"), value, runtime=runtime)
    calls = executed(runtime, execution)
    assert calls == [
        *("create", "claim", *["checkpoint"] * STEPS, "checkpoint"),
        *(["settle"] if runtime.keeps_results() else []),
    ]
    summary = execution.summary()
    assert (summary.state.value, summary.due_at) == ("completed" if value > 0 else "failed", None)


def test_an_end_that_a_parent_waits_for_is_settled_when_it_was_told(runtime: Runtime) -> None:
    execution = enqueue(runtime.registry.agent("parent"), 1, runtime=runtime)
    executed(runtime, execution)
    (child_id,) = children_of(runtime.store, execution.id)
    child = Execution(child_id, runtime)
    assert "settle" in executed(runtime, child)
    assert execution.summary().due_at is not None  # woken
    executed(runtime, execution)
    assert (execution.context().output, execution.summary().due_at) == (1, None)


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery
def test_nobody_listens_for_a_result_that_nobody_asks_for(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Celery("theirs", broker="memory://", backend=redis_url, set_as_current=False)
    app.conf.task_default_queue = "listening"  # the broker in memory is the same for all apps
    app.conf.agents_store_url = f"sqlite:///{tmp_path}/executions.db"
    runtime = runtime_of(install(app, registry=Registry()))
    agent(registry=runtime.registry)(stepping)
    with redis.Redis.from_url(redis_url) as raw:
        execution = enqueue(runtime.registry.agent("stepping"), 7, runtime=runtime)
        assert execution.id not in str(raw.pubsub_channels())
        with app.connection_for_read() as connection, connection.SimpleQueue("listening") as queue:
            message = queue.get(timeout=5)
            assert message.headers["ignore_result"] is False
            message.ack()
        result = app.AsyncResult(execution.id)
        task = app.tasks[TASK_NAME]
        tracer = build_tracer(task.name, task, app=app, hostname="w@host")
        tracer(
            execution.id,
            (execution.id,),
            {},
            {"id": execution.id, "args": (execution.id,), "kwargs": {}, "hostname": "w@host"},
        )
        assert result.get(timeout=10) == 7
    runtime.store.close()
    app.close()
