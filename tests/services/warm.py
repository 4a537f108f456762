"""`celery` commands as processes that need not import Celery first.

The start of a worker is mostly the import of Celery, of its command line and of the drivers, and the tests start
hundreds of workers. So one process per session, multiprocessing's fork server, imports them once, and each command is
forked from it: a process of its own as any other, with its own id, session, environment, folder and log.
The tests of the start itself, of the demo and of what is deployed start their commands in the usual way.
"""

import atexit
import contextlib
import ctypes
import functools
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Final

# What a worker, a beat and Flower import. Nothing in it reads the environment or holds an app.
PRELOADED: Final = (
    *(
        "celery.bin.celery",
        "celery.apps.worker",
        "celery.apps.beat",
        "celery.worker.consumer",
        "celery.contrib.testing",
    ),
    *("celery.concurrency.prefork", "celery.concurrency.thread", "celery.concurrency.solo", "celery.utils.dispatch"),
    *("celery.backends.database", "celery.backends.redis", "celery.events.state", "celery.worker.state"),
    *("kombu.transport.redis", "kombu.transport.filesystem", "flower.command", "flower.app", "flower.urls"),
    *("celery_agents.host.install", "celery_agents.host.bootsteps", "celery_agents.host.files_broker"),
    *("celery_agents.host.pool_pipes", "celery_agents.cli", "celery_agents.aio"),
    *("agent_statestore.sql.opening", "agent_statestore.sql.store", "agent_statestore.redis.opening"),
    *("agent_statestore.sql.sqlite.database", "agent_statestore.sql.postgresql.database"),
    *("agent_statestore.sql.mysql.database", "agent_statestore.hybrid.opening", "psycopg", "pymysql"),
    *("agent_statestore.sql.schema.schema", "agent_statestore.testing", "alembic.command", "pytest"),
)
_more: Final[list[str]] = []
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class _Start:
    """What makes the forked process the one that was asked for."""

    arguments: tuple[str, ...]
    cwd: str
    environment: dict[str, str]
    log: str
    import_path: tuple[str, ...]


class WarmProcess:
    """A running `celery` command, as `subprocess.Popen` would have it. It does not outlive the tests' process."""

    def __init__(self, arguments: list[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> None:
        """Starts it. `arguments` are what follows `celery`; output goes to the end of the log."""
        self.args = ["celery", *arguments]
        log.touch()
        start = _Start(tuple(self.args), str(cwd), dict(env), str(log.resolve()), _import_path())
        self._process = multiprocessing.get_context("forkserver").Process(target=_become, args=(start,), daemon=True)
        # Whether the server had been started before.
        self.is_warm = forkserver._forkserver._forkserver_pid is not None  # type: ignore[attr-defined] # no public way
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or minus the signal that killed it. None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end. Raises `subprocess.TimeoutExpired` if it does not come."""
        self._process.join(timeout)
        status = self.returncode
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Sends a signal to this process alone; none if it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended at this moment
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def preload(*more: str) -> None:
    """Makes multiprocessing's fork server, which is started by the first process that is wanted of it, a warm one.

    `more` are modules beside `PRELOADED`; those of several calls add up.
    """
    _more.extend(name for name in more if name not in _more)
    multiprocessing.set_forkserver_preload([__name__, *PRELOADED, *_more])


@functools.cache
def _import_path() -> tuple[str, ...]:
    """Where a Python of this environment looks for modules when nobody tells it more."""
    program = "import sys; print(*sys.path[1:], sep='\\n')"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    said = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True).stdout
    return tuple(said.splitlines())


def _become(start: _Start) -> None:
    """Turns the forked process into the command: what `execve` and the start of Python do otherwise."""
    os.setsid()
    # While any process holds it, the server lives; with the server this process dies, on Linux, as its child.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined] # no public way
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir(start.cwd)
    os.environ.clear()
    os.environ.update(start.environment)
    time.tzset()
    _redirect(start.log)
    given = [part for part in start.environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [start.cwd, *given, *start.import_path]
    sys.argv[:] = start.arguments
    importlib.invalidate_caches()
    multiprocessing.current_process().name = "MainProcess"  # as logs have it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from celery.__main__ import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()


def _redirect(log: str) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the life of the process
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = open(number, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
