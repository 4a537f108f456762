"""Workers are killed while executions have conversations: each is complete, in order, and nothing is in it twice."""

import random
import time

import pytest

from celery_agents import enqueue
from tests.crash.conversations import said_by, talking
from tests.crash.scene import Cell, Scene
from tests.services.machine import machine

CELLS = [
    Cell("redis", "hybrid", "prefork"),
    Cell("embedded", "sqlite", "prefork"),
    Cell("redis", "postgresql", "threads"),
    Cell("redis", "redis", "prefork"),
    Cell("embedded", "mariadb", "prefork"),
]


def have_conversations(scene: Scene, *, sessions: int, executions: int, kill_every: float, limit_seconds: float) -> int:
    """Enqueue executions in sessions, kill workers until all are over, and return how often one was killed."""
    store, dice, kills = scene.runtime.store, random.Random(1), 0
    names = [f"session-{number}" for number in range(sessions)]
    started = {
        name: [enqueue(talking, number, session_id=name, runtime=scene.runtime) for number in range(executions)]
        for name in names
    }
    left = [execution for each in started.values() for execution in each]
    scene.wait_until("a step is recorded", lambda: any(execution.summary().step_count for execution in left))
    began = next_kill = time.monotonic()
    while left := [execution for execution in left if not execution.state.is_over]:
        pace = max(machine.latest, 1.0)
        assert time.monotonic() - began < limit_seconds * pace, f"{len(left)} are not over\n{scene.last_words()}"
        ready = [worker for worker in scene.workers if worker.container.is_ready]
        if ready and time.monotonic() >= next_kill:
            worker = dice.choice(ready)
            worker.kill()
            worker.container.start_again()
            kills += 1
            next_kill = time.monotonic() + kill_every * pace
        time.sleep(0.05)
    for name, conversation in started.items():
        said = [str(message.content) for message in store.session(name).messages()]
        assert sorted(said) == sorted(text for number in range(executions) for text in said_by(number)), name
        order = {message.execution_id: None for message in store.session(name).messages()}
        assert list(order) == [execution.id for execution in conversation], name
        for number, execution in enumerate(conversation):
            context = execution.context()
            assert context.output == said[: number * len(said_by(0))], (name, number, context.error)
            assert said[number * len(said_by(0)) :][: len(said_by(0))] == said_by(number), name
            assert context.memory.working_memory == {}
    return kills


@pytest.mark.worker(lease_seconds=2.0, ring_seconds=1.0, imports=["tests.crash.conversations"])
@pytest.mark.parametrize(
    "cell", [CELLS[0], *(pytest.param(cell, marks=pytest.mark.full) for cell in CELLS[1:3])], ids=str, indirect=True
)
def test_a_conversation_outlives_its_workers(scene: Scene) -> None:
    assert have_conversations(scene, sessions=2, executions=4, kill_every=0.8, limit_seconds=60)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.worker(lease_seconds=2.0, ring_seconds=1.0, imports=["tests.crash.conversations"])
@pytest.mark.parametrize("cell", CELLS, ids=str, indirect=True)
def test_two_hundred_executions_in_twenty_sessions(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    kills = have_conversations(scene, sessions=20, executions=10, kill_every=2.0, limit_seconds=600)
    with capsys.disabled():
        print(f"\n  200 executions in 20 sessions, {kills} workers killed: each history complete, in order, once")
    assert kills
