"""A `celery` command (worker, Flower, ...) as a process of a test's own."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import psutil

from tests.services.machine import READY, Patience, machine, usual_start_seconds, wait_for_exit, without_settings
from tests.services.warm import WarmProcess

ROOT = Path(__file__).parents[2]
# As on a usual machine; see `machine`.
WAIT_SECONDS = 30.0

T = TypeVar("T")


def wait_until(what: str, look: Callable[[], T | None], *, seconds: float = WAIT_SECONDS) -> T:
    """Looks until there is something (neither None nor False), and returns it."""
    patience = Patience(seconds)
    while True:
        seen = look()
        if seen is not None and seen is not False:
            return seen
        if patience.is_over:
            raise AssertionError(f"not within {patience}: {what}")
        time.sleep(0.05)


def environment(**values: str) -> dict[str, str]:
    """The tests' environment without what configures an app, with the venv's programs on PATH."""
    kept = without_settings(os.environ)
    path = os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", "")))
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | values


class Command:
    """A running command, in a session of its own, with its output in a file. A `warm` one is forked; see `warm`."""

    process: "subprocess.Popen[bytes] | WarmProcess"

    def __init__(
        self,
        arguments: str | list[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
        user: str | None = None,
        warm: bool = False,
    ) -> None:
        self.arguments = shlex.split(arguments) if isinstance(arguments, str) else arguments
        self.log = log
        self._started_at = time.monotonic()
        if warm:
            assert self.arguments[0] == "celery", self.arguments
            assert user is None
            self.process = WarmProcess(self.arguments[1:], cwd=cwd, env=env, log=log)
            return
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.arguments,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
            )

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, *, seconds: float = WAIT_SECONDS) -> Self:
        """Waits until it says something."""
        try:
            wait_until(f"{text!r} of {self.arguments}", lambda: text in self.output or self._ended(), seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from error
        if text == READY:
            machine.note_start(time.monotonic() - self._started_at, usual_start_seconds(self.process))
        return self

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Waits for its end."""
        try:
            return wait_for_exit(self.process, seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{self.arguments} does not end:\n{self.output}") from error

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the process alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kills it and all its children at once."""
        family = []
        if self.process.poll() is None:
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()

    def _ended(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"{self.arguments} ended with {self.process.returncode}")
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
