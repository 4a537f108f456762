"""A step that hangs: a cancel at once and a drain with patience, in every pool, on real workers."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_statestore import AgentState
from agent_statestore.errors import LeaseLost
from agent_statestore.records import Lease
from celery_agents.client.execution import Execution
from celery_agents.host.runtime import Runtime
from tests.celery_agents.their_workers import client_of, start, worker
from tests.services.commands import Command, wait_until
from tests.services.machine import scaled

AGENTS = """
import os, re, time
from pathlib import Path
from celery_agents import agent

def slow(folder, name):
    (Path(folder) / f"{name}-{os.getpid()}").touch()
    while not (Path(folder) / "open").exists():
        time.sleep(0.05)

@agent
def hangs(run, input: dict) -> None:
    child = run.spawn(hangs, {**input, "child": False, "name": "child"}) if input["child"] else None
    run.step("slow", slow, input["folder"], input["name"])
    (Path(input["folder"]) / "went on").touch()
    run.step("more", str, 1)

@agent
def holds_the_gil(run, input: dict) -> None:
    def search():
        (Path(input["folder"]) / f"gil-{os.getpid()}").touch()
        re.match(r"^(\\w+\\s?)*$", "a" * 60 + "!")
    run.step("search", search)

@agent
def pid(run, input: None) -> int:
    return run.step("pid", os.getpid)
"""
POOLS = ["prefork", pytest.param("threads", marks=pytest.mark.full), pytest.param("solo", marks=pytest.mark.full)]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A client on the embedded defaults in the folder."""
    with client_of(tmp_path, AGENTS, monkeypatch) as client:
        yield client


def hanging(client: Runtime, folder: Path, name: str, *, child: bool = False) -> tuple[Execution, int]:
    """An execution in its step, and the process that it hangs in."""
    execution = start(client, "hangs", {"folder": str(folder), "name": name, "child": child})
    for one in ("child", name) if child else (name,):
        wait_until(f"{one} hangs", lambda one=one: list(folder.glob(f"{one}-*")) != [])  # type: ignore[misc]
    (mark,) = folder.glob(f"{name}-*")
    return execution, int(mark.name.rpartition("-")[2])


def lease_on(execution: Execution) -> Lease:
    (lease,) = execution._services.store.find_leases(execution.summary().owner or "nobody")
    return lease


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("pool", POOLS)
def test_a_cancel_at_once_does_not_wait_for_a_step_that_hangs(tmp_path: Path, client: Runtime, pool: str) -> None:
    with worker(tmp_path, f"-P {pool} -c 1", AGENTS_LEASE_SECONDS="5") as running:
        execution, process = hanging(client, tmp_path, "parent")
        lease = lease_on(execution)
        began = time.monotonic()
        assert execution.cancel(sender="ann", reason="it hangs", now=True)
        assert execution.state is AgentState.CANCELLED
        assert time.monotonic() - began < scaled(2)
        with pytest.raises(LeaseLost):
            client.store.add_message(execution.id, "agent", "still here", lease=lease)
        (end,) = [entry for entry in execution._services.store.get_audit(execution.id) if entry.to_state == "cancelled"]
        assert (end.by, end.reason) == ("ann", "it hangs")
        if pool == "prefork":
            wait_until("the process is killed", lambda: not is_alive(process))
        else:
            running.wait_for("keeps its slot until the function returns")
            (tmp_path / "open").touch()
        assert start(client, "pid", None).wait(scaled(60)) != (process if pool == "prefork" else 0), running.output
        wait_until("the end is told", lambda: execution.summary().due_at is None)
        assert client.app.AsyncResult(execution.id).state == "REVOKED"
        assert execution.state is AgentState.CANCELLED
        assert execution.summary().step_count == 0

        # Nobody could cancel one that is deleted.
        (tmp_path / "open").unlink(missing_ok=True)
        deleted, process = hanging(client, tmp_path, "deleted")
        assert deleted.delete()
        if pool == "prefork":
            wait_until("the process is killed", lambda: not is_alive(process))
        else:
            running.wait_for(
                f"execution {deleted.id} was deleted, but a {pool.removesuffix('s')} pool cannot end its function"
            )
            (tmp_path / "open").touch()
        assert start(client, "pid", None).wait(scaled(60)) != (process if pool == "prefork" else 0), running.output


@pytest.mark.full
def test_a_cancel_at_once_ends_a_process_in_which_no_other_thread_runs(tmp_path: Path, client: Runtime) -> None:
    with worker(tmp_path, "-P prefork -c 1"):
        execution = start(client, "holds_the_gil", {"folder": str(tmp_path)})
        wait_until("it hangs", lambda: list(tmp_path.glob("gil-*")) != [])
        (mark,) = tmp_path.glob("gil-*")
        assert execution.cancel(now=True)
        wait_until("the process is killed", lambda: not is_alive(int(mark.name.rpartition("-")[2])))
        assert start(client, "pid", None).wait(scaled(60))


@pytest.mark.full
def test_a_cancel_at_once_does_not_wait_for_children_either(tmp_path: Path, client: Runtime) -> None:
    with worker(tmp_path, "-P prefork -c 2"):
        execution, process = hanging(client, tmp_path, "parent", child=True)
        (child,) = tmp_path.glob("child-*")
        assert execution.cancel(now=True)
        (step,) = execution.steps()
        assert step.result is not None
        family = [execution, Execution(step.result.output["execution_id"], client)]
        assert [one.state for one in family] == [AgentState.CANCELLED] * 2
        for pid in (process, int(child.name.rpartition("-")[2])):
            wait_until("the process is killed", lambda pid=pid: not is_alive(pid))  # type: ignore[misc]


def drained(running: Command) -> int:
    running.send(signal.SIGTERM)
    return running.wait(scaled(60))


@pytest.mark.parametrize("pool", POOLS)
def test_a_drain_ends_with_its_patience_and_the_step_runs_again_elsewhere(
    tmp_path: Path, client: Runtime, pool: str
) -> None:
    with worker(tmp_path, f"-P {pool} -c 1", AGENTS_DRAIN_SECONDS="2", AGENTS_LEASE_SECONDS="600") as running:
        execution, process = hanging(client, tmp_path, "one")
        status = drained(running)
        assert status == (0 if pool == "prefork" else 1), running.output
        assert f"ending execution {execution.id}" in running.output
        assert "another one goes on" not in running.output
    assert not is_alive(process)
    summary = execution.summary()
    assert (summary.state, summary.owner, summary.crashes) == (AgentState.THINKING, None, 0)
    (tmp_path / "open").touch()
    with worker(tmp_path, f"-P {pool} -c 1"):
        wait_until("it is over", lambda: execution.state is AgentState.COMPLETED)


@pytest.mark.full
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_drain_says_what_it_waits_for_until_that_is_cancelled(tmp_path: Path, client: Runtime, pool: str) -> None:
    with worker(tmp_path, f"-P {pool} -c 1") as running:
        execution, process = hanging(client, tmp_path, "one")
        running.send(signal.SIGTERM)
        words = f"waiting for the step in flight of execution {execution.id}, agent hangs, in process {process} for "
        for times in (1, 2):
            wait_until("it says so", lambda times=times: running.output.count(words) >= times, seconds=scaled(40))  # type: ignore[misc]
        assert "0 steps recorded, the last write " in running.output
        assert f"to end it: agents cancel {execution.id} --now" in running.output
        assert execution.cancel(now=True)
        if pool != "prefork":
            running.wait_for("keeps its slot until the function returns")
            # What was asked for is not asked for again.
            wait_until("it says so", lambda: "which is cancelled: nothing" in running.output, seconds=scaled(40))
            (tmp_path / "open").touch()
        assert running.wait(scaled(60)) == 0, running.output
    assert not (tmp_path / "went on").exists()
