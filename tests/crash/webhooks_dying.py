"""Imported by a worker: an agent that asks, and processes that die where a webhook could be lost or sent twice.

Each death happens once, wherever it comes first: a file in the workers' folder says that it has happened.
"""

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery_agents import Run, agent
from celery_agents.engine.journal.recorder import Recorder
from celery_agents.webhooks import Deliveries, DeliveryStatus, deliverer
from celery_agents.webhooks.notes import Notes
from tests.crash.ledger import FOLDER_VARIABLE
from tests.crash.patching import put

DEATHS = ("between note and pause", "before an end is told", "before a delivery is noted")


@agent(name="crash.told")
def told(run: Run, _: None) -> str:
    """Ask, and end."""
    run.step("one", lambda: 1)
    return run.ask("Which colour?", schema=str, name="colour")


def has_died(folder: Path, death: str) -> bool:
    """Return whether a process has died there."""
    return (folder / death).exists()


def _die_once(death: str) -> None:
    mark = Path(os.environ[FOLDER_VARIABLE]) / death
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _install() -> None:
    if FOLDER_VARIABLE not in os.environ:
        return  # the test's own process
    note, tell, write, change = Notes.before_pause, Notes.tell_outside, Recorder.write, Deliveries.change
    done = []  # which of the two writes this process has made

    def before_pause(self: Notes, context: Any, asking: Any) -> None:
        if done:
            _die_once(DEATHS[0])
        note(self, context, asking)
        done.append("noted")

    def writes(self: Recorder, **change: Any) -> Any:
        pauses = bool(change.get("waits"))
        if pauses and done:
            _die_once(DEATHS[0])
        written = write(self, **change)
        if pauses:
            done.append("paused")
        return written

    def tell_outside(self: Notes, summary: Any, *, deleted: bool) -> None:
        _die_once(DEATHS[1])
        tell(self, summary, deleted=deleted)

    def changes(self: Deliveries, delivery: Any, **fields: Any) -> Any:
        if fields.get("status") is DeliveryStatus.DELIVERED:
            _die_once(DEATHS[2])
        return change(self, delivery, **fields)

    put(Notes, "before_pause", before_pause)
    put(Notes, "tell_outside", tell_outside)
    put(Recorder, "write", writes)
    put(Deliveries, "change", changes)
    put(deliverer, "_HOLD", timedelta(seconds=0.5))


_install()
