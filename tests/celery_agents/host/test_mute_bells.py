"""A bell that cannot be rung keeps no other waiting, and is refused where it is given."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from agent_statestore import InvalidRecord, ManualClock, Query, open_store
from celery_agents import Run, agent, enqueue
from celery_agents.celery import make_app
from celery_agents.define.registry import Registry
from celery_agents.host.bell import broker_answers
from celery_agents.host.home import home_of
from celery_agents.host.install import install
from celery_agents.host.recovery.sweeper import Sweeper, Swept
from celery_agents.host.runtime import Runtime, runtime_of


def nothing(run: Run, input: Any) -> Any:
    return input


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def files(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """The ready-made app, on files in its own folder, with a clock that stands still."""
    monkeypatch.setenv("AGENTS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AGENTS_SWEEP_BATCH", "4")
    app = make_app()
    runtime = runtime_of(app)
    home = home_of(app)
    assert home is not None
    home.prepare()
    runtime._store = open_store(runtime.settings.store_url, clock=clock)
    yield runtime
    runtime.store.close()
    app.close()


def seconds_until_due(runtime: Runtime, clock: ManualClock, queue: str) -> set[int]:
    found = [one for one in runtime.store.find(Query(limit=100)).items if one.queue == queue]
    now = datetime.fromtimestamp(clock.now_us() / 1e6, UTC)
    return {round((one.due_at - now).total_seconds()) for one in found if one.due_at is not None}


def test_a_bell_that_cannot_be_rung_keeps_no_other_waiting(files: Runtime, clock: ManualClock, tmp_path: Path) -> None:
    for number in range(12):
        # Past the door, as another client may have stored it: due before all others.
        files.store.create_context("agent", number, queue="team/a" if number < 4 else "good")
        clock.advance(timedelta(milliseconds=1))
    sweeper = Sweeper(files)
    clock.advance(timedelta(seconds=files.settings.publish_grace_seconds))
    assert sweeper.sweep() == Swept(mute=4)
    assert [sweeper.sweep() for _ in range(3)] == [Swept(rung=4), Swept(rung=4), Swept()]
    assert len([*(tmp_path / "home/broker/messages").glob("*.good.msg")]) == 8
    # The mute ones come later and later, like those that nobody answers.
    assert seconds_until_due(files, clock, "team/a") == {15}
    clock.advance(timedelta(seconds=15))
    while sweeper.sweep() != Swept():
        pass
    assert seconds_until_due(files, clock, "team/a") == {30}


def test_a_sweep_ends_early_when_nothing_can_be_rung(
    files: Runtime, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        files.store.create_context(f"agent-{number}", number, queue=f"team/{number}")
    monkeypatch.setattr(files, "_settings", files.settings.model_copy(update={"sweep_batch": 8}))
    clock.advance(timedelta(seconds=files.settings.publish_grace_seconds))
    assert Sweeper(files).sweep() == Swept(mute=5)


def test_a_broker_that_is_away_is_told_from_a_bell_that_is_mute(
    files: Runtime, runtime: Runtime, unused_port: int
) -> None:
    away = Celery("away", broker=f"redis://127.0.0.1:{unused_port}", set_as_current=False)
    assert [broker_answers(app) for app in (files.app, runtime.app, away)] == [True, True, False]


LONG = "ü" * 128


def test_a_queue_that_the_broker_cannot_carry_is_refused_where_it_is_given(tmp_path: Path, files: Runtime) -> None:
    def app_on(broker: str, **settings: Any) -> Runtime:
        app = Celery("theirs", broker=broker, set_as_current=False)
        app.conf.update(agents_store_url=f"sqlite:///{tmp_path}/theirs.db", **settings)
        return runtime_of(install(app, registry=Registry()))

    amqp, cache = app_on("pyamqp://127.0.0.1:1//"), app_on("redis://127.0.0.1:1")
    closed = app_on("pyamqp://127.0.0.1:1//", task_create_missing_queues=False)
    defaulting = app_on("filesystem://", agents_queue="team/a")
    refused = [(files, "team/a"), (files, LONG), (amqp, LONG), (closed, "other"), (defaulting, None)]
    carried = [(files, "team.a"), (files, None), (amqp, "team/a"), (cache, LONG), (closed, "celery"), (closed, None)]
    made = agent(registry=Registry(), name="made")(nothing)
    for runtime, queue in refused:
        with pytest.raises(InvalidRecord, match=r"^queue: "):
            enqueue(made, 1, queue=queue, runtime=runtime)
        assert runtime.store.find().items == (), "nothing is stored"
    for runtime, queue in carried:
        runtime.check_queue(queue)
    for runtime in (amqp, cache, closed, defaulting):
        runtime.store.close()


@pytest.mark.parametrize("priority", [-1, 256, 300, 2**63])
def test_a_priority_that_no_broker_carries_is_refused(runtime: Runtime, priority: int) -> None:
    made = agent(registry=runtime.registry)(nothing)
    with pytest.raises(InvalidRecord, match=r"^priority: "):
        enqueue(made, 1, priority=priority, runtime=runtime)


def test_a_child_on_a_queue_that_cannot_be_rung_is_refused_in_its_parent(files: Runtime) -> None:
    child = agent(registry=files.registry, name=f"child-{id(files)}")(nothing)

    def spawns(run: Run, input: None) -> str:
        try:
            run.spawn(child, 1, queue="team/a")
        except InvalidRecord as error:
            return error.field
        return "spawned"

    execution = enqueue(agent(registry=files.registry, name=f"spawns-{id(files)}")(spawns), runtime=files)
    files.executor.execute(execution.id, "host/1/0")
    assert execution.wait(0) == "queue"
