"""The same workers in containers: `CRASH_TESTS_IN_CONTAINERS=1 pytest -m crash`, where a Docker engine is.

Written against pytest-celery's and Docker's interfaces, and not part of any regular run: treat it as a start. Only the
workers move into containers. Servers stay local processes, which the workers reach through the host's network; the
test's folder is mounted at its own path, so that ledger, gates, SQLite files and the embedded broker are shared. Each
container has a PID namespace of its own, so workers take each other for other hosts, and only leases that run out
bring recovery: expect the kill tests to take their `lease_seconds` longer than with processes.
"""

import functools
import os
import sys
from pathlib import Path
from typing import Any

import docker
import psutil
from pytest_celery import CeleryWorkerContainer

from tests.crash.ledger import FOLDER_VARIABLE, WORKER_VARIABLE
from tests.crash.processes import ROOT, WorkerProcess

TAG = "celery-agents-crash-tests"
DOCKERFILE = """\
FROM python:{version}-slim
RUN apt-get update && apt-get install --yes --no-install-recommends procps && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip install --no-cache-dir "/src[redis,postgresql,mysql]" pydantic
"""


class WorkerContainer(CeleryWorkerContainer):  # type: ignore[misc] # pytest-celery carries no types
    """What a scenario does to a worker, done to a container."""

    @property
    def main_pid(self) -> int:
        """The parent's process id, as the engine's host sees it."""
        return int(self._container.attrs["State"]["Pid"])

    def pids(self) -> set[int]:
        """All its processes, as the engine's host sees them."""
        parent = psutil.Process(self.main_pid)
        return {parent.pid, *(child.pid for child in parent.children(recursive=True))}

    def pause(self) -> None:
        """Freezes every process of the container."""
        self._container.pause()

    def unpause(self) -> None:
        """Ends a `pause`."""
        self._container.unpause()

    def kill_group(self, signal: str) -> None:
        """Sends the signal to every process of the container."""
        self.exec_run(["sh", "-c", f"kill -s {signal.removeprefix('SIG')} -1; kill -s {signal.removeprefix('SIG')} 1"])

    def wait(self, timeout: float) -> int:
        """The exit status, once the worker has ended."""
        return int(self._container.wait(timeout=timeout)["StatusCode"])

    @property
    def is_ready(self) -> bool:
        """Whether it has ever taken messages."""
        return self.ready_prompt in self.logs()

    def start_again(self) -> None:
        """Starts it again, and does not wait for it."""
        self._container.start()
        self.reload()

    def teardown(self) -> None:
        """Leaves no container behind."""
        self._container.remove(force=True)


def start_worker(name: str, pool: str, folder: Path, env: dict[str, str]) -> WorkerContainer:
    """Starts a worker, and does not wait for it."""
    container = _client().containers.run(
        _image(),
        ["python", "-m", "celery", *WorkerProcess.command(name, pool)],
        detach=True,
        init=False,
        network_mode="host",
        user=f"{os.getuid()}:{os.getgid()}",
        working_dir=str(folder),
        environment=env
        | {FOLDER_VARIABLE: str(folder), WORKER_VARIABLE: name, "PYTHONPATH": "/src", "PYTHONUNBUFFERED": "1"},
        volumes={str(folder): {"bind": str(folder), "mode": "rw"}},
    )
    return WorkerContainer(container)


@functools.cache
def _client() -> Any:
    return docker.from_env()


@functools.cache
def _image() -> str:
    """Built once per run from this working copy."""
    dockerfile = DOCKERFILE.format(version=f"{sys.version_info.major}.{sys.version_info.minor}")
    path = ROOT / ".crash-tests.Dockerfile"
    path.write_text(dockerfile)
    try:
        _client().images.build(path=str(ROOT), dockerfile=str(path), tag=TAG)
    finally:
        path.unlink()
    return TAG
