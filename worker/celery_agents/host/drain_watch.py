"""What watches over the slots of a worker, above all while it shuts down: one thread in its parent process.

A drain waits for the steps in flight. It says what it waits for, and it ends when `agents_drain_seconds` have passed.
"""

import logging
import os
import threading
import time
from datetime import datetime
from typing import Any, Final

from celery import bootsteps
from celery.platforms import EX_FAILURE

from agent_statestore.errors import StoreError
from agent_statestore.plain_text import line_logger
from celery_agents.engine.patience import Outage
from celery_agents.host.runtime import Runtime, runtime_of
from celery_agents.host.slots import Slots

log = line_logger(__name__)

_LOOK_SECONDS: Final = 0.2
_SAY_SECONDS: Final = 10.0
# How many of the executions that a drain waits for are named each time.
_MOST_NAMED: Final = 10


class DrainStep(bootsteps.StartStopStep):  # type: ignore[misc] # Celery carries no types
    """Runs the watch from the start of a worker to the end of its last task."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._over = threading.Event()

    def start(self, parent: Any) -> None:
        """Start the thread."""
        runtime = runtime_of(parent.app)
        watch = DrainWatch(runtime, Slots(runtime, parent))
        threading.Thread(target=watch.run, args=(self._over,), name="agents-drain-watch", daemon=True).start()

    def stop(self, parent: Any) -> None:
        """Let the thread end once the worker has nothing in its slots."""
        del parent
        self._over.set()


class DrainWatch:
    """Empties the slots of executions of which nothing is recorded any more. Tells what a drain waits for; ends it."""

    def __init__(self, runtime: Runtime, slots: Slots) -> None:
        self._runtime = runtime
        self._slots = slots
        self._looking = Outage(log, "the watch for cancelled executions")

    def run(self, over: threading.Event) -> None:
        """Watch until the worker is `over` and its slots are empty."""
        settings = self._runtime.settings
        next_look = time.monotonic()
        began: float | None = None
        next_words = 0.0
        while not (over.is_set() and not self._slots.busy()):
            time.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            try:
                if began is None and self._runtime.drain.is_set():
                    began, next_words = now, now + _SAY_SECONDS
                if now >= next_look:
                    next_look = now + settings.watch_seconds
                    self._look()
                if began is None:
                    continue
                if now >= next_words:
                    next_words = now + _SAY_SECONDS
                    self._say(now - began)
                if settings.drain_seconds is not None and now - began >= settings.drain_seconds:
                    self._end(now - began)
            except Exception:
                log.exception("the watch over the worker's slots failed; it goes on with the next look")

    def _look(self) -> None:
        try:
            self._slots.empty_those_lost()
        except StoreError as error:
            self._looking.failed(error)
        else:
            self._looking.succeeded()

    def _say(self, drained_seconds: float) -> None:
        """Say what the drain waits for."""
        busy = sorted(self._slots.busy(), key=lambda request: request.time_start)
        if not busy:
            return
        log.warning("shutting down since %.0f s, waiting for %d executions:", drained_seconds, len(busy))
        try:
            now = self._runtime.store.now()
        except StoreError:
            now = None  # told without what the store knows
        for request in busy[:_MOST_NAMED]:
            log.warning(
                "waiting for the step in flight of execution %s, agent %s, in process %s for %.0f s%s",
                request.id,
                request.name,
                request.worker_pid,
                time.time() - request.time_start,
                self._known_of(request.id, now),
            )
        if len(busy) > _MOST_NAMED:
            log.warning("waiting for %d more", len(busy) - _MOST_NAMED)

    def _known_of(self, execution_id: str, now: datetime | None) -> str:
        how_to_end = f"; to end it: agents cancel {execution_id} --now"
        if now is None:
            return how_to_end
        try:
            summary = self._runtime.store.get_summary(execution_id)
        except StoreError:
            return how_to_end
        if summary is None or summary.state.is_over:
            state = "deleted" if summary is None else summary.state.value
            return f", which is {state}: nothing of it is recorded any more"
        silent = (now - summary.updated_at).total_seconds()
        return f", {summary.step_count} steps recorded, the last write {silent:.0f} s ago{how_to_end}"

    def _end(self, drained_seconds: float) -> None:
        """End what the drain still waits for; it runs again in another worker."""
        busy = self._slots.busy()
        if not busy:
            return
        log.warning(
            "shutting down since %.0f s, as long as agents_drain_seconds allows: ending %s, to go on elsewhere",
            drained_seconds,
            ", ".join(f"execution {request.id}" for request in busy),
        )
        self._slots.give_up()
        if not self._slots.forks:
            logging.shutdown()
            os._exit(EX_FAILURE)  # a thread cannot be ended in any other way
