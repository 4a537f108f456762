"""Imported by a worker: switches off what `CRASH_TEST_SABOTAGE` names (separated by commas).

To prove that a crash test fails without the mechanism that it guards. Nothing here exists in production code.
"""

# ruff: noqa: ARG005 - what is put in place of a method takes its arguments

import math
import os
from dataclasses import replace
from typing import Any, Final

from agent_statestore import Store
from agent_statestore.hybrid import HybridStore
from agent_statestore.sql.store import SQLStore
from celery_agents.engine.course import Course
from celery_agents.engine.executor import Executor
from celery_agents.engine.journal.journal import Journal
from celery_agents.engine.journal.last_write import LastWrite
from celery_agents.engine.lease import HeldLease, LeaseKeeper
from celery_agents.engine.mailbox import Mailbox
from celery_agents.errors import AgentsError
from celery_agents.host.drain import DrainFlag
from celery_agents.host.recovery.duty import SweepDuty
from celery_agents.host.recovery.presence import Presence
from celery_agents.host.recovery.sweeper import Sweeper
from celery_agents.host.runtime import Runtime
from celery_agents.host.tasks import ExecuteTask
from tests.crash.patching import put, put_on_instances

VARIABLE: Final = "CRASH_TEST_SABOTAGE"


def no_sweeper() -> None:
    """Nobody looks for due executions."""
    put(Sweeper, "try_sweep", lambda self: None)


def no_watch() -> None:
    """Nobody looks for dead processes on this host."""
    put(Sweeper, "break_dead_leases", lambda self: 0)


def no_presence() -> None:
    """Nobody sees the files that processes of the host leave behind; there are those of other tests, too."""
    put(Presence, "processes", lambda self: iter(()))


def no_takeover() -> None:
    """Whoever does not sweep never looks again whether somebody else still does."""
    look = SweepDuty.look
    put(SweepDuty, "look", lambda self: look(self) if self.is_held or not self._has_started else 3600.0)


def no_note_before_pause() -> None:
    """Who is to be told of a question is noted once the question is asked, and not before."""
    pause = LastWrite.pause

    def pause_then_note(self: Any, waits: Any, intents: Any = ()) -> Any:
        noting, self._before_pause = self._before_pause, None
        outcome = pause(self, waits, intents)
        if noting is not None:
            self._note(noting, waits)
        return outcome

    put(LastWrite, "pause", pause_then_note)


def no_told_end() -> None:
    """An end that receivers of webhooks are to be told of is settled in the moment that it is written."""
    put(Runtime, "tells_ends", lambda self: False)


def no_renewal() -> None:
    """The lease keeper renews nothing."""
    put(LeaseKeeper, "_renew", lambda self, held: True)


def no_hearing() -> None:
    """The lease keeper does not ask what does not wait for a renewal."""
    put(LeaseKeeper, "_hear", lambda self, listening: None)


def no_record_of_what_was_said() -> None:
    """What is read stays in the mailbox, as if its record did not take it out."""
    put(Mailbox, "take_all", lambda self, signals: None)


def no_own_deadline() -> None:
    """A holder neither notices by itself that its lease has run out, nor is it told: only the store can refuse it."""
    put(HeldLease, "is_lost", property(lambda self: False))
    put_on_instances(HeldLease, "deadline", property(lambda self: math.inf, lambda self, moment: None))


def no_fencing() -> None:
    """A write goes out under whatever lease is current, as whatever step is the next.

    So the writer's own token says nothing any more. The number of its step would give it away, too, and what it builds
    on: to a zombie whose successor has written meanwhile.
    """
    write = SQLStore.checkpoint

    def checkpoint(self: Store, execution_id: str, checkpoint: Any, lease: Any = None) -> Any:
        for current in self.find_leases(""):
            if current.execution_id == execution_id:
                lease = current
        summary = self.get_summary(execution_id)
        assert summary is not None
        steps = (replace(step, step_number=summary.step_count + at) for at, step in enumerate(checkpoint.steps, 1))
        checkpoint = replace(checkpoint, steps=tuple(steps), after_checkpoint=None)
        return write(self, execution_id, checkpoint, lease)

    put(SQLStore, "checkpoint", checkpoint)


def no_drain() -> None:
    """A shutdown does not reach the executions."""
    put(DrainFlag, "is_set", lambda self: False)


def no_shared_drain_flag() -> None:
    """Only the process that gets the signal learns of the shutdown."""
    put(DrainFlag, "set", lambda self: setattr(self, "own", True))
    put(DrainFlag, "clear", lambda self: setattr(self, "own", False))
    put(DrainFlag, "is_set", lambda self: getattr(self, "own", False))


def no_ring_after_drain() -> None:
    """A drained execution's bell is left to the sweeper."""
    put(ExecuteTask, "_ring_again", lambda self, runtime, execution_id: None)


def no_release_on_exit() -> None:
    """An exception that ends the process leaves the lease behind."""
    put(Executor, "_give_back", lambda self, held, crashed: None)


def no_dead_letter() -> None:
    """Crashes are not counted."""
    call = Executor._call

    def forgiving(self: Executor, agent: Any, attempt: Any, claim: Any) -> Any:
        attempt.context = replace(attempt.context, crashes=0)
        return call(self, agent, attempt, claim)

    put(Executor, "_call", forgiving)


def no_journal() -> None:
    """What is recorded is not looked up."""
    put(Journal, "look_up", lambda self, key, action: None)


def no_background_archiving() -> None:
    """Who ends an execution archives it."""
    put(HybridStore, "archive_in_background", lambda self: None)


def no_patience_with_the_store() -> None:
    """A checkpoint that finds the store unreachable is given up at once."""

    def give_up(self: Course, what: str, fault: str, *, between: Any = None) -> Any:
        raise AgentsError(f"would have waited: {what} {fault}")

    put(Course, "patience", give_up)


def switch_off(mechanism: str) -> None:
    """Calls one of the functions above. Raises `KeyError` for an unknown name."""
    globals()[mechanism]()


for name in os.environ.get(VARIABLE, "").split(","):
    if name:
        switch_off(name)
