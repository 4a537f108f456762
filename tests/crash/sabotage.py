"""Imported by a worker: switches off what `CRASH_TEST_SABOTAGE` names (separated by commas).

To prove that a crash test fails without the mechanism that it guards. Nothing here exists in production code.
"""

# ruff: noqa: ARG005 - what is put in place of a method takes its arguments

import math
import os
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final

from agent_statestore import Store
from agent_statestore.hybrid import HybridStore
from agent_statestore.sql.store import SQLStore
from celery_agents.engine.executor import Executor
from celery_agents.engine.journal import recorder
from celery_agents.engine.journal.journal import Journal
from celery_agents.engine.lease import HeldLease, LeaseKeeper
from celery_agents.errors import AgentsError
from celery_agents.host.drain import DrainFlag
from celery_agents.host.sweeper import Sweeper
from celery_agents.host.tasks import ExecuteTask

VARIABLE: Final = "CRASH_TEST_SABOTAGE"


def no_sweeper() -> None:
    """Nobody looks for due executions."""
    Sweeper.try_sweep = lambda self: None  # type: ignore[method-assign]


def no_watch() -> None:
    """Nobody looks for dead processes on this host."""
    Sweeper.break_dead_leases = lambda self: 0  # type: ignore[method-assign]


def no_renewal() -> None:
    """The lease keeper renews nothing."""
    LeaseKeeper._renew = lambda self, held: True  # type: ignore[method-assign]


def no_own_deadline() -> None:
    """A holder neither notices by itself that its lease has run out, nor is it told: only the store can refuse it."""
    HeldLease.is_lost = property(lambda self: False)  # type: ignore[assignment, method-assign]
    HeldLease.deadline = property(lambda self: math.inf, lambda self, moment: None)  # type: ignore[assignment]


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

    SQLStore.checkpoint = checkpoint  # type: ignore[method-assign, assignment]


def no_drain() -> None:
    """A shutdown does not reach the executions."""
    DrainFlag.is_set = lambda self: False  # type: ignore[method-assign]


def no_shared_drain_flag() -> None:
    """Only the process that gets the signal learns of the shutdown."""
    DrainFlag.set = lambda self: setattr(self, "own", True)  # type: ignore[method-assign]
    DrainFlag.clear = lambda self: setattr(self, "own", False)  # type: ignore[method-assign]
    DrainFlag.is_set = lambda self: getattr(self, "own", False)  # type: ignore[method-assign]


def no_ring_after_drain() -> None:
    """A drained execution's bell is left to the sweeper."""
    ExecuteTask._ring_again = lambda self, runtime, execution_id: None  # type: ignore[method-assign]


def no_release_on_exit() -> None:
    """An exception that ends the process leaves the lease behind."""
    Executor._give_back = lambda self, claim, crashed: None  # type: ignore[method-assign, misc]


def no_dead_letter() -> None:
    """Crashes are not counted."""
    call = Executor._call

    def forgiving(self: Executor, agent: Any, attempt: Any, claim: Any) -> Any:
        attempt.context = replace(attempt.context, crashes=0)
        return call(self, agent, attempt, claim)

    Executor._call = forgiving  # type: ignore[method-assign]


def no_journal() -> None:
    """What is recorded is not looked up."""
    Journal.look_up = lambda self, key, action: None  # type: ignore[method-assign]


def no_background_archiving() -> None:
    """Who ends an execution archives it."""
    HybridStore.archive_in_background = lambda self: None  # type: ignore[method-assign]


def no_patience_with_the_store() -> None:
    """A checkpoint that finds the store unreachable is given up at once."""

    def give_up(seconds: float) -> None:
        raise AgentsError(f"would have waited for {seconds} s")

    recorder.time = SimpleNamespace(sleep=give_up, monotonic=time.monotonic)  # type: ignore[assignment]


for name in os.environ.get(VARIABLE, "").split(","):
    if name:
        globals()[name]()
