"""What Celery logs of an execution that failed."""

import io
import logging
from collections.abc import Iterator

import pytest

from celery_agents import Run, agent, enqueue
from celery_agents.host import bell
from celery_agents.host.runtime import Runtime

FORGED = "slow\n[2026-03-01: INFO/MainProcess] execution approved by ann\x1b[2J\u202e"


class Loud(Exception):
    def __repr__(self) -> str:
        return FORGED


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a worker's handler writes."""
    out, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("ENTRY %(name)s %(message)s"))
    root.addHandler(handler)
    yield out
    root.removeHandler(handler)


def test_an_error_of_an_agent_forges_no_entry_of_celery(runtime: Runtime, written: io.StringIO) -> None:
    @agent(registry=runtime.registry)
    def failing(run: Run, input: None) -> None:
        raise Loud(FORGED)

    execution = enqueue(failing, None, runtime=runtime)
    runtime.app.tasks[bell.TASK_NAME].apply(args=(execution.id,), task_id=execution.id)

    lines = written.getvalue().split("\n")[:-1]
    assert any("celery.app.trace" in line and execution.id in line for line in lines), lines
    assert any(line.startswith("    ") and "slow" in line for line in lines), lines
    assert all(line.startswith(("ENTRY ", "    ")) for line in lines), lines
    assert all(line.isprintable() for line in lines), lines
