"""Where an execution's bells are rung: by its own queue and priority, else by a route that names its agent."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from celery import Celery

from agent_statestore import ManualClock, MemoryStore
from celery_agents import LoopContext, RegistrationError, Registry, Run, agent, current, install, loop_agent
from celery_agents.host.recovery.sweeper import Sweeper
from celery_agents.host.runtime import Runtime, runtime_of
from tests.celery_agents.driving import Engine


def nothing(run: Run, input: Any) -> Any:
    return None


def decide(context: LoopContext) -> str:
    return context.agent_id


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("theirs", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = f"default-{uuid.uuid4().hex}"
    yield app
    app.close()


def _installed(app: Celery, clock: ManualClock, **agents: dict[str, Any]) -> Runtime:
    registry = Registry()
    for name, options in agents.items():
        agent(name=name, registry=registry, **options)(nothing)
    install(app, registry=registry)
    runtime = runtime_of(app)
    runtime._store = MemoryStore(clock=clock)
    return runtime


def _rung(app: Celery, *queues: str) -> dict[str, tuple[str, int]]:
    """Where the bell of each execution waits, and its priority; the queues are empty after that."""
    found = {}
    with app.connection_for_read() as connection, connection.channel() as channel:
        for queue in (app.conf.task_default_queue, *queues):
            app.amqp.queues[queue](channel).declare()
            while (message := channel.basic_get(queue, no_ack=True)) is not None:
                assert message.headers["task"] == "agents.execute"
                found[message.headers["id"]] = (queue, message.properties.get("priority"))
    return found


def test_a_route_by_the_agents_name_is_taken_by_every_bell(app: Celery) -> None:
    clock = ManualClock(datetime.now(UTC))
    seen = []

    def by_function(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> Any:
        seen.append(name)
        return {"queue": "computed", "priority": 4} if name == "agents.execute.counted" else None

    app.conf.task_routes = (
        by_function,
        {
            "agents.execute": {"queue": "general"},
            "agents.execute.heavy": {"queue": "gpu", "priority": 2},
            "agents.execute.eu-*": "europe",
        },
    )
    runtime = _installed(
        app,
        clock,
        heavy={},
        counted={"priority": 7},
        plain={"priority": 0},
        **{"eu-ship": {}, "own": {"queue": "their-own", "priority": 1}},
    )
    enqueue = partial(current.enqueue, runtime=runtime)
    wanted = {
        enqueue("heavy").id: ("gpu", 2),
        enqueue("heavy", queue="given", priority=9).id: ("given", 9),
        enqueue("counted").id: ("computed", 7),
        enqueue("eu-ship").id: ("europe", 0),
        enqueue("plain").id: ("general", 0),
        enqueue("own").id: ("their-own", 1),
        enqueue("own", priority=0).id: ("their-own", 0),
    }
    queues = ("general", "gpu", "europe", "computed", "given", "their-own")
    assert _rung(app, *queues) == wanted
    assert "agents.execute.heavy" in seen
    # A sweeper rings as the client did.
    clock.advance(timedelta(minutes=5))
    assert Sweeper(runtime).sweep().rung == len(wanted)
    assert _rung(app, *queues) == wanted


def test_the_setting_gives_way_to_a_route_that_names_the_agent_only(app: Celery) -> None:
    app.conf.agents_queue = "agents"
    app.conf.task_routes = {"agents.execute.heavy": {"queue": "gpu"}, "agents.*": {"queue": "blanket"}}
    runtime = _installed(app, ManualClock(), heavy={}, plain={})
    heavy, plain = (current.enqueue(name, runtime=runtime).id for name in ("heavy", "plain"))
    assert _rung(app, "agents", "gpu", "blanket") == {heavy: ("gpu", 0), plain: ("agents", 0)}


def test_a_child_has_the_priority_of_its_agent(engine: Engine) -> None:
    @agent(registry=engine.registry, priority=3)
    def child(run: Run, input: Any) -> None:
        return None

    @agent(registry=engine.registry, priority=8)
    def parent(run: Run, input: Any) -> None:
        run.spawn("child", 1)
        run.spawn("child", 2, priority=0)

    engine.execute(engine.start(parent))
    found = {one.agent_id: set() for one in engine.store.find().items}  # type: ignore[var-annotated]
    for one in engine.store.find().items:
        found[one.agent_id].add(one.priority)
    assert found["child"] == {3, 0}


def test_a_priority_that_no_message_carries_is_refused() -> None:
    for wrong in (-1, 256, 1.5, True, "high"):
        with pytest.raises(RegistrationError):
            agent(priority=wrong, registry=Registry())(nothing)
    assert loop_agent(priority=5, registry=Registry())(decide).priority == 5
