"""How slow this machine is at this moment. Every limit on a wait for processes is stretched by it.

The unit is the start of a worker of ours. One is started and timed when a session first needs to know; afterwards each
worker that a test starts anyway is a further measurement, so that limits follow the load. A start with all imports and
a warm one (see `warm`) are each held against their own usual time.
"""

import contextlib
import os
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.services.warm import WarmProcess

# What the start of a worker takes where the limits were chosen: two cores that do nothing but run these tests. That of
# the first process of the warm server takes as long as a start in the usual way, for it waits for all imports.
USUAL_START_SECONDS: Final = 3.0
USUAL_WARM_START_SECONDS: Final = 0.4
# No machine on which the tests can be run at all takes longer.
SLOWEST_START_SECONDS: Final = 240.0
# How many of the latest starts count. The slowest of them does: a limit that is too long costs nothing.
REMEMBERED: Final = 6
# Tells processes that a test starts what their own limits are to be stretched by.
VARIABLE: Final = "TESTS_SLOWNESS"

WORKER: Final = "-A celery_agents worker -P threads -c 2 -l INFO --without-mingle --without-gossip"
READY: Final = "ready."


class Machine:
    """The measurements of one process, and the factor that follows from them.

    The factor changes between tests and never within one, so that what a test derives from it fits together: a lease
    and an outage that must be longer, say.
    """

    def __init__(self, told: str | None = None) -> None:
        self._factors: deque[float] = deque(maxlen=REMEMBERED)
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
            if not self._factors:
                self.note_start(*time_of_a_start())
            self._factor = self._measured()
        return self._factor

    @property
    def latest(self) -> float:
        """The factor with the starts noted in this test, for what depends on nothing that was derived before."""
        return self.slowness if self._is_told else max(self.slowness, self._measured())

    def note_start(self, seconds: float, usual_seconds: float = USUAL_START_SECONDS) -> None:
        """A worker took so long from its start until it was ready, which is usually a matter of `usual_seconds`."""
        self._factors.append(seconds / usual_seconds)

    def begin_test(self) -> None:
        """From here on the latest measurements count."""
        if self._factors and not self._is_told:
            self._factor = self._measured()

    def _measured(self) -> float:
        return max(1.0, *self._factors)


def usual_start_seconds(process: object) -> float:
    """How long a worker usually takes from its start until it is ready, if this is its process."""
    return USUAL_WARM_START_SECONDS if isinstance(process, WarmProcess) and process.is_warm else USUAL_START_SECONDS


def time_of_a_start() -> tuple[float, float]:
    """How many seconds a worker on the embedded defaults takes from its start until it is ready; how many usually."""
    with tempfile.TemporaryDirectory(prefix="agents-machine-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "log"
        env = without_settings(os.environ) | {"AGENTS_HOME": f"{folder}/home", "PYTHONUNBUFFERED": "1"}
        began = time.monotonic()
        worker = WarmProcess(WORKER.split(), cwd=Path(folder), env=env, log=log)
        try:
            while READY not in log.read_text(errors="replace"):
                taken = time.monotonic() - began
                if worker.poll() is not None or taken > SLOWEST_START_SECONDS:
                    raise RuntimeError(f"a worker is not ready after {taken:.0f} s:\n{log.read_text()}")
                time.sleep(0.02)
            return time.monotonic() - began, usual_start_seconds(worker)
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


def wait_for_exit(process: subprocess.Popen[Any] | WarmProcess, seconds: float) -> int:
    """The exit status of a process. Raises `subprocess.TimeoutExpired` if it does not end."""
    patience = Patience(seconds)
    while not patience.is_over:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(seconds)
    raise subprocess.TimeoutExpired(process.args, seconds)
