"""The housekeeper, which archives what was not archived at its end, and purges what was kept for long enough.

It runs beside the sweeper and not in it, so that no bell waits for an archive that is slow or away.
"""

import math
import time
from dataclasses import dataclass
from typing import Final

from agent_statestore.errors import StoreError
from agent_statestore.moving.stream_retention import trim_ended
from agent_statestore.plain_text import line_logger
from celery_agents.engine.patience import Outage
from celery_agents.errors import ResultBackendUnavailable
from celery_agents.host.runtime import Runtime

log = line_logger(__name__)

# The oldest of thousands go first, and each goes in a separate transaction: there is no hurry.
_PURGE_EVERY_SECONDS: Final = 60.0
_PURGE_BATCH: Final = 100
_PURGE_SECONDS: Final = 2.0
# Streams are kept for a day: nothing hurries. The first look comes a while after the start of the worker.
_TRIM_EVERY_SECONDS: Final = 600.0
_FIRST_TRIM_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The result of one round: entries and archives put in order, executions purged, events of streams removed."""

    tidied: int = 0
    purged: int = 0
    trimmed: int = 0


class Housekeeper:
    """Puts the store in order, a little at a time."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._purged_at = -math.inf
        self._tidying = Outage(log, "tidying the store")
        self._purging = Outage(log, "purging")
        self._trimmed_at = time.monotonic() + _FIRST_TRIM_SECONDS - _TRIM_EVERY_SECONDS
        self._trimming = Outage(log, "removing streams")

    def keep_house(self) -> Kept:
        """Do one round. Log faults of the store: the next round comes soon."""
        return Kept(tidied=self._tidy(), purged=self._purge(), trimmed=self._trim())

    def _tidy(self) -> int:
        try:
            tidied = self._runtime.store.tidy()
        except StoreError as error:
            self._tidying.failed(error)
            return 0
        self._tidying.succeeded()
        return tidied

    def _trim(self) -> int:
        """Remove the streams of what was over for long enough; return how many events. Mostly it does nothing."""
        settings, started, total = self._runtime.settings, time.monotonic(), 0
        if started < self._trimmed_at + _TRIM_EVERY_SECONDS:
            return 0
        self._trimmed_at = started
        try:
            while time.monotonic() < started + _PURGE_SECONDS:
                removed, is_more = trim_ended(self._runtime.store, settings.stream_kept_for, limit=_PURGE_BATCH)
                total += removed
                if not is_more:
                    break
        except StoreError as error:
            self._trimming.failed(error)
        else:
            self._trimming.succeeded()
        return total

    def _purge(self) -> int:
        """Purge what `agents_retention` no longer keeps, at most once a minute; return how many."""
        retention, started = self._runtime.settings.kept_for, time.monotonic()
        if not retention or started < self._purged_at + _PURGE_EVERY_SECONDS:
            return 0
        self._purged_at = started
        total = 0
        try:
            while time.monotonic() < started + _PURGE_SECONDS:
                purged = retention.apply(
                    self._runtime.store, batch=_PURGE_BATCH, before_each=self._runtime.forget_result
                ).total
                total += purged
                if purged < _PURGE_BATCH:
                    break
        except (StoreError, ResultBackendUnavailable) as error:
            self._purging.failed(error)
        else:
            self._purging.succeeded()
        if total:
            log.info("purged executions that were kept for long enough: %d", total)
        return total
