"""Dockerfile: what it copies is there and not ignored, and its pip line makes an environment that works."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services.commands import ROOT
from tests.services.process import absent

LINES = (ROOT / "Dockerfile").read_text().splitlines()
COPIED = [
    source
    for line in LINES
    if line.startswith("COPY ") and "--from" not in line
    for source in [word for word in line.split()[1:-1] if not word.startswith("--")]
]


def test_it_copies_only_what_exists_and_is_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert COPIED
    assert set(COPIED) == allowed
    for source in COPIED:
        assert (ROOT / source).exists(), source


def test_it_runs_as_an_ordinary_user() -> None:
    assert [line for line in LINES if line.startswith("USER ")] == ["USER agents"]


@pytest.mark.timeout(600)  # pip downloads and installs some fifty packages
def test_its_pip_line_installs_all_that_the_services_need(tmp_path: Path) -> None:
    source, venv = tmp_path / "src", tmp_path / "venv"
    source.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    (line,) = [found[1] for text in LINES if (found := re.search(r"&& (/venv/bin/pip install .*)", text))]
    command = line.replace("/venv/", f"{venv}/").replace("--no-cache-dir ", "")
    installed = run(command.replace(f"{venv}/bin/pip install", f"uv pip install --python {venv}"), source)
    if installed.returncode:  # no uv, or no packages where it looks without pip's settings
        installed = run(command, source)
    if installed.returncode and re.search(
        r"Temporary failure|NewConnectionError|No matching distribution", installed.stderr
    ):
        absent("package index", "pip cannot reach it, or a dependency does not exist there")
    assert installed.returncode == 0, installed.stderr
    work = tmp_path / "app"
    work.mkdir()
    for command in ("worker --help", "agents --help", "flower --help"):
        done = run(f"{venv}/bin/celery -A celery_agents {command}", work)
        assert done.returncode == 0, done.stderr
    imports = "import psycopg, redis, agent_statestore.redis, agent_statestore.sql, celery_agents.flower.pages"
    done = run(f'{venv}/bin/python -c "{imports}"', work)
    assert done.returncode == 0, done.stderr
    # The agent that honcho and the demo run.
    done = run(f"{venv}/bin/python -m celery_agents.demo --help", work)
    assert done.returncode == 0, done.stderr
    assert list(venv.rglob("celery_agents/demo/environment_audit/agent.py"))
    assert list(venv.rglob("agent_statestore/redis/scripts/*.lua"))
    assert list(venv.rglob("agent_statestore/sql/schema/migrations/versions/0*.py"))


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a shell command as the image would."""
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
