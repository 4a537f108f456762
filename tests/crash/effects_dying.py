"""Where the process of a tool call dies. Imported by a worker, whose engine it watches for the moments between calls.

One place of one execution at a time: the pool's processes run one each. The process kills itself as often as the input
says, and then no more.
"""

import asyncio
import os
import signal
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from agent_statestore import AgentStep
from agent_statestore.checkpoint import LeasedWrite
from agent_statestore.errors import StoreError
from agent_statestore.records import Checkpointed
from celery_agents.engine.journal.recorder import Recorder
from celery_agents.engine.run.loop_step import _LoopStep
from celery_agents.engine.steps.taking import ReachedStep
from celery_agents.engine.steps.work import _Plain
from tests.crash.ledger import FOLDER_VARIABLE, Ledger
from tests.crash.patching import put
from tests.services.machine import scaled


class Place(StrEnum):
    """Where to die, in the order in which a call comes there.

    Where no intent is recorded, the moment before the call stands for both sides of it.
    """

    BEFORE_INTENT = "before the intent"
    AFTER_INTENT = "after the intent"
    INSIDE = "inside the effect"
    AFTER_EFFECT = "after the effect"
    BEFORE_CHECKPOINT = "before the checkpoint"
    AFTER_CHECKPOINT = "after the checkpoint"


class Role(StrEnum):
    """The calls that are made at once: one is recorded when the process dies, one dies, one has had its effect."""

    DONE = "done"
    STRUCK = "struck"
    BESIDE = "beside"


@dataclass
class Here:
    """What this process is to do. The struck call comes to its place when both events are set."""

    execution_id: str = ""
    attempt: int = 0
    place: str | None = None
    deaths: int = 1
    records_intent: bool = False
    done_is_recorded: threading.Event = field(default_factory=threading.Event)
    beside_has_acted: threading.Event = field(default_factory=threading.Event)


_here: Here = Here()
PATIENCE_SECONDS: Final = 20.0


def come_here(here: Here) -> None:
    """The agent's function is called: this is what its calls are to meet."""
    global _here
    _here = here


def here() -> Here:
    """What `come_here` was last told."""
    return _here


def die_at(place: str) -> None:
    """Ends this process without any warning, if this is the place; the ledger then knows."""
    if _here.place != place:
        return
    ledger = Ledger.of_this_worker()
    if sum(1 for _ in ledger.rows(place, _here.execution_id)) < _here.deaths:
        ledger.note(place, _here.execution_id, 1, _here.attempt)
        os.kill(os.getpid(), signal.SIGKILL)


_record_all = Recorder.record_all
_try = ReachedStep._try
_call = _Plain.call


def _watched_record_all(self: Recorder, steps: tuple[AgentStep, ...]) -> None:
    struck = next((step for step in steps if step.name == Role.STRUCK), None)
    if struck is not None:
        die_at(Place.BEFORE_INTENT if struck.result is None else Place.BEFORE_CHECKPOINT)
    _record_all(self, steps)
    if struck is not None:
        die_at(Place.AFTER_INTENT if struck.result is None else Place.AFTER_CHECKPOINT)
    if any(step.name == Role.DONE and step.result is not None for step in steps):
        _here.done_is_recorded.set()


def _watched_try(self: ReachedStep, tries: int) -> Any:
    if self.key == Role.STRUCK and _here.attempt == 1:
        for sign in (_here.done_is_recorded, _here.beside_has_acted):
            assert sign.wait(scaled(PATIENCE_SECONDS)), "the calls beside it do not come to their places"
    return _try(self, tries)


def _watched_call(self: _Plain) -> Any:
    if self.this.key == Role.STRUCK and not _here.records_intent:
        die_at(Place.BEFORE_INTENT)
        die_at(Place.AFTER_INTENT)
    return _call(self)


# The same of the steps that are called on the event loop, and recorded by the scribe.
_call_on_loop = _LoopStep._call
_start_writing = _LoopStep.start_writing
_end_writing = _LoopStep.end_writing


async def _watched_call_on_loop(self: _LoopStep) -> None:
    if self._reached.key == Role.STRUCK:
        if _here.attempt == 1:
            for sign in (_here.done_is_recorded, _here.beside_has_acted):
                came = await asyncio.to_thread(sign.wait, scaled(PATIENCE_SECONDS))
                assert came, "the calls beside it do not come to their places"
        die_at(Place.BEFORE_INTENT)
        die_at(Place.AFTER_INTENT)
    await _call_on_loop(self)


def _watched_start_writing(self: _LoopStep) -> LeasedWrite | None:
    if self._reached.key == Role.STRUCK:
        die_at(Place.BEFORE_CHECKPOINT)
    return _start_writing(self)


def _watched_end_writing(self: _LoopStep, outcome: Checkpointed | StoreError | None) -> bool:
    is_recorded = _end_writing(self, outcome)
    if is_recorded and self._reached.key == Role.STRUCK:
        die_at(Place.AFTER_CHECKPOINT)
    if is_recorded and self._reached.key == Role.DONE:
        _here.done_is_recorded.set()
    return is_recorded


if FOLDER_VARIABLE in os.environ:  # in a worker
    put(_LoopStep, "_call", _watched_call_on_loop)
    put(_LoopStep, "start_writing", _watched_start_writing)
    put(_LoopStep, "end_writing", _watched_end_writing)
    put(Recorder, "record_all", _watched_record_all)
    put(ReachedStep, "_try", _watched_try)
    put(_Plain, "call", _watched_call)
