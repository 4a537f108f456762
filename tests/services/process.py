"""A server process that a test starts, stops, kills and starts again."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil
import pytest

from tests.services.freezing import freeze
from tests.services.machine import Patience, wait_for_exit

# As on a usual machine; see `machine`.
START_SECONDS = 30.0
STOP_SECONDS = 20.0
PORT_TRIES = 5

ROOT = Path(__file__).parents[2]

T = TypeVar("T")


def absent(service: str, reason: str) -> None:
    """Skips the test on a laptop; in CI a missing service is a failure, not a hole in the coverage."""
    sentence = f"no {service}: {reason}"
    if os.environ.get("CI"):
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def found(service: str, program: T | None, hint: str) -> T:
    """What a search has found, or `absent`."""
    if program is None:
        absent(service, hint)
    assert program is not None
    return program


def free_port() -> int:
    """A port of the loopback interface that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Ends the server when this process dies without a word (a kill, a timeout): it is told which one to end on its standard
# input, and reads the end of that input as the death.
_WATCHDOG = """
import os, shutil, signal, sys, time
pid = 0
for line in sys.stdin:
    pid = int(line)
if pid >= 0:
    for number in (signal.SIGQUIT, signal.SIGKILL):
        try:
            os.kill(pid or 2**30, number)
            time.sleep(2)
        except ProcessLookupError:
            break
    shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


class ServerProcess(ABC):
    """One server on 127.0.0.1, with a folder of its own that `close` removes.

    The port is chosen at the first start and kept at each further one, so that `url` stays true across a restart.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"agents-{type(self).__name__.lower()}-"))
        self.port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(self.folder)],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        atexit.register(self.close)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """What is started."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server answers."""

    def prepare(self) -> None:  # noqa: B027 - most servers need nothing
        """Makes what the first start needs."""

    def user(self) -> str | None:
        """The system user that the server runs as, or None for the own one."""
        return None

    def make_folder(self, name: str) -> Path:
        """Makes a folder inside `folder` that belongs to the server's user."""
        path = self.folder / name
        path.mkdir(mode=0o700, exist_ok=True)
        user = self.user()
        if user is not None:
            self.folder.chmod(0o755)
            shutil.chown(path, user, primary_group(user))
        return path

    stop_signal = signal.SIGTERM

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has been started, and neither stopped nor killed since."""
        return self._process is not None

    def start(self) -> Self:
        """Starts the server and returns when it answers."""
        if self._process is not None:
            raise RuntimeError("the server is running already")
        if self.port is None:
            self.prepare()
        patience, tries = Patience(START_SECONDS), 0
        while True:
            kept, tries = self.port, tries + 1
            self.port = kept or free_port()
            if self._started(patience):
                return self
            # Somebody took the port between the probe and the start; or, at a restart, what the last run left behind
            # is not gone yet.
            self.port = kept
            if patience.is_over or (kept is None and tries == PORT_TRIES):
                raise RuntimeError(f"{type(self).__name__} did not start:\n{self.log()}")
            time.sleep(0.1)

    def _started(self, patience: Patience) -> bool:
        assert self.port is not None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(self.port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                **self.as_user(),
            )
        self._tell_watchdog(self._process.pid)
        while not patience.is_over:
            if self._process.poll() is not None:
                self._forget()
                return False
            if self.is_ready():
                return True
            time.sleep(0.02)
        self.kill()
        return False

    def as_user(self) -> dict[str, Any]:
        """Arguments of Popen that run a program as `user`."""
        user = self.user()
        return {} if user is None else {"user": user, "group": primary_group(user), "extra_groups": []}

    def stop(self) -> None:
        """Asks the server to end, and waits until it has."""
        if self._process is None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            wait_for_exit(self._process, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stops the server and its children as they are; the kernel still takes what they are sent."""
        main = psutil.Process(self.pid)
        stopped = []
        try:
            for process in (main, *main.children(recursive=True)):
                with suppress(ProcessLookupError):  # a server's child that has ended meanwhile
                    freeze(process.pid)
                    stopped.append(process)
            yield
        finally:
            for process in stopped:
                process.resume()

    def kill(self) -> None:
        """Kills the server and its children without any warning, as a power cut would."""
        if self._process is None:
            return
        try:
            family = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        self._process.kill()
        self._process.wait()
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        patience = Patience(STOP_SECONDS)
        while any(_lives(member) for member in family) and not patience.is_over:
            time.sleep(0.01)
        self._forget()

    def restart(self) -> None:
        """Stops the server and starts it again at the same place."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freezes the server: connections stay open and nothing answers."""
        freeze(self.pid)

    def go_on(self) -> None:
        """Ends a `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def log(self) -> str:
        """What the server has said so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Kills the server if it still runs, and removes its folder."""
        if self._closed:
            return
        self._closed = True
        self.kill()
        self._tell_watchdog(-1)
        if self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
        self._watchdog.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    def _forget(self) -> None:
        self._process = None
        self._tell_watchdog(0)

    def _tell_watchdog(self, pid: int) -> None:
        """Which process to end when this one dies: 0 for none, -1 for none and nothing else to do either."""
        if self._watchdog.stdin is not None and not self._watchdog.stdin.closed:
            self._watchdog.stdin.write(f"{pid}\n")
            self._watchdog.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def unprivileged_user(*preferred: str) -> str | None:
    """Whom a server that shall not be root runs as when the tests run as root; None for the own user."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd

    for name in (*preferred, "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


def primary_group(user: str) -> int:
    """The primary group of a system user."""
    if sys.platform == "win32":
        raise RuntimeError("there are no POSIX users here")
    import pwd

    return pwd.getpwnam(user).pw_gid


def _lives(process: psutil.Process) -> bool:
    """Whether the process still holds anything: a zombie, which only waits to be reaped, does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
