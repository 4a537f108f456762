"""`honcho start`, with nothing but a checkout: runs, stops without leaving an execution stuck, and goes on."""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from celery_agents.current import enqueue
from celery_agents.host.runtime import Runtime, runtime_of
from tests.flower.watched_agents import research
from tests.flower.watching import Flower
from tests.services.commands import ROOT, Command, environment, wait_until
from tests.services.machine import scaled
from tests.services.process import free_port

pytestmark = pytest.mark.crash


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    shutil.copy(ROOT / "Procfile", tmp_path)
    # With so long a lease, an execution goes on in time only if its lease was given back.
    return environment(
        AGENTS_IMPORTS="tests.flower.watched_agents",
        AGENTS_LEASE_SECONDS="600",
        AGENTS_SWEEP_SECONDS="0.5",
        AGENTS_RING_SECONDS="1",  # a bell that honcho's SIGKILL took with the worker is rung again
        FLOWER_PORT=str(free_port()),
    )


@pytest.fixture
def runtime(tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AGENTS_HOME", str(tmp_path / ".agents"))
    from celery_agents.celery import make_app

    app = make_app()
    yield runtime_of(app)
    runtime_of(app).store.close()
    app.close()


@pytest.mark.parametrize(
    "stop",
    [pytest.param(signal.SIGINT, id="ctrl-c", marks=pytest.mark.full), pytest.param(signal.SIGTERM, id="sigterm")],
)
def test_an_execution_goes_on_after_honcho_is_stopped(
    tmp_path: Path, env: dict[str, str], runtime: Runtime, stop: signal.Signals
) -> None:
    gates = tmp_path / "gates"
    gates.mkdir()
    with honcho(tmp_path, env) as first:
        first.wait_for("ready.")
        flower = Flower(int(env["FLOWER_PORT"]))
        wait_until("Flower up", flower.is_up)
        execution = enqueue(research, {"folder": str(gates), "api_key": "x"}, runtime=runtime)
        wait_until("the first step", (gates / "think.reached").exists)
        family = psutil.Process(first.process.pid).children(recursive=True)
        os.kill(first.process.pid, stop)
        first.wait()
        wait_until("no process is left", lambda: not any(is_alive(member) for member in family))
        print(first.output)
    assert not execution.state.is_over
    (gates / "think").touch()
    (gates / "tool").touch()
    (gates / "write").touch()
    with honcho(tmp_path, env):
        wait_until("the question", lambda: execution.question)
        execution.resume("yes")
        execution.wait_for_approval(timeout=scaled(30))
        execution.approve()
        assert execution.wait(timeout=scaled(30)) == "published: yes"
    names = [step.name for step in execution.steps()]
    assert names == ["think", "look_up", "ask", "approve publish", "publish", "write"]


@contextlib.contextmanager
def honcho(folder: Path, env: dict[str, str]) -> Iterator[Command]:
    """A `honcho start` whose whole family is gone in the end: its children have sessions of their own."""
    command = Command("honcho start", cwd=folder, env=env, log=folder / "honcho.log")
    family: list[psutil.Process] = []
    try:
        yield command
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(command.process.pid).children(recursive=True)
        command.kill()
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
