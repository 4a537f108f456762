"""What only a real worker shows: time limits, children that come and go, solo, an app of the user's own."""

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from agent_statestore import AgentState, Checkpoint, ErrorInfo
from celery_agents import ExecutionFailed
from celery_agents.client.execution import Execution
from celery_agents.host import bell
from celery_agents.host.runtime import Runtime
from tests.celery_agents.their_workers import client_of, start, worker
from tests.services.commands import wait_until
from tests.services.machine import scaled

AGENTS = """
import os, time
from pathlib import Path
from celery_agents import agent

@agent
def overruns_once(run, input: str) -> list[int]:
    def slow() -> int:
        mark = Path(input)
        if not mark.exists():
            mark.touch()
            time.sleep(600)
        return 1
    return [run.step("quick", lambda: 0), run.step("slow", slow)]

@agent
def pids(run, input: int) -> list[int]:
    return [run.step("pid", os.getpid) for _ in range(input)]

@agent
def asks(run, input: None) -> str:
    return run.ask("Name?", schema=str)

@agent
def ten_short_steps(run, input: None) -> list[int]:
    def short(number: int) -> int:
        time.sleep(0.3)
        return number
    return [run.step("short", short, number) for number in range(10)]

@agent
def ignores(run, input: None) -> None:
    from celery.exceptions import Ignore
    raise Ignore("please")

@agent
def rejects(run, input: None) -> None:
    from celery.exceptions import Reject
    raise Reject("please", requeue=True)

@agent
def odd_failure(run, input: str) -> None:
    class Unpicklable(Exception):
        def __init__(self, a, b):
            super().__init__(a, b)
            self.lock = __import__("threading").Lock()
    raise Unpicklable(object(), "é" * 50_000 if input == "huge" else "é")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "their_agents.py").write_text(AGENTS)
    return tmp_path


@pytest.fixture
def client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A client on the embedded defaults in the folder."""
    with client_of(folder, AGENTS, monkeypatch) as client:
        yield client


def test_a_hard_time_limit_ends_the_attempt_and_not_the_execution(folder: Path, client: Runtime) -> None:
    with worker(folder, "-P prefork -c 1 --time-limit 2") as running:
        execution = start(client, "overruns_once", str(folder / "mark"))
        assert execution.wait(scaled(60)) == [0, 1], running.output
        assert AsyncResult(execution.id, app=client.app).get(timeout=scaled(30)) == [0, 1]
    assert [step.attempt for step in execution.steps()] == [1, 2]
    assert "the hard time limit of 2" in running.output


SLOW_GOODBYE = """
import os, pickle, time
from pathlib import Path
from billiard.pool import DEATH
from celery_agents import agent
from celery_agents.host.pool_pipes import Pipe

def send_payload(self, value):
    # Without what defers signals, and slow to give the lock back when it tells that this process leaves.
    with self._wlock:
        self._writer.send_bytes(value)
        if pickle.loads(value)[0] == DEATH:
            time.sleep(2)

Pipe.send_payload = send_payload

@agent
def is_terminated_once(run, input: str) -> int:
    def slow() -> int:
        mark = Path(input)
        if not mark.exists():
            mark.with_suffix(".new").write_text(str(os.getpid()))
            mark.with_suffix(".new").rename(mark)
            time.sleep(600)
        return 1
    return run.step("slow", slow)
"""


def test_a_child_that_is_terminated_leaves_no_lock_behind(folder: Path, client: Runtime) -> None:
    """A hard time limit and a revoke send SIGTERM, and the parent sends a second one when the child says goodbye."""
    (folder / "their_agents.py").write_text(SLOW_GOODBYE)
    mark = folder / "mark"
    with worker(folder, "-P prefork -c 1") as running:
        execution = start(client, "is_terminated_once", str(mark))
        wait_until("the step runs", lambda: mark.exists())
        os.kill(int(mark.read_text()), signal.SIGTERM)
        assert execution.wait(scaled(30)) == 1, running.output
    assert execution.summary().attempt == 2


def test_children_that_serve_one_task_each_leave_nothing_behind(folder: Path, client: Runtime) -> None:
    with worker(folder, "-P prefork -c 2 --max-tasks-per-child 1"):
        executions = [start(client, "pids", 5) for _ in range(6)]
        outputs = [execution.wait(scaled(60)) for execution in executions]
    assert all(len(set(pids)) == 1 for pids in outputs)
    assert len({pids[0] for pids in outputs}) == 6
    assert {execution.summary().attempt for execution in executions} == {1}


# The task of a paused execution has ended, in whatever pool.
@pytest.mark.parametrize(
    "pool", ["threads", *(pytest.param(pool, marks=pytest.mark.full) for pool in ("solo", "prefork"))]
)
def test_a_paused_execution_holds_no_slot(folder: Path, client: Runtime, pool: str) -> None:
    with worker(folder, f"-P {pool} -c 1"):
        paused = [start(client, "asks", None) for _ in range(3)]
        for execution in paused:
            assert execution.wait_for_question(scaled(30)) is not None
        assert start(client, "pids", 1).wait(scaled(30)) is not None
        paused[1].resume("Ada")
        assert paused[1].wait(scaled(30)) == "Ada"
        assert AsyncResult(paused[1].id, app=client.app).get(timeout=scaled(30)) == "Ada"
        assert paused[0].cancel() is True
        with pytest.raises(TaskRevokedError):
            AsyncResult(paused[0].id, app=client.app).get(timeout=scaled(30))
    assert [execution.state for execution in paused] == [
        AgentState.CANCELLED,
        AgentState.COMPLETED,
        AgentState.WAITING_FOR_INPUT,
    ]


def test_a_failure_that_cannot_be_pickled_is_told_all_the_same(folder: Path, client: Runtime) -> None:
    with worker(folder, "-P prefork -c 1"):
        for size in ("small", "huge"):
            execution = start(client, "odd_failure", size)
            with pytest.raises(ExecutionFailed, match="Unpicklable"):
                execution.wait(scaled(30))
            outcome = AsyncResult(execution.id, app=client.app)
            with pytest.raises(Exception, match="é"):
                outcome.get(timeout=scaled(30))
            assert outcome.state == "FAILURE", size
        assert start(client, "pids", 1).wait(scaled(30)) is not None


def test_a_soft_time_limit_ends_the_attempt_and_not_the_execution(folder: Path, client: Runtime) -> None:
    with worker(folder, "-P prefork -c 1 --soft-time-limit 2") as running:
        execution = start(client, "overruns_once", str(folder / "mark"))
        assert execution.wait(scaled(60)) == [0, 1], running.output
        assert AsyncResult(execution.id, app=client.app).get(timeout=scaled(30)) == [0, 1]
    assert "the soft time limit ended this attempt" in running.output


def test_an_agent_that_fails_with_an_exception_of_celerys_own_is_told_as_failed(folder: Path, client: Runtime) -> None:
    with worker(folder, "-P threads -c 1"):
        for name in ("ignores", "rejects"):
            execution = start(client, name, None)
            with pytest.raises(ExecutionFailed, match=name.removesuffix("s").capitalize()):
                execution.wait(scaled(30))
            with pytest.raises(Exception, match=r"celery\.exceptions"):
                AsyncResult(execution.id, app=client.app).get(timeout=scaled(30))


def test_ends_that_nobody_was_told_of_are_told(folder: Path, client: Runtime) -> None:
    """The process died after it had recorded the end, completed and settled, or failed by an error of the store."""
    settled = client.store.create_context("pids", 1).execution_id
    failed = client.store.create_context("pids", 1).execution_id
    with worker(folder, "-P threads -c 1"):
        client.store.checkpoint(settled, Checkpoint(state=AgentState.COMPLETED, output=[42]))
        error = ErrorInfo(
            type="agent_statestore.errors:InvalidRecord", message="limit: too small", args=("limit", "too small")
        )
        client.store.checkpoint(
            failed, Checkpoint(state=AgentState.FAILED, error=error, announce_within=timedelta(seconds=0.1))
        )
        bell.ring(client.app, client.settings, execution_id=settled, agent_id="pids", queue=None, priority=None)
        assert AsyncResult(settled, app=client.app).get(timeout=scaled(30)) == [42]
        with pytest.raises(Exception, match="too small"):
            AsyncResult(failed, app=client.app).get(timeout=scaled(30))


def test_a_dead_letter_that_was_revoked_runs_once_it_is_released(folder: Path, client: Runtime) -> None:
    execution_id = client.store.create_context("pids", 1).execution_id
    client.store.checkpoint(
        execution_id, Checkpoint(state=AgentState.FAILED, error=ErrorInfo(type="x:Y", message="dead letter"))
    )
    with worker(folder, "-P threads -c 1") as running:
        client.app.control.revoke(execution_id)
        running.wait_for("which means nothing then")
        client.store.requeue(execution_id)
        assert Execution(execution_id, client).wait(scaled(30)) is not None


@pytest.mark.parametrize(
    ("pool", "number"),
    [
        ("solo", signal.SIGTERM),
        ("threads", signal.SIGQUIT),
        pytest.param("solo", signal.SIGQUIT, marks=pytest.mark.full),
        pytest.param("threads", signal.SIGTERM, marks=pytest.mark.full),  # and in `tests/crash/test_drain.py`
    ],
)
def test_a_shutdown_of_any_kind_ends_the_attempt_and_not_the_execution(
    folder: Path, client: Runtime, pool: str, number: signal.Signals
) -> None:
    with worker(folder, f"-P {pool} -c 1") as first:
        execution = start(client, "ten_short_steps", None)
        wait_until("a first step", lambda: execution.steps() or None)
        first.send(number)
        first.wait()
    assert "Traceback" not in first.output
    assert execution.state is AgentState.THINKING
    with worker(folder, f"-P {pool} -c 1"):
        assert execution.wait(scaled(60)) == list(range(10))
