"""What `SystemExit` in a step means in a real worker: its own failure, or the end of the process."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_statestore import AgentState
from celery_agents import ExecutionFailed
from celery_agents.host.runtime import Runtime
from tests.celery_agents.their_workers import client_of, start, worker
from tests.services.commands import wait_until
from tests.services.machine import scaled

AGENTS = """
import argparse, os, time
from pathlib import Path
from celery_agents import agent

def parse(words):
    return vars(argparse.ArgumentParser(prog="theirs").parse_args(words))

def interrupt():
    raise KeyboardInterrupt

@agent
def exits(run, input: str) -> None:
    run.step("parse", interrupt if input == "interrupt" else parse, *([] if input == "interrupt" else [["--nonsense"]]))

@agent
def pid(run, input: None) -> int:
    return run.step("pid", os.getpid)

@agent
def is_slow_once(run, input: str) -> int:
    def slow():
        mark = Path(input)
        if not mark.exists():
            mark.with_suffix(".new").write_text(str(os.getpid()))
            mark.with_suffix(".new").rename(mark)
            time.sleep(600)
        return 1
    return run.step("slow", slow)
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A client on the embedded defaults in the folder."""
    with client_of(tmp_path, AGENTS, monkeypatch) as client:
        yield client


@pytest.mark.parametrize(
    "pool",
    ["solo", pytest.param("prefork", marks=pytest.mark.full), pytest.param("threads", marks=pytest.mark.full)],
)
def test_an_exit_of_a_steps_own_fails_the_execution_and_leaves_the_worker(
    tmp_path: Path, client: Runtime, pool: str
) -> None:
    with worker(tmp_path, f"-P {pool} -c 1") as running:
        before = start(client, "pid", None).wait(scaled(30))
        for value, name in (("exit", "SystemExit: 2"), ("interrupt", "KeyboardInterrupt")):
            execution = start(client, "exits", value)
            with pytest.raises(ExecutionFailed, match=f"builtins:{name}"):
                execution.wait(scaled(30))
            summary = execution.summary()
            assert (summary.attempt, summary.crashes) == (1, 0)
        assert start(client, "pid", None).wait(scaled(30)) == before, running.output


@pytest.mark.full
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_an_exit_from_outside_gives_the_lease_back(tmp_path: Path, client: Runtime, pool: str) -> None:
    """Of a terminated prefork child, and of solo's cold shutdown: long before the lease would end."""
    mark = tmp_path / "mark"
    with worker(tmp_path, f"-P {pool} -c 1", AGENTS_LEASE_SECONDS="600", AGENTS_WATCH_SECONDS="300") as running:
        execution = start(client, "is_slow_once", str(mark))
        wait_until("the step runs", lambda: mark.exists())
        os.kill(int(mark.read_text()), signal.SIGTERM if pool == "prefork" else signal.SIGQUIT)
        if pool == "prefork":
            assert execution.wait(scaled(30)) == 1, running.output
            return
        running.wait()
    assert execution.state is AgentState.THINKING
    context = client.store.get_context(execution.id)
    assert context is not None
    assert (context.owner, context.crashes) == (None, 0)
