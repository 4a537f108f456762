"""The broker forgets everything: the messages were only bells."""

import shutil
from pathlib import Path

import pytest

from tests.crash import scenarios
from tests.crash.scene import CELLS, Cell, Scene, spread
from tests.services.redis import RedisServer

SQLITE = [cell for cell in CELLS if cell.store == "sqlite"]
ON_REDIS = [
    Cell("redis", "sqlite", "threads"),
    pytest.param(Cell("redis", "sqlite", "prefork"), marks=pytest.mark.full),
]


@pytest.mark.worker(ring_seconds=1.0)
@pytest.mark.parametrize("cell", spread(SQLITE), ids=str, indirect=True)
def test_executions_complete_after_the_broker_was_flushed(scene: Scene, folder: Path) -> None:
    scenarios.flush_while_some_run_and_some_wait(scene, folder)


@pytest.mark.worker(ring_seconds=1.0)
@pytest.mark.parametrize("cell", ON_REDIS, ids=str, indirect=True)
def test_executions_complete_after_the_broker_came_back_empty(scene: Scene, redis_server: RedisServer) -> None:
    plan, executions = scenarios.fill_all_slots(scene)
    redis_server.kill()
    shutil.rmtree(redis_server.folder / "appendonlydir")
    late = scene.enqueue(plan)  # the client cannot reach the broker, and need not
    executions.append(late)
    redis_server.start()
    for execution in executions:
        scene.open(execution, 2)
    for execution in executions:
        scene.finish(execution, plan, told=False)


def test_a_message_that_is_not_written_yet_does_not_end_a_worker(scene: Scene, folder: Path) -> None:
    scenarios.find_an_empty_message(scene, folder)
