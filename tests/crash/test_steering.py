"""People speak to an execution that real workers run, one of which is killed."""

from collections.abc import Iterator

import pytest

from celery_agents import ExecutionFailed
from celery_agents.testing.llm import ModelServer
from tests.crash.scene import Cell, Scene
from tests.crash.steered import answered, steer

CELL = Cell("redis", "redis", "prefork")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer({"m": answered}, pace_seconds=0.02) as server:
        yield server


@pytest.mark.worker(imports=["tests.crash.steered"])
@pytest.mark.parametrize(
    "cell", [CELL, pytest.param(Cell("redis", "postgresql", "threads"), marks=pytest.mark.full)], ids=str, indirect=True
)
def test_what_is_said_outlives_a_worker_and_an_interrupt_is_heard_at_once(scene: Scene, server: ModelServer) -> None:
    steer(scene, server)


@pytest.mark.full
@pytest.mark.worker(imports=["tests.crash.steered"], sabotage="no_hearing")
@pytest.mark.parametrize("cell", [CELL], ids=str, indirect=True)
def test_an_interrupt_is_not_heard_unless_the_keeper_asks(scene: Scene, server: ModelServer) -> None:
    with pytest.raises(AssertionError, match="until the model is asked with the interruption"):
        steer(scene, server)


@pytest.mark.full
@pytest.mark.worker(imports=["tests.crash.steered"], sabotage="no_record_of_what_was_said")
@pytest.mark.parametrize("cell", [CELL], ids=str, indirect=True)
def test_what_is_said_is_read_twice_unless_its_record_takes_it_out(scene: Scene, server: ModelServer) -> None:
    with pytest.raises(ExecutionFailed, match="MaxStepsExceeded"):  # again and again
        steer(scene, server)
