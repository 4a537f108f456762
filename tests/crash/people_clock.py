"""Imported by a worker: the store's clock is this host's, moved on by what a file in the test's folder says."""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from agent_statestore import Store, open_store
from agent_statestore.clock import duration_us
from celery_agents.host import runtime
from tests.crash.ledger import FOLDER_VARIABLE
from tests.crash.patching import put


class MovedClock:
    """A clock that goes on by itself, and that can be moved on in all processes of a test at once."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "moved_us"

    def now_us(self) -> int:
        moved_us = int(self._path.read_text()) if self._path.exists() else 0
        return time.time_ns() // 1000 + moved_us

    def move(self, by: timedelta) -> None:
        """Lets this time pass at once."""
        moved_us = self.now_us() - time.time_ns() // 1000 + duration_us(by)
        new = self._path.with_suffix(".new")
        new.write_text(str(moved_us))
        new.rename(self._path)


def open_moved(url: str, folder: Path, **options: Any) -> Store:
    """`open_store`, with the clock of the test in this folder."""
    return open_store(url, clock=MovedClock(folder), **options)


if FOLDER_VARIABLE in os.environ:  # in a worker
    _folder = Path(os.environ[FOLDER_VARIABLE])
    put(runtime, "open_store", lambda url, **options: open_moved(url, _folder, **options))
