"""Programs that an agent starts can write where the worker does, whatever Celery put in the place of its streams."""

from pathlib import Path

import pytest

from tests.celery_agents.their_workers import client_of, start, worker
from tests.services.machine import scaled

AGENTS = """
import subprocess
import sys

from celery_agents import agent

def shout(word: str) -> int:
    return subprocess.run([sys.executable, "-c", f"import sys; sys.exit(print({word!r}, file=sys.stderr))"],
                          stderr=sys.stderr, check=True).returncode

@agent
def shouter(run, input: str) -> int:
    return run.step("shout", shout, input)
"""


@pytest.mark.crash
def test_a_program_can_be_given_the_worker_s_standard_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_of(tmp_path, AGENTS, monkeypatch) as client, worker(tmp_path, "-P prefork -c 1") as running:
        execution = start(client, "shouter", "hello from outside")
        assert execution.wait(scaled(30)) == 0
        running.wait_for("hello from outside")
