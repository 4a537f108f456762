"""Deploys that do not wait for one long step: SIGTERM, a grace, SIGKILL. None of them counts as a crash."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agent_statestore import AgentState
from celery_agents.client.execution import Execution
from celery_agents.errors import ExecutionFailed
from celery_agents.host.runtime import Runtime
from tests.celery_agents.their_workers import client_of, start, worker
from tests.services.commands import Command, wait_until
from tests.services.machine import scaled

AGENTS = """
import os, time
from pathlib import Path
from celery_agents import agent

@agent
def long(run, input: str) -> str:
    def step():
        folder = Path(input)
        (folder / f"begun-{os.getpid()}").touch()
        while not (folder / "open").exists():
            time.sleep(0.05)
        return "done"
    return run.step("long", step)

if os.environ.get("UNFORGIVING"):
    from celery_agents.engine.lease import HeldLease
    HeldLease.forgive = lambda self, store: Path("forgiven").touch()
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A client on the embedded defaults in the folder."""
    with client_of(tmp_path, AGENTS, monkeypatch) as client:
        yield client


def deploy(folder: Path, running: Command, execution: Execution, begun: int, how: str) -> None:
    """Ends a worker in the middle of the step, as a deploy does whose patience ends before the step does."""
    wait_until("the step has begun", lambda: len(list(folder.glob("begun-*"))) == begun)
    if how == "signal to all":
        os.killpg(running.process.pid, signal.SIGTERM)
        running.wait()
        return
    if how == "cold":
        running.send(signal.SIGQUIT)
    elif how == "remote":
        execution._services.app.control.shutdown()  # type: ignore[attr-defined]
    else:
        running.send(signal.SIGTERM)
    wait_until("the store knows of it", lambda: execution.summary().crashes == 0)
    running.kill()


def check_deploys(folder: Path, client: Runtime, pool: str, deploys: Sequence[str]) -> None:
    """One execution outlives all deploys in its only step, although one crash more would be its end."""
    execution = start(client, "long", str(folder))
    for begun, how in enumerate(deploys, 1):
        with worker(folder, f"-P {pool} -c 1", AGENTS_MAX_ATTEMPTS="1") as running:
            deploy(folder, running, execution, begun, how)
        summary = execution.summary()
        assert (summary.state, summary.attempt, summary.crashes) == (AgentState.THINKING, begun, 0), running.output
    (folder / "open").touch()
    with worker(folder, f"-P {pool} -c 1", AGENTS_MAX_ATTEMPTS="1"):
        assert execution.wait(scaled(60)) == "done"
    assert execution.summary().attempt == len(deploys) + 1


def test_deploys_that_end_one_long_step_are_no_crashes(tmp_path: Path, client: Runtime) -> None:
    check_deploys(tmp_path, client, "prefork", ["killed", "signal to all"])


def test_without_forgiveness_such_a_deploy_is_a_crash(tmp_path: Path, client: Runtime) -> None:
    execution = start(client, "long", str(tmp_path))
    with worker(tmp_path, "-P threads -c 1", AGENTS_MAX_ATTEMPTS="1", UNFORGIVING="1") as running:
        wait_until("the step has begun", lambda: any(tmp_path.glob("begun-*")))
        running.send(signal.SIGTERM)
        wait_until("it would be forgiven", (tmp_path / "forgiven").exists)
        running.kill()
    (tmp_path / "open").touch()
    with (
        worker(tmp_path, "-P threads -c 1", AGENTS_MAX_ATTEMPTS="1"),
        pytest.raises(ExecutionFailed, match="DeadLetter"),
    ):
        execution.wait(scaled(60))


@pytest.mark.full
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_twenty_deploys_that_kill_one_long_step_are_no_crashes(tmp_path: Path, client: Runtime, pool: str) -> None:
    check_deploys(tmp_path, client, pool, ["killed"] * 20)


@pytest.mark.full
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_other_ways_to_end_a_worker_are_no_crashes_either(tmp_path: Path, client: Runtime, pool: str) -> None:
    ways = ["cold", *(["signal to all"] * 3 if pool == "prefork" else ["remote"] if pool == "threads" else [])]
    check_deploys(tmp_path, client, pool, ways)


@pytest.mark.full
def test_a_crash_still_counts_before_and_after_a_deploy(tmp_path: Path, client: Runtime) -> None:
    execution = start(client, "long", str(tmp_path))
    for begun, is_deploy in enumerate((False, True, False), 1):
        with worker(tmp_path, "-P prefork -c 1", AGENTS_MAX_ATTEMPTS="2") as running:
            wait_until("the step has begun", lambda begun=begun: len(list(tmp_path.glob("begun-*"))) == begun)  # type: ignore[misc]
            if is_deploy:
                running.send(signal.SIGTERM)
                wait_until("the store knows of it", lambda: execution.summary().crashes == 1)
            running.kill()
    with worker(tmp_path, "-P prefork -c 1", AGENTS_MAX_ATTEMPTS="2"):
        wait_until("it is given up", lambda: execution.state is AgentState.FAILED, seconds=scaled(30))
    error = execution.summary().error
    assert error is not None
    assert error.type.endswith(":DeadLetter")
