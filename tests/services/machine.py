"""How slow this machine is at this moment. Every limit on a wait for processes is stretched by it.

The unit is the start of a worker of ours. One is started and timed when a session first needs to know; afterwards each
worker that a test starts anyway is a further measurement, so that limits follow the load.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).parents[2]

# What the start of a worker takes where the limits were chosen: two cores that do nothing but run these tests.
USUAL_START_SECONDS: Final = 3.0
# No machine on which the tests can be run at all takes longer.
SLOWEST_START_SECONDS: Final = 240.0
# How many of the latest starts count. The slowest of them does: a limit that is too long costs nothing.
REMEMBERED: Final = 6
# Tells processes that a test starts what their own limits are to be stretched by.
VARIABLE: Final = "TESTS_SLOWNESS"

WORKER: Final = (
    *(sys.executable, "-m", "celery", "-A", "celery_agents", "worker", "-P", "threads", "-c", "2", "-l", "INFO"),
    *("--without-mingle", "--without-gossip"),
)
READY: Final = "ready."


class Machine:
    """The measurements of one process, and the factor that follows from them.

    The factor changes between tests and never within one, so that what a test derives from it fits together: a lease
    and an outage that must be longer, say.
    """

    def __init__(self, told: str | None = None) -> None:
        self._starts: deque[float] = deque(maxlen=REMEMBERED)
        self._factor = None if told is None else float(told)
        self._is_told = told is not None

    @property
    def is_measured(self) -> bool:
        """Whether `slowness` is known already."""
        return self._factor is not None

    @property
    def slowness(self) -> float:
        """How many times as long as usual things take: at least 1. Starts a worker to find out, if nobody has yet."""
        if self._factor is None:
            if not self._starts:
                self.note_start(time_of_a_start())
            self._factor = self._measured()
        return self._factor

    @property
    def latest(self) -> float:
        """The factor with the starts noted in this test, for what depends on nothing that was derived before."""
        return self.slowness if self._is_told else max(self.slowness, self._measured())

    def note_start(self, seconds: float) -> None:
        """A worker took so long from its start until it was ready."""
        self._starts.append(seconds)

    def begin_test(self) -> None:
        """From here on the latest measurements count."""
        if self._starts and not self._is_told:
            self._factor = self._measured()

    def _measured(self) -> float:
        return max(1.0, max(self._starts) / USUAL_START_SECONDS)


def time_of_a_start() -> float:
    """How many seconds a worker on the embedded defaults takes from its start until it is ready."""
    with tempfile.TemporaryDirectory(prefix="agents-machine-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "log"
        env = without_settings(os.environ) | {"AGENTS_HOME": f"{folder}/home", "PYTHONUNBUFFERED": "1"}
        began = time.monotonic()
        with log.open("wb") as output:
            worker = subprocess.Popen(
                WORKER, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            while READY not in log.read_text(errors="replace"):
                taken = time.monotonic() - began
                if worker.poll() is not None or taken > SLOWEST_START_SECONDS:
                    raise RuntimeError(f"a worker is not ready after {taken:.0f} s:\n{log.read_text()}")
                time.sleep(0.02)
            return time.monotonic() - began
        finally:
            worker.kill()
            worker.wait()


def without_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that configure no app."""
    return {name: value for name, value in variables.items() if not name.startswith(("AGENTS_", "FLOWER_", "CELERY_"))}


machine = Machine(os.environ.get(VARIABLE))


def scaled(seconds: float) -> float:
    """A limit for this machine, or a period that must stay in proportion to one. Given as on a usual machine."""
    return seconds * machine.slowness


class Patience:
    """How long to wait for something. The machine is measured only once the usual time is over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the wait was in vain."""
        passed = time.monotonic() - self._began
        return passed > self.seconds and passed > scaled(self.seconds)

    def __str__(self) -> str:
        return f"{scaled(self.seconds):.0f} s"


def wait_for_exit(process: subprocess.Popen[Any], seconds: float) -> int:
    """The exit status of a process. Raises `subprocess.TimeoutExpired` if it does not end."""
    patience = Patience(seconds)
    while not patience.is_over:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(seconds)
    raise subprocess.TimeoutExpired(process.args, seconds)
