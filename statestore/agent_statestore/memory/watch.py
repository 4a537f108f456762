"""Waiting for changes inside one process."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self


class MemoryWatch:
    """Waits on the store's condition; see `agent_statestore.contract.watch.Watch`."""

    def __init__(self, changed: threading.Condition, mark: Callable[[], object]) -> None:
        self._changed = changed
        self._mark = mark
        with changed:
            self._seen = mark()

    def wait(self, timeout_seconds: float) -> bool:
        """Return at the next change or after the timeout; see `Watch`."""
        give_up_at = time.monotonic() + timeout_seconds
        with self._changed:
            while (mark := self._mark()) == self._seen:
                remaining = give_up_at - time.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(remaining)
            self._seen = mark
            return True

    def progress(self) -> None:
        """Do nothing: a condition needs no word of it; see `Watch`."""

    def close(self) -> None:
        """Do nothing: it holds nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
