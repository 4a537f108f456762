"""What a worker's sweeper does, and when. The thread that calls it waits in between."""

from typing import Final

from agent_statestore.errors import StoreError
from agent_statestore.plain_text import line_logger
from celery_agents.engine.patience import Outage
from celery_agents.host.recovery.duty import SweepDuty
from celery_agents.host.recovery.sweeper import Sweeper
from celery_agents.settings import Settings

log = line_logger(__name__)

# Between two batches of many that are due.
_BACKLOG_SECONDS: Final = 0.1


class Rounds:
    """Watches for dead processes and revokes every `agents_watch_seconds`, and sweeps while it has the duty.

    While more is due than one sweep takes, nobody keeps the duty: whoever looks joins in.
    """

    def __init__(self, settings: Settings, sweeper: Sweeper, duty: SweepDuty) -> None:
        self._settings = settings
        self._sweeper = sweeper
        self._duty = duty
        self._watch_at = 0.0
        self._sweep_at = 0.0
        self._has_more = False
        self._looking = Outage(log, "the look for the worker that sweeps")

    def go(self, now: float, revoked: set[str]) -> float:
        """Do what it is time for; return in how many seconds to call this again.

        `now` is the caller's clock, in seconds, which must not go back. `revoked` are the ids of revoked tasks.
        """
        broken = False
        if now >= self._watch_at:
            self._watch_at = now + self._settings.watch_seconds
            broken = self._sweeper.try_watch(revoked)
        if now >= self._sweep_at:
            self._sweep_at = now + self._settings.sweep_seconds  # should the sweep raise
            self._sweep_at = now + self._sweep()
        if broken and not self._duty.is_held:
            self._sweeper.try_sweep()
        elif broken:
            self._sweep_at = now  # what was given back is due now
        return max(min(self._watch_at, self._sweep_at) - now, 0.0)

    def _sweep(self) -> float:
        """Sweep if that is this worker's turn; return in how many seconds to come back."""
        pause_seconds = 0.0
        if not self._has_more:
            try:
                pause_seconds = self._duty.look()
            except StoreError as error:
                self._looking.failed(error)
                return self._settings.sweep_seconds
            self._looking.succeeded()
            if not self._duty.is_held:
                return pause_seconds
        self._has_more = self._sweeper.try_sweep()
        if self._has_more:
            self.end()
            return _BACKLOG_SECONDS
        return pause_seconds

    def end(self) -> None:
        """Leave the sweeping to others."""
        try:
            self._duty.give_up()
        except StoreError as error:
            log.warning("the sweeping could not be left to others, who take it over in a while: %s", error)
