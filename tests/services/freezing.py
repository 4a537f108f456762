"""Freezing a process, and knowing that it is frozen."""

import os
import signal
import time
from pathlib import Path

from tests.services.machine import Patience

FREEZE_SECONDS = 10.0
# Field 3 of /proc/PID/task/TID/stat, behind the name in parentheses: stopped by a signal, or by a tracer, or over.
_STILL = frozenset("TtZXx")


def freeze(pid: int) -> None:
    """Stops the process, and returns when all of its threads stand still.

    The kernel hands the signal to one thread, and stops the others once that one is scheduled: on a busy machine they
    run on, and answer, for a while after `kill` has returned.
    """
    os.kill(pid, signal.SIGSTOP)
    wait_until_frozen(pid)


def wait_until_frozen(pid: int) -> None:
    """Waits for the end of a stop that was signalled."""
    patience = Patience(FREEZE_SECONDS)
    while not all(_is_still(thread) for thread in _threads(pid)):
        assert not patience.is_over, f"process {pid} has not stopped"
        time.sleep(0.001)


def _threads(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []


def _is_still(thread: Path) -> bool:
    try:
        stat = (thread / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in _STILL
