"""A real Celery worker as a process of its own, to be killed."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

# An idle Celery worker takes its time to shut down. Killing it does no harm: that is what this demo shows.
_SHUTDOWN_SECONDS: Final = 1.0


class WorkerProcess:
    """`celery -A celery_agents worker` in a session of its own, so that all of its processes can be killed at once."""

    # Two pool processes, whatever the machine has: one execution runs at a time here.
    SHOWN: Final = "celery -A celery_agents worker --concurrency 2"

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self._home = home
        self.log = home / f"{name.replace(' ', '-')}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and return at once.

        It starts in the demo's own folder, where no `celery.py` or `worker/` of somebody's project is found first.
        """
        command = [sys.executable, "-m", *self.SHOWN.split(), "--loglevel", "INFO"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        """The main process; its number is also that of the process group."""
        return self._running().pid

    @property
    def exit_code(self) -> int | None:
        """Negative for a signal; None while it runs."""
        return self._running().poll()

    def kill(self) -> datetime:
        """Send SIGKILL to the main process and its pool: no handler runs, nothing is given back. Return when."""
        killed_at = datetime.now(UTC)
        os.killpg(self.pid, signal.SIGKILL)
        self._running().wait()
        return killed_at

    def stop(self) -> None:
        """End it with all of its processes: politely, then not. May be called at any time, and twice."""
        process = self._process
        if process is None:
            return
        try:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_SHUTDOWN_SECONDS)
        finally:  # also on a second Ctrl-C
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log_tail(self, lines: int = 25) -> str:
        """Return the end of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process
