"""Turns across real worker processes, on the embedded defaults."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_statestore import AgentState
from celery_agents.host.runtime import Runtime
from tests.celery_agents import their_workers
from tests.celery_agents.their_workers import client_of, start
from tests.services.commands import Command, wait_until
from tests.services.machine import scaled

AGENTS = """
import json, os, time
from pathlib import Path
from celery_agents import agent

def hold(folder, name, seconds):
    with open(Path(folder) / "ledger", "a") as ledger:
        began = time.time()
        ledger.write(json.dumps(["begin", name, began, os.getpid()]) + "\\n")
        ledger.flush()
        time.sleep(seconds)
        ledger.write(json.dumps(["end", name, time.time(), os.getpid()]) + "\\n")

@agent(concurrency=2)
def limited(run, input: list) -> None:
    run.step("hold", hold, *input)

@agent(concurrency=1)
def single(run, input: list) -> None:
    run.step("hold", hold, *input)

@agent(session_policy="queue")
def queued(run, input: list) -> None:
    run.step("hold", hold, *input)
    run.sleep(0.01)
    run.step("again", hold, *input)

@agent(session_policy="queue")
def asking(run, input: str) -> str:
    return run.ask("?") if input == "ask" else input

@agent(rate_limit="4/s")
def rated(run, input: list) -> None:
    run.step("hold", hold, *input)
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    with client_of(tmp_path, AGENTS, monkeypatch) as client:
        yield client


def worker(folder: Path, number: int, pool: str = "prefork -c 3", **more: str) -> Command:
    return their_workers.worker(folder, f"-P {pool} -n w{number}@%h", log=f"worker{number}.log", **more)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A client of two workers with three processes each."""
    folder = tmp_path_factory.mktemp("several")
    with (
        pytest.MonkeyPatch.context() as patch,
        client_of(folder, AGENTS, patch) as client,
        worker(folder, 1),
        worker(folder, 2),
    ):
        yield client


def ledger(folder: Path) -> list[list[Any]]:
    path = folder / "ledger"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def most_at_once(entries: list[list[Any]]) -> int:
    inside = most = 0
    for kind, _, _, _ in sorted(entries, key=lambda entry: (entry[2], entry[0] == "begin")):
        inside += 1 if kind == "begin" else -1
        most = max(most, inside)
    return most


@pytest.mark.xdist_group("several-workers")
def test_never_more_than_n_work_at_once_in_several_workers(several: Runtime, tmp_path: Path) -> None:
    executions = [start(several, "limited", [str(tmp_path), number, 0.1]) for number in range(20)]
    for execution in executions:
        execution.wait(scaled(60))
    entries = ledger(tmp_path)
    assert most_at_once(entries) == 2
    assert sorted(name for kind, name, _, _ in entries if kind == "begin") == list(range(20))
    assert len({pid for _, _, _, pid in entries}) > 2
    assert {execution.summary().crashes for execution in executions} == {0}


@pytest.mark.xdist_group("several-workers")
def test_a_session_keeps_its_order_in_several_workers(several: Runtime, tmp_path: Path) -> None:
    executions = [start(several, "queued", [str(tmp_path), number, 0.05], session_id="s") for number in range(8)]
    for execution in executions:
        execution.wait(scaled(60))
    entries = ledger(tmp_path)
    assert most_at_once(entries) == 1
    assert [name for kind, name, _, _ in entries if kind == "begin"] == [number for number in range(8) for _ in "12"]


def test_who_waits_for_a_turn_holds_no_slot_and_a_cancel_of_the_one_in_front_passes_it_on(
    client: Runtime, tmp_path: Path
) -> None:
    with worker(tmp_path, 1, pool="solo"):
        first = start(client, "asking", "ask", session_id="s")
        assert first.wait_for_question(30) is not None
        behind = [start(client, "asking", "go", session_id="s") for _ in range(3)]
        for execution in behind:
            wait_until("it waits for its turn", lambda execution=execution: execution.state is AgentState.WAITING)
        assert start(client, "asking", "go", session_id="t").wait(scaled(30)) == "go"
        first.cancel()
        assert [execution.wait(scaled(30)) for execution in behind] == ["go"] * 3


def test_the_place_of_a_killed_worker_goes_to_its_successor(client: Runtime, tmp_path: Path) -> None:
    with worker(tmp_path, 1, AGENTS_LEASE_SECONDS="3") as first:
        holder = start(client, "single", [str(tmp_path), "holder", 2])
        wait_until("the holder works", lambda: bool(ledger(tmp_path)))
        waiting = [start(client, "single", [str(tmp_path), number, 0.1]) for number in range(3)]
        for execution in waiting:
            wait_until("it waits for its turn", lambda execution=execution: execution.state is AgentState.WAITING)
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait()
    killed_at = time.time()
    with worker(tmp_path, 2, AGENTS_LEASE_SECONDS="3"):
        for execution in (holder, *waiting):
            execution.wait(scaled(60))
    entries = [entry for entry in ledger(tmp_path) if entry[2] > killed_at]
    assert most_at_once(entries) == 1
    assert [name for kind, name, _, _ in entries if kind == "begin"] == ["holder", 0, 1, 2]


@pytest.mark.xdist_group("several-workers")
def test_starts_keep_their_distance_in_several_workers(several: Runtime, tmp_path: Path) -> None:
    executions = [start(several, "rated", [str(tmp_path), number, 0]) for number in range(16)]
    for execution in executions:
        execution.wait(scaled(60))
    begun = sorted(at for kind, _, at, _ in ledger(tmp_path) if kind == "begin")
    # Between its turn and its first step an execution may be held up, which brings it closer to the next one.
    slack = 0.15
    for first, last in zip(begun, begun[4:], strict=False):
        assert last - first >= 1.0 - slack
    assert begun[-1] - begun[0] < 12
