"""Telling of a server that does not answer: once when that begins and once when it is over, not at every try."""

import logging
import time


class Outage:
    """One thing that is tried again until the server answers."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._began_at: float | None = None

    def failed(self, error: Exception) -> None:
        """A try failed."""
        if self._began_at is None:
            self._began_at = time.monotonic()
            self._log.warning("%s failed, trying again until it succeeds: %s", self._what, error)

    def forget(self) -> None:
        """There is nothing to try any more, so nobody knows when it would succeed."""
        self._began_at = None

    def succeeded(self) -> None:
        """A try succeeded."""
        if self._began_at is not None:
            self._log.info("%s succeeded again, after %.1f s", self._what, time.monotonic() - self._began_at)
            self._began_at = None
