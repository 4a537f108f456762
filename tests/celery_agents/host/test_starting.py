"""A worker that could not work does not start, and says in one sentence what to change."""

import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from celery_agents.celery import make_app
from celery_agents.host.bootsteps import Preflight
from celery_agents.host.home import Home, home_of
from celery_agents.host.runtime import runtime_of
from tests.services.commands import Command, environment


def worker(folder: Path, *options: str, warm: bool, **environ: str) -> Command:
    """`celery -A celery_agents worker`, which is started as users start it unless it is `warm`."""
    return Command(
        ["celery", "-A", "celery_agents", "worker", *options],
        cwd=folder,
        env=environment(AGENTS_HOME=str(folder / "home"), PYTHONWARNINGS="default", **environ),
        log=folder / "said",
        warm=warm,
    )


def refused(command: Command) -> str:
    """What a worker says that ends by itself, with an error and without a traceback."""
    with command:
        assert command.wait(60) != 0
        assert "Traceback" not in command.output
        return command.output


def test_a_worker_that_could_not_work_does_not_start(tmp_path: Path) -> None:
    sentences = {
        ("AGENTS_STORE_URL", "memory://"): "the worker's pool forks",
        ("AGENTS_STORE_URL", "mongodb://x"): "unknown store scheme 'mongodb'",
        ("AGENTS_STORE_URL", "redis://127.0.0.1:1/0"): "the store at redis://127.0.0.1:1/0 is not available",
        ("AGENTS_LEASE_SECONDS", "soon"): "agents_lease_seconds",
        ("AGENTS_LEESE_SECONDS", "3"): "agents_leese_seconds: no such setting",
    }
    folders = {setting: tmp_path / str(number) for number, setting in enumerate(sentences)}
    for folder in folders.values():
        folder.mkdir()
    started = {
        (name, value): worker(folder, "-c", "1", warm=True, **{name: value})
        for (name, value), folder in folders.items()
    }
    said = {setting: refused(command) for setting, command in started.items()}
    assert [setting for setting, sentence in sentences.items() if sentence not in said[setting]] == [], said


def test_one_that_is_started_as_users_do_says_so_too(tmp_path: Path, postgresql_database_url: str) -> None:
    started = worker(tmp_path, "-c", "1", warm=False, AGENTS_STORE_URL=postgresql_database_url)
    assert "agents migrate" in refused(started)


def said_until_ready(folder: Path, *, warm: bool = True, **environ: str) -> str:
    """What a worker logs until it is ready; then it is stopped."""
    with worker(folder, "-P", "solo", "--loglevel=INFO", warm=warm, **environ) as command:
        said = command.wait_for(" ready.").output
        command.send(signal.SIGTERM)
        command.wait()
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
    said = said_until_ready(tmp_path, warm=False, AGENTS_IMPORTS="shop")
    assert "agents: buy, refund" in said
    assert "knows no agent" not in said


def test_an_archive_that_was_not_migrated_is_refused(tmp_path: Path, postgresql_database_url: str) -> None:
    hot = f"sqlite:///{tmp_path}/hot.db"
    environ = {"AGENTS_STORE_URL": hot, "AGENTS_ARCHIVE_URL": postgresql_database_url}
    assert "agents migrate" in refused(worker(tmp_path, "-c", "1", warm=True, **environ))


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
