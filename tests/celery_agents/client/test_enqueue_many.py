"""Many executions are started at once, with few round trips."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, signals

from agent_statestore.errors import IdempotencyConflict, InvalidRecord
from celery_agents import Registry, Run, agent, aio, enqueue, enqueue_many, install
from celery_agents.errors import InvalidInput, SessionBusy
from celery_agents.host.runtime import Runtime, runtime_of
from celery_agents.testing import LocalAgents
from tests.benchmarks.test_round_trips import NotingStore


def double(run: Run, input: int) -> int:
    return run.step("double", lambda: input * 2)


@pytest.fixture
def runtime(redis_url: str) -> Iterator[Runtime]:
    app = Celery("theirs", broker=redis_url, backend=redis_url, set_as_current=False)
    app.conf.update(agents_store_url=redis_url, task_default_queue="many")
    runtime = runtime_of(install(app, registry=Registry()))
    agent(registry=runtime.registry)(double)
    yield runtime
    runtime.store.close()
    app.close()


def messages_of(runtime: Runtime, queue: str = "many") -> list[Any]:
    taken = []
    with runtime.app.connection_for_read() as connection, connection.SimpleQueue(queue) as simple:
        while True:
            try:
                taken.append(simple.get(block=False))
            except simple.Empty:
                return taken
            taken[-1].ack()


def test_each_is_what_enqueue_would_have_made(runtime: Runtime) -> None:
    options: dict[str, Any] = {"session_id": "s", "user_id": "u", "metadata": {"a": 1}, "priority": 5, "queue": "gpu"}
    alone = enqueue("double", 7, runtime=runtime, **options)
    (single,) = messages_of(runtime, "gpu")
    many = enqueue_many("double", range(7, 10), runtime=runtime, **options)
    bells = messages_of(runtime, "gpu")

    assert [execution.context().input for execution in many] == [7, 8, 9]
    assert [bell.headers["id"] for bell in bells] == [execution.id for execution in many]  # in order
    own = (bells[0].headers, bells[0].properties, bells[0].payload)
    theirs = (single.headers, single.properties, single.payload)
    assert _comparable(own, many[0].id) == _comparable(theirs, alone.id)
    first, other = many[0].summary(), alone.summary()
    assert (first.session_id, first.user_id, first.metadata, first.priority, first.queue) == (
        (other.session_id, other.user_id, other.metadata, other.priority, other.queue)
    )
    assert first.due_at is not None


def _comparable(message: Any, execution_id: str) -> str:
    headers, properties, payload = message
    # Celery's `send_task` writes the last two among the properties as well, where nobody reads them.
    left_out = {"delivery_tag", "argsrepr", "kwargsrepr"}
    kept = {name: value for name, value in properties.items() if name not in left_out}
    return repr((sorted(headers.items()), sorted(kept.items()), payload)).replace(execution_id, "<id>")


def test_hundreds_cost_one_call_of_the_store_and_one_command_of_the_broker(runtime: Runtime, redis_url: str) -> None:
    seen: list[str] = []

    def note(headers: dict[str, Any], **_: Any) -> None:
        seen.append(headers["id"])

    enqueue_many("double", [0], runtime=runtime)  # connections and scripts are there
    signals.before_task_publish.connect(note)
    try:
        with redis.Redis.from_url(redis_url) as raw:
            raw.config_resetstat()
            made = enqueue_many("double", range(300), runtime=runtime)
            stats = raw.info("commandstats")
    finally:
        signals.before_task_publish.disconnect(note)
    assert seen == [execution.id for execution in made]
    assert stats["cmdstat_evalsha"]["calls"] == 300  # sent in one pipeline
    assert stats["cmdstat_lpush"]["calls"] == 1
    assert "cmdstat_subscribe" not in stats
    assert len(messages_of(runtime)) == 301

    runtime._store = NotingStore()
    made = enqueue_many("double", range(1100), runtime=runtime)
    assert runtime._store.calls == ["create_many"] * 3
    assert len({execution.id for execution in made}) == 1100


def test_a_repetition_starts_exactly_the_others(runtime: Runtime) -> None:
    first = enqueue_many("double", [1, 2], idempotency_keys=["a", "b"], runtime=runtime)
    again = enqueue_many("double", [1, 2, 3], idempotency_keys=["a", "b", "c"], runtime=runtime)
    assert again[:2] == first
    with pytest.raises(IdempotencyConflict):
        enqueue_many("double", [9, 4], idempotency_keys=["a", "d"], runtime=runtime)
    fourth = runtime.store.get_by_idempotency_key("double", "d")
    assert fourth is not None
    with pytest.raises(InvalidRecord, match="needs one for each of 2 inputs, not 1"):
        enqueue_many("double", [1, 2], idempotency_keys=["a"], runtime=runtime)


def test_one_wrong_input_starts_none(runtime: Runtime) -> None:
    with pytest.raises(InvalidInput):
        enqueue_many("double", [1, "two"], session_id="wrong", runtime=runtime)
    assert runtime.store.get_session_contexts("wrong") == ()
    assert enqueue_many("double", [], runtime=runtime) == []


def test_while_the_broker_is_away_all_are_due_at_once(tmp_path: Path, unused_port: int) -> None:
    app = Celery("theirs", broker=f"redis://127.0.0.1:{unused_port}/0", set_as_current=False)
    app.conf.update(agents_store_url=f"sqlite:///{tmp_path}/executions.db", task_publish_retry=False)
    runtime = runtime_of(install(app, registry=Registry()))
    agent(registry=runtime.registry)(double)
    made = enqueue_many("double", range(3), runtime=runtime)
    assert {execution.summary().state.value for execution in made} == {"idle"}
    due = runtime.store.take_due(10, runtime.settings.lease)
    assert {one.execution_id for one in due} == {execution.id for execution in made}
    runtime.store.close()
    app.close()


def test_they_run_in_tests_without_celery_and_from_async_code() -> None:
    registry = Registry()
    doubling = agent(registry=registry)(double)
    agents = LocalAgents(registry=registry)
    made = enqueue_many(doubling, range(3), runtime=agents.runtime)
    agents.run()
    assert [execution.wait(1) for execution in made] == [0, 2, 4]
    assert aio.enqueue_many is not None


def test_of_a_session_that_rejects_others_only_the_first_is_started(runtime: Runtime) -> None:
    agent(registry=runtime.registry, name="alone", session_policy="reject")(double)
    with pytest.raises(SessionBusy):
        enqueue_many("alone", [1, 2], session_id="busy", runtime=runtime)
    assert len(runtime.store.get_session_contexts("busy")) == 1
