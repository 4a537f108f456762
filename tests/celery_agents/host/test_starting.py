"""A worker that could not work does not start, and says in one sentence what to change."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from celery_agents.celery import make_app
from celery_agents.host.bootsteps import Preflight
from celery_agents.host.home import Home, home_of
from celery_agents.host.runtime import runtime_of
from tests.services.machine import scaled


def start(folder: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs `celery -A celery_agents worker` until it ends; one that starts after all is stopped after a while."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AGENTS_")}
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "celery_agents", "worker", "-c", "1", *options],
        cwd=folder,
        env=clean | {"AGENTS_HOME": str(folder / "home"), "PYTHONWARNINGS": "default"} | environ,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"AGENTS_STORE_URL": "memory://"}, "the worker's pool forks"),
        ({"AGENTS_STORE_URL": "mongodb://x"}, "unknown store scheme 'mongodb'"),
        ({"AGENTS_STORE_URL": "redis://127.0.0.1:1/0"}, "the store at redis://127.0.0.1:1/0 is not available"),
        ({"AGENTS_LEASE_SECONDS": "soon"}, "agents_lease_seconds"),
        ({"AGENTS_LEESE_SECONDS": "3"}, "agents_leese_seconds: no such setting"),
    ],
)
def test_a_worker_that_could_not_work_does_not_start(tmp_path: Path, environ: dict[str, str], sentence: str) -> None:
    ended = start(tmp_path, **environ)
    assert ended.returncode != 0
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_database_that_was_not_migrated_is_said_so(tmp_path: Path, postgresql_database_url: str) -> None:
    ended = start(tmp_path, AGENTS_STORE_URL=postgresql_database_url)
    assert ended.returncode != 0
    assert "agents migrate" in ended.stderr
    assert "Traceback" not in ended.stderr


def said_until_ready(folder: Path, **environ: str) -> str:
    """What a worker logs until it is ready; then it is stopped."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AGENTS_")}
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_agents", "worker", "-P", "solo", "--loglevel=INFO"],
        cwd=folder,
        env=clean | {"AGENTS_HOME": str(folder / "home")} | environ,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert worker.stderr is not None
    said = ""
    try:
        for line in worker.stderr:
            said += line
            if " ready." in line:
                break
    finally:
        worker.terminate()
        worker.communicate(timeout=scaled(30))
    assert " ready." in said, said
    return said


def test_a_worker_starts_without_its_archive_and_says_so(tmp_path: Path) -> None:
    said = said_until_ready(
        tmp_path,
        AGENTS_STORE_URL=f"sqlite:///{tmp_path}/hot.db",
        AGENTS_ARCHIVE_URL="postgresql://nobody@127.0.0.1:1/none",
    )
    assert "the archive of finished executions is away" in said


def test_a_worker_that_knows_no_agent_warns_of_it(tmp_path: Path) -> None:
    assert "this worker knows no agent" in said_until_ready(tmp_path)


def test_a_worker_says_which_agents_it_knows(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from celery_agents import agent\n\n@agent\ndef refund(run, input): ...\n\n@agent\ndef buy(run, input): ...\n"
    )
    said = said_until_ready(tmp_path, AGENTS_IMPORTS="shop")
    assert "agents: buy, refund" in said
    assert "knows no agent" not in said


def test_an_archive_that_was_not_migrated_is_refused(tmp_path: Path, postgresql_database_url: str) -> None:
    ended = start(tmp_path, AGENTS_STORE_URL=f"sqlite:///{tmp_path}/hot.db", AGENTS_ARCHIVE_URL=postgresql_database_url)
    assert ended.returncode != 0
    assert "agents migrate" in ended.stderr


@pytest.mark.parametrize("name", ["AGENTS_HOME", "AGENTS_BROKER_URL", "AGENTS_RESULT_BACKEND", "AGENTS_IMPORTS"])
def test_an_empty_variable_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """`.env` files and compose files leave them so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for other in ("AGENTS_HOME", "AGENTS_BROKER_URL", "AGENTS_RESULT_BACKEND", "AGENTS_IMPORTS", "AGENTS_STORE_URL"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "")
    app = make_app()
    assert app.conf.broker_url == "filesystem://localhost/"
    assert app.conf.result_backend == f"db+sqlite:///{tmp_path}/.agents/results.db"
    assert home_of(app) == Home(tmp_path / ".agents", ("executions.db", "results.db"))
    app.close()


def test_a_worker_reads_the_serializer_that_bells_are_written_with() -> None:
    check = Preflight._check_serializer
    check("json", ["json"])
    check("json", ["application/json"])
    check("pickle", ["json", "pickle"])
    for name, accepted in (("pickle", ["json"]), ("json", ["yaml"]), ("klingon", ["json"]), ("json", None)):
        with pytest.raises(click.ClickException, match=name):
            check(name, accepted)


def test_a_green_pool_is_refused_unless_it_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is installed here, so the pools are named and not run."""
    monkeypatch.setenv("AGENTS_HOME", str(tmp_path / "home"))
    for pool in ("gevent", "eventlet"):
        for allowed in (False, True):
            app = make_app()
            app.conf.agents_allow_green = allowed
            runtime = runtime_of(app)
            worker = SimpleNamespace(
                pool_cls=type("TaskPool", (), {"__module__": f"celery.concurrency.{pool}"}), app=app
            )
            if allowed:
                Preflight._check(runtime, worker)
            else:
                with pytest.raises(click.ClickException, match=f"the {pool} pool.*--pool=threads.*agents_allow_green"):
                    Preflight._check(runtime, worker)
            runtime.store.close()
            app.close()
