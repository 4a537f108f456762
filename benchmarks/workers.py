"""Real Celery workers as processes, frozen except while they are measured."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

ROOT: Final = Path(__file__).parents[1]


class Frozen:
    """A process, with those that it starts, that can be frozen while it is not measured."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], folder: Path, name: str) -> None:
        self._log = folder / f"{name}-{time.monotonic_ns()}.log"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENTS_")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                env={**inherited, **environ, "PYTHONPATH": str(ROOT)},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The parent's process id; a pool of threads has no other process."""
        return self._process.pid

    def check(self) -> None:
        """Raise `RuntimeError`, with the end of the log, if the process has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"a worker ended:\n{self.log()[-3000:]}")

    def log(self) -> str:
        """Return what it has logged."""
        return self._log.read_text(errors="replace")

    def freeze(self) -> None:
        """Stop all its processes where they are."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let its processes go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """Kill it: nothing that it holds is needed any more."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class Worker(Frozen):
    """`celery -A <app> worker` in a separate process group."""

    def __init__(
        self,
        app: str,
        pool: str,
        concurrency: int,
        environ: Mapping[str, str],
        folder: Path,
        *,
        queue: str = "celery",
    ) -> None:
        self.concurrency = concurrency
        command = [
            *("-m", "celery", "-A", app, "worker", "--pool", pool),
            *("--concurrency", str(concurrency), "--hostname", f"{app}@%h", "--loglevel", "WARNING"),
            *("--without-mingle", "--without-gossip", "--queues", queue),
        ]
        super().__init__(command, environ, folder, f"{app}-{pool}")
