"""Archiving beside the executions, so that none of them waits for the archive."""

import os
import queue
import threading
from collections.abc import Callable
from typing import Final

from agent_statestore.plain_text import line_logger

_LOGGER: Final = line_logger("agent_statestore.hybrid")

# While the archive is slow, executions beyond this number are left to the sweep.
_MOST_WAITING: Final = 1000

# How long the waiting executions may take when the store is closed.
_CLOSING_SECONDS: Final = 2.0


class Background:
    """Calls `work` with each execution id that it is given, one after the other, in a thread.

    Each process has a separate thread, from its first id on. Nothing depends on what still waits when a process ends.
    """

    def __init__(self, work: Callable[[str], None]) -> None:
        self._work = work
        # The child of a fork sees its parent's courier, whose thread it does not have and whose lock may be held.
        self._couriers: dict[int, _Courier] = {}

    def submit(self, execution_id: str) -> None:
        """Hand the execution over, and return at once."""
        pid = os.getpid()
        courier = self._couriers.get(pid) or self._couriers.setdefault(pid, _Courier(self._work))
        courier.submit(execution_id)

    def close(self) -> None:
        """Wait, but not for long, until what was submitted in this process is done."""
        courier = self._couriers.pop(os.getpid(), None)
        if courier is not None:
            courier.close()


class _Courier:
    """The thread of one process."""

    def __init__(self, work: Callable[[str], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._waiting: queue.Queue[str | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None

    def submit(self, execution_id: str) -> None:
        with self._lock:
            if self._thread is None:
                # A daemon: a process that must end does not wait for an archive that hangs.
                self._thread = threading.Thread(target=self._loop, name="archiver", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait(execution_id)
        except queue.Full:
            _LOGGER.debug("execution %s is to be archived later: %d wait already", execution_id, _MOST_WAITING)

    def close(self) -> None:
        with self._lock:
            thread = self._thread
        if thread is None:
            return
        try:
            self._waiting.put(None, timeout=_CLOSING_SECONDS)
        except queue.Full:
            return
        thread.join(_CLOSING_SECONDS)

    def _loop(self) -> None:
        while True:
            execution_id = self._waiting.get()
            if execution_id is None:
                return
            try:
                self._work(execution_id)
            except Exception:
                # The thread must outlive any fault of a driver. The execution is left to the sweep.
                _LOGGER.exception("execution %s could not be archived", execution_id)
