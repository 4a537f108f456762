"""pytest-celery's nodes as local processes: they stand where it expects containers, and need no Docker."""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
from pytest_celery import CeleryTestContainer, CeleryWorkerContainer, RedisContainer

from tests.crash.ledger import FOLDER_VARIABLE, WORKER_VARIABLE
from tests.services.freezing import wait_until_frozen
from tests.services.machine import Patience, machine, usual_start_seconds, wait_for_exit
from tests.services.redis import RedisServer
from tests.services.warm import WarmProcess

ROOT = Path(__file__).parents[2]
# As on a usual machine; see `machine`.
READY_SECONDS = 60.0
EXIT_SECONDS = 30.0


class ProcessMixin:
    """What pytest-celery reads of any container."""

    def __init__(self, name: str, env: dict[str, str] | None = None) -> None:
        # Not the container's constructor: there is no container.
        self._name = name
        self._env = env or {}

    @property
    def env(self) -> dict[str, str]:
        return self._env

    @property
    def id(self) -> str:
        return self._name

    @property
    def name(self) -> str:
        return self._name

    @property
    def attrs(self) -> dict[str, Any]:
        return {"Config": {"Hostname": "127.0.0.1"}}

    @property
    def status(self) -> str:
        return "running"

    def reload(self) -> None:
        """A process needs no refreshing."""

    def logs(self) -> str:
        return ""

    def ready(self) -> bool:
        return True


class RedisProcess(ProcessMixin, RedisContainer):
    """A Redis node on a server that a fixture starts and stops."""

    def __init__(self, server: RedisServer, vhost: str) -> None:
        super().__init__(f"redis-{server.port}-{vhost}")
        self.server = server
        self._vhost = vhost

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.server.port}/{self._vhost}"

    @property
    def host_url(self) -> str:
        return self.url

    @property
    def hostname(self) -> str:
        return "127.0.0.1"

    @property
    def port(self) -> int:
        assert self.server.port is not None
        return self.server.port

    @property
    def vhost(self) -> str:
        return self._vhost

    @property
    def status(self) -> str:
        return "running" if self.server.is_ready() else "exited"

    def kill(self, signal: str | int | None = None) -> None:
        del signal
        self.server.kill()

    def restart(self, timeout: float = 10) -> None:
        del timeout
        self.server.kill()
        self.server.start()

    def logs(self) -> str:
        return self.server.log()


class FolderNode(ProcessMixin, CeleryTestContainer):
    """A broker or result backend that is files in a folder: nothing to start, nothing to kill."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url

    @property
    def celeryconfig(self) -> dict[str, Any]:
        return {"url": self.url, "host_url": self.url}


class WorkerProcess(ProcessMixin, CeleryWorkerContainer):
    """A worker as users start it, in a process group of its own, so that one signal reaches parent and children."""

    def __init__(self, name: str, pool: str, folder: Path, env: dict[str, str]) -> None:
        super().__init__(name, env | {FOLDER_VARIABLE: str(folder), WORKER_VARIABLE: name})
        self._folder = folder
        self._arguments = self.command(name, pool)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AGENTS_")}
        self._environ = inherited | self.env | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self._log = folder / f"{name}.log"
        self._log_before_start = 0
        self._started_at = 0.0
        self._start_seconds: float | None = None
        self._process: WarmProcess | None = None

    @classmethod
    def command(
        cls, *args: str, debugpy: bool = False, wait_for_client: bool = True, **kwargs: dict[str, Any]
    ) -> list[str]:
        """The command line of a worker after `celery`, given its name and its pool."""
        del debugpy, wait_for_client, kwargs
        name, pool = args
        return [
            *("-A", "celery_agents", "worker"),
            *("-P", pool, "-c", "2", "-n", f"{name}@%h", "-E", "-l", "INFO"),
            # They only make the start faster.
            *("--without-mingle", "--without-gossip"),
        ]

    def start(self) -> None:
        """Starts the worker, and does not wait for it."""
        assert self._process is None
        self._log_before_start = self._log.stat().st_size if self._log.exists() else 0
        self._started_at, self._start_seconds = time.monotonic(), None
        self._process = WarmProcess(self._arguments, cwd=self._folder, env=self._environ, log=self._log)

    @property
    def status(self) -> str:
        return "running" if self._process is not None and self._process.poll() is None else "exited"

    def ready(self) -> bool:
        """Waits until it takes messages."""
        patience = Patience(READY_SECONDS)
        while not self.is_ready:
            assert self.status == "running", f"worker {self.name} ended at its start:\n{self.logs()}"
            assert not patience.is_over, f"worker {self.name} is not ready:\n{self.logs()}"
            time.sleep(0.02)
        return True

    @property
    def is_ready(self) -> bool:
        """Whether it takes messages by now. How long that took is noted as a measurement of the machine."""
        if self._start_seconds is None and self.ready_prompt in self._logs_of_this_start():
            self._start_seconds = time.monotonic() - self._started_at
            machine.note_start(self._start_seconds, usual_start_seconds(self._process))
        return self._start_seconds is not None

    def kill(self, signal: str | int | None = None) -> None:
        """SIGKILL takes the whole group at one moment; any other signal goes to the parent, as from a supervisor."""
        number = _signal_number(signal)
        if self.status != "running":
            return
        assert self._process is not None
        if number == _SIGKILL:
            self._kill_group()
        else:
            self._process.send_signal(number)

    def kill_group(self, signal: str | int) -> None:
        """Sends the signal to every process of the worker, as a terminal and some supervisors do."""
        self._signal_group(_signal_number(signal))

    def pause(self) -> None:
        """Freezes every process of the worker."""
        self._signal_group(signal.SIGSTOP)
        for pid in self.pids():
            wait_until_frozen(pid)

    def unpause(self) -> None:
        """Ends a `pause`."""
        self._signal_group(signal.SIGCONT)

    def exec_run(self, command: str) -> tuple[int, bytes]:
        """Runs a command beside the worker."""
        done = subprocess.run(shlex.split(command), env=self._environ, capture_output=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def wait(self, timeout: float) -> int:
        """The exit status, once the worker has ended."""
        assert self._process is not None
        return wait_for_exit(self._process, timeout)

    def restart(self, timeout: float = 10) -> None:
        """Starts it again, and waits for it; whatever is left of it is killed first."""
        del timeout
        self.start_again()
        self.ready()

    def start_again(self) -> None:
        """Starts it again, and does not wait for it."""
        self._kill_group()
        self.start()

    @property
    def main_pid(self) -> int:
        """The parent's process id."""
        assert self._process is not None
        return self._process.pid

    def pids(self) -> set[int]:
        """The process ids of parent and children."""
        if self._process is None:
            return set()
        try:
            parent = psutil.Process(self._process.pid)
            return {parent.pid, *(child.pid for child in parent.children(recursive=True))}
        except psutil.NoSuchProcess:
            return set()

    def logs(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def teardown(self) -> None:
        """Leaves no process behind."""
        self._kill_group()

    def _logs_of_this_start(self) -> str:
        if not self._log.exists():
            return ""
        return self._log.read_bytes()[self._log_before_start :].decode(errors="replace")

    def _signal_group(self, number: int) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def _kill_group(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # the group has ended by itself
            self._signal_group(signal.SIGKILL)
        wait_for_exit(self._process, EXIT_SECONDS)
        self._process = None


_SIGKILL = signal.SIGKILL


def _signal_number(given: str | int | None) -> int:
    if given is None:
        return _SIGKILL
    return given if isinstance(given, int) else signal.Signals[given]
