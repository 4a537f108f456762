"""Real workers on the embedded defaults, with agents that the test's own process has no code of."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from celery_agents.celery import make_app
from celery_agents.client.execution import Execution
from celery_agents.host.runtime import Runtime, runtime_of
from tests.services.commands import Command, environment


@contextmanager
def client_of(folder: Path, agents: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A client of the installation in the folder, whose workers import these agents."""
    (folder / "their_agents.py").write_text(agents)
    monkeypatch.setenv("AGENTS_HOME", str(folder / "home"))
    for name in ("AGENTS_STORE_URL", "AGENTS_BROKER_URL", "AGENTS_RESULT_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    app = make_app()
    runtime = runtime_of(app)
    try:
        yield runtime
    finally:
        runtime.store.close()
        app.close()


def their_environment(folder: Path, **settings: str) -> dict[str, str]:
    """What the processes of the installation in the folder run in."""
    quick = {"AGENTS_WATCH_SECONDS": "0.2", "AGENTS_SWEEP_SECONDS": "0.5"}
    env = environment(AGENTS_HOME=str(folder / "home"), AGENTS_IMPORTS="their_agents", **quick | settings)
    env["PYTHONPATH"] += f":{folder}"
    return env


def worker(folder: Path, options: str, *, log: str = "worker.log", **settings: str) -> Command:
    """A worker of the installation in the folder, ready."""
    arguments = f"celery -A celery_agents worker -l INFO --without-mingle --without-gossip {options}"
    env = their_environment(folder, **settings)
    return Command(arguments, cwd=folder, env=env, log=folder / log, warm=True).wait_for("ready.")


def start(client: Runtime, name: str, value: Any, **fields: Any) -> Execution:
    """Starts an execution of an agent that this process has no code of."""
    context = client.store.create_context(name, value, **fields)
    client.ring(context)
    return Execution(context.execution_id, client)
