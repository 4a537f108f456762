"""An outage of the cold store: what is logged, and when to try again."""

import time
from typing import Final

from agent_statestore.plain_text import line_logger

_LOGGER: Final = line_logger("agent_statestore.hybrid")

# A process that ends many executions must not wait for a connection timeout at each of them.
RETRY_SECONDS: Final = 30.0


class ColdStoreOutage:
    """Tells of an outage of the cold store once, not at every execution, and when to try again.

    It needs no lock: threads that meet in it at worst say the same thing twice.
    """

    def __init__(self, hot_url: str, cold_url: str) -> None:
        self._hot_url = hot_url
        self._cold_url = cold_url
        self._retry_at: float | None = None

    @property
    def may_try(self) -> bool:
        """Whether the cold store answered last, or was not asked for long enough."""
        return self._retry_at is None or time.monotonic() >= self._retry_at

    def begin(self, error: Exception) -> None:
        """Note that the cold store did not answer."""
        if self._retry_at is None:
            _LOGGER.error(
                "the cold store %s cannot be written to; finished executions stay in %s until it can: %s",
                self._cold_url,
                self._hot_url,
                error,
            )
        self._retry_at = time.monotonic() + RETRY_SECONDS

    def end(self) -> None:
        """Note that the cold store did answer."""
        if self._retry_at is not None:
            self._retry_at = None
            _LOGGER.warning("the cold store %s can be written to again", self._cold_url)
