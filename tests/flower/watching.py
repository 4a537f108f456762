"""Workers, a Flower and a client on one broker and one store, and what Flower says of them."""

import contextlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from celery_agents import Agent, Execution
from celery_agents.current import enqueue
from celery_agents.host.runtime import runtime_of
from tests.services.commands import ROOT, Command, environment, wait_until
from tests.services.machine import scaled
from tests.services.process import free_port

SECRET = "sk-this-is-nobodys-business"
FAST = {
    "AGENTS_LEASE_SECONDS": "2",
    "AGENTS_SWEEP_SECONDS": "0.5",
    "AGENTS_WATCH_SECONDS": "0.2",
    "AGENTS_IMPORTS": "tests.flower.watched_agents",
}


class Flower:
    """Flower's HTTP side."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def text(self, path: str, *, method: str = "GET", accept: str = "text/html") -> str:
        """The body of a page."""
        data = b"" if method == "POST" else None
        request = urllib.request.Request(self.url + path, method=method, data=data, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=scaled(20)) as response:
            body: bytes = response.read()
        return body.decode()

    def json(self, path: str, *, method: str = "GET") -> Any:
        """An answer of the API."""
        return json.loads(self.text(path, method=method, accept="application/json"))

    def is_up(self) -> bool:
        """Whether it answers at all."""
        with contextlib.suppress(OSError):
            return self.text("/healthcheck").strip() == "OK"
        return False

    def task(self, execution_id: str) -> dict[str, Any]:
        """What it knows of a task; nothing if it has not heard of it."""
        try:
            found: dict[str, Any] = self.json(f"/api/task/info/{execution_id}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return {}
        return found

    def wait_for(self, execution_id: str, state: str, **fields: object) -> dict[str, Any]:
        """Waits until it shows a state, and other fields of the task."""
        wanted = {"state": state} | fields
        seen: dict[str, Any] = {}

        def look() -> dict[str, Any] | None:
            seen.clear()
            seen.update(self.task(execution_id))
            return dict(seen) if all(seen.get(name) == value for name, value in wanted.items()) else None

        try:
            return wait_until(f"{wanted}", look)
        except AssertionError as error:
            raise AssertionError(f"{error}; Flower shows {seen}") from error

    def revoke(self, execution_id: str, *, terminate: bool) -> None:
        """Presses the button."""
        query = urllib.parse.urlencode({"terminate": str(terminate).lower()})
        self.json(f"/api/task/revoke/{execution_id}?{query}", method="POST")


class Watched:
    """One installation under watch. Everything it starts is killed at its end."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self._stack = stack
        self.env = environment(**FAST, AGENTS_HOME=str(folder / "home"), AGENTS_SENT_EVENT="1", **settings)
        port = free_port()
        self.flower = Flower(port)
        self._start(
            "flower",
            f"celery -A celery_agents flower --address=127.0.0.1 --port={port} --conf={ROOT}/flowerconfig.py",
            {"FLOWER_UNAUTHENTICATED_API": "true"},
        )
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.env.items():
                patch.setenv(name, value)
            from celery_agents.celery import make_app  # here, because the module makes an app of its own in AGENTS_HOME

            self.app = make_app()
            self.runtime = runtime_of(self.app)
            _ = self.runtime.settings
        stack.callback(self.app.close)
        stack.callback(self.runtime.store.close)

    def start_worker(self, name: str, pool: str = "prefork", concurrency: int = 2) -> Command:
        """A worker that Flower sees online."""
        command = self._start(
            name,
            f"celery -A celery_agents worker -l INFO -E -P {pool} -c {concurrency} -n {name}@here "
            "--without-mingle --without-gossip",
            {},
        )
        command.wait_for("ready.")
        wait_until(
            f"worker {name} in Flower", lambda: f'flower_worker_online{{worker="{name}@here"}} 1.0' in self.metrics
        )
        return command

    @property
    def metrics(self) -> str:
        """What Prometheus would scrape."""
        return self.flower.text("/metrics")

    def enqueue(self, agent: Agent, gates: Path) -> Execution:
        """Starts an execution with gates in a folder of its own and a secret."""
        gates.mkdir()
        return enqueue(agent, {"folder": str(gates), "api_key": SECRET}, runtime=self.runtime)

    def result_state(self, execution: Execution) -> str:
        """What Celery's own handle of the task says."""
        state: str = self.app.AsyncResult(execution.id).state
        return state

    def broker_files(self) -> Iterator[str]:
        """Each file of the embedded broker, also those that a process takes away meanwhile."""
        for path in (self.folder / "home" / "broker").rglob("*"):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                yield path.read_text(errors="replace")

    def _start(self, name: str, arguments: str, env: Mapping[str, str]) -> Command:
        log = self.folder / f"{name}-{time.monotonic_ns()}.log"
        return self._stack.enter_context(Command(arguments, cwd=self.folder, env=self.env | env, log=log, warm=True))


def reached(gates: Path, name: str) -> None:
    """Waits until a step stands before its gate."""
    wait_until(f"a step at gate {name!r}", (gates / f"{name}.reached").exists)


def open_gate(gates: Path, name: str) -> None:
    """Lets a step go on."""
    (gates / name).touch()
