import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from celery_agents import Registry, install
from celery_agents.host.runtime import Runtime, runtime_of
from tests.celery_agents.cli.cli_driving import CLI, make_app
from tests.celery_agents.driving import Calls, Engine


@pytest.fixture
def engine() -> Engine:
    """An engine on an in-memory store."""
    return Engine()


@pytest.fixture
def calls() -> Calls:
    """A ledger of effects."""
    return Calls()


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """A user's own app with agents installed, on kombu's in-memory broker and SQLite; no worker runs."""
    app = Celery("theirs", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = f"queue-{uuid.uuid4().hex}"  # the in-memory broker is one for the whole process
    app.conf.agents_store_url = f"sqlite:///{tmp_path}/executions.db"
    install(app, registry=Registry())
    runtime = runtime_of(app)
    yield runtime
    runtime.store.close()
    app.close()


@pytest.fixture
def unused_port() -> int:
    """A port of this host on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("AGENTS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[CLI]:
    app = make_app(f"sqlite:///{tmp_path}/s.db", "memory://")
    cli = CLI(app)
    cli.store.check()  # commands that only read make no file
    cli.bells()
    yield cli
    cli.bells()
    cli.store.close()
    app.close()
