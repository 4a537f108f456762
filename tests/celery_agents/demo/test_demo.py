"""`python -m celery_agents.demo` from its first line to its last, and that its proof can fail."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.services.machine import scaled

pytestmark = pytest.mark.crash


def start_demo(home: Path, *options: str) -> "subprocess.Popen[str]":
    """Start the demo, with nobody at the terminal, and with settings around that must not reach it."""
    return subprocess.Popen(
        [sys.executable, "-m", "celery_agents.demo", "--home", str(home), *options],
        cwd=home.parent,
        env={**os.environ, "AGENTS_BROKER_URL": "amqp://nowhere", "CELERY_BROKER_URL": "amqp://nowhere"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(demo: "subprocess.Popen[str]") -> tuple[int, list[str]]:
    """Its exit code and its lines."""
    try:
        output, _ = demo.communicate(timeout=scaled(120))
    finally:
        demo.terminate()
    return demo.returncode, output.splitlines()


def processes_of(home: Path) -> list[psutil.Process]:
    """Workers that still run on the demo's files."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AGENTS_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_everything_that_it_claims_holds(tmp_path: Path) -> None:
    # It needs no checkout: it runs in any folder, also in that of a project whose names collide with Celery's.
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker/__init__.py").write_text("raise RuntimeError('somebody else')")
    home = tmp_path / "demo"
    exit_code, lines = ended(start_demo(home))
    assert exit_code == 0, "\n".join(lines)
    assert lines[0].startswith("celery-agents: a worker is killed")
    assert lines[-1].startswith("Everything held, after ")
    closing = lines[lines.index("What this proved") + 1 : -3]
    assert len(closing) == 7
    assert all(line.startswith("  ok  ") for line in closing)
    assert max(map(len, closing)) <= 80
    assert any("went on at step" in line and line.endswith("s after the kill") for line in lines)
    assert any('answered "yes" by the demo' in line for line in lines)
    assert (home / "report-killed.md").read_bytes() == (home / "report-undisturbed.md").read_bytes()
    assert processes_of(home) == []


@pytest.mark.full
def test_no_is_an_answer_too(tmp_path: Path) -> None:
    exit_code, lines = ended(start_demo(tmp_path, "--answer", "no"))
    assert exit_code == 0, "\n".join(lines)
    assert any(line.startswith("  ok  no side effect") for line in lines)
    assert not (tmp_path / "report-killed.md").exists()


def test_a_recorded_step_that_runs_again_fails_the_proof(tmp_path: Path) -> None:
    ledger = tmp_path / "calls-killed.txt"
    demo = start_demo(tmp_path)
    while demo.poll() is None and not (ledger.exists() and ledger.read_text().endswith("\n")):
        time.sleep(0.01)
    with ledger.open("a") as file:
        file.write("1\tlist distributions\n")
    exit_code, lines = ended(demo)
    assert exit_code == 1, "\n".join(lines)
    assert "  FAILED  no recorded step ran again  list distributions: 2 calls" in lines, "\n".join(lines)
    assert lines[-1].startswith("NOT everything held, after ")


def test_it_leaves_no_process_behind_when_it_is_stopped(tmp_path: Path) -> None:
    demo = start_demo(tmp_path)
    while demo.poll() is None and not (tmp_path / "calls-killed.txt").exists():
        time.sleep(0.01)
    demo.terminate()
    exit_code, _ = ended(demo)
    assert exit_code == 128 + 15
    assert processes_of(tmp_path) == []


def test_it_does_not_touch_a_folder_that_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    exit_code, lines = ended(start_demo(tmp_path))
    assert exit_code == 2
    assert lines[-1].endswith("is not empty")


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    exit_code, lines = ended(start_demo(tmp_path / "mine.txt"))
    assert exit_code == 2
    assert "mine.txt cannot be used (" in "".join(lines)
