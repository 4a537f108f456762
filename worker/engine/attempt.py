"""One attempt at an execution: what every durable operation of a run stands on."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn, TypeVar

from statestore.errors import StoreUnavailable
from statestore.records import Action, AgentContext, AgentStep, Result, Signal, SignalKind, StepChanges, Wait
from statestore.states import AgentState
from statestore.transactions import StepTransaction
from worker.engine.events import Event, EventKind
from worker.engine.journal import Journal
from worker.engine.keeper import HeldLease
from worker.engine.memory import RunMemory
from worker.engine.outcome import Ending, ExecutionStopped, Outcome
from worker.engine.recorder import Recorder
from worker.errors import MaxStepsExceeded, NestedStep

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an attempt needs from the process that it runs in.

    `inline_wait_seconds` is the longest retry delay that is slept in place; a longer one pauses the execution and
    frees the worker's slot. `interrupts` are exceptions that come from outside into a step (a time limit): they end the
    attempt, and say nothing about the step.
    """

    is_draining: Callable[[], bool]
    publish: Callable[[Event], None]
    max_steps: int
    inline_wait_seconds: float
    jitter: random.Random
    interrupts: tuple[type[BaseException], ...] = ()


class Attempt:
    """The journal, the recorder and the lease of one claim, and the rules that tie them together."""

    def __init__(
        self,
        context: AgentContext,
        *,
        journal: Journal,
        recorder: Recorder,
        memory: RunMemory,
        held: HeldLease,
        surroundings: Surroundings,
        max_value_bytes: int,
    ) -> None:
        self.context = context
        self.max_value_bytes = max_value_bytes
        self.journal = journal
        self.recorder = recorder
        self.memory = memory
        self.held = held
        self.surroundings = surroundings
        self._signals = list(context.signals)
        self._stopped: ExecutionStopped | None = None
        self._inside: str | None = None

    @property
    def interrupts(self) -> tuple[type[BaseException], ...]:
        """What passes through a step and through the agent without being recorded as their failure."""
        return (SystemExit, KeyboardInterrupt, ExecutionStopped, *self.surroundings.interrupts)

    def now(self) -> datetime:
        """The time on the store's clock."""
        return self.recorder.now()

    def reach(self, name: str, action: Action) -> tuple[str, AgentStep | None]:
        """The code has come to a step: its key, and what is recorded under it."""
        if self._stopped is not None:
            # The agent's code caught the exception that unwinds it. There is nothing left for it to do.
            raise self._stopped
        if self._inside is not None:
            raise NestedStep(name, self._inside)
        key = self.journal.next_key(name)
        recorded = self.journal.look_up(key, action)
        if recorded is not None and recorded.result is not None:
            self.memory.repeat_step(recorded.changes)
        return key, recorded

    def enter_boundary(self) -> None:
        """A step boundary: nothing is in flight. Stops here if the lease is lost, on a cancel, or on a drain."""
        if self.held.is_lost:
            self.stop(Outcome(ending=Ending.LOST))
        if self.held.cancel_requested:
            self.stop(Outcome(ending=Ending.CANCELLED))
        if self.surroundings.is_draining():
            self.stop(Outcome(ending=Ending.DRAINED, ring=True))

    def leave_to_next_claim(self) -> NoReturn:
        """What is stored is not what this attempt has in its memory: the next one reads it."""
        self.stop(Outcome(ending=Ending.DRAINED, ring=True))

    @property
    def stopped(self) -> ExecutionStopped | None:
        """What unwound the agent, if anything did."""
        return self._stopped

    def enter_end(self) -> None:
        """The agent's function has returned: the last moment for a cancel. Raises `JournalMismatch`."""
        if self.held.cancel_requested:
            self.stop(Outcome(ending=Ending.CANCELLED))
        self.journal.check_all_reached()

    def begin_step(self, key: str, action: Action) -> None:
        """A step that has no result yet is about to run. Raises `MaxStepsExceeded`."""
        self.enter_boundary()
        if self.journal.number_for(key) > self.surroundings.max_steps:
            raise MaxStepsExceeded(self.surroundings.max_steps)
        state = AgentState.USING_TOOL if action.kind == "tool" else AgentState.THINKING
        self.announce(EventKind.STATE, state, tool=action.tool)

    def make_step(
        self,
        key: str,
        action: Action,
        result: Result | None,
        *,
        started: datetime,
        tries: int = 1,
        changes: StepChanges | None = None,
    ) -> AgentStep:
        """The record of a step, or (no result) of an intent."""
        return AgentStep(
            step_number=self.journal.number_for(key),
            name=key,
            action=action,
            result=result,
            attempt=self.context.attempt,
            tries=tries,
            timestamp=started,
            duration=max(self.now() - started, timedelta(0)),
            changes=changes,
        )

    def record(self, step: AgentStep) -> None:
        """Writes a step with its result, in one round trip."""
        self._guarded(lambda: self.recorder.record(step))
        self._recorded(step)

    def record_in(self, transaction: StepTransaction, step: AgentStep, checkpoint_id: str) -> AgentStep:
        """`record`, in a transaction that the step wrote in; see `Recorder.record_in`."""
        recorded = self._guarded(lambda: self.recorder.record_in(transaction, step, checkpoint_id))
        self._recorded(recorded)
        return recorded

    def wait_for_store(self, error: StoreUnavailable, waited: int, give_up_at: float) -> None:
        """See `Recorder.wait_for_store`. Nothing is in flight, so this is a step boundary too."""
        self._guarded(lambda: self.recorder.wait_for_store(error, waited, give_up_at))
        self.enter_boundary()

    @contextmanager
    def inside_step(self, key: str) -> Iterator[None]:
        """The step's own function runs in this block; it cannot take further steps."""
        self._inside = key
        try:
            yield
        finally:
            self._inside = None

    def pause(self, state: AgentState, waiting: Wait, intent: AgentStep | None = None) -> NoReturn:
        """Writes that the execution waits, and unwinds the agent."""
        paused = self._guarded(lambda: self.recorder.pause(state, waiting, intent))
        self.stop(Outcome(ending=Ending.PAUSED, waiting=waiting, ring=paused.due_now))

    def stop(self, outcome: Outcome) -> NoReturn:
        """Unwinds the agent; no later call of the run does anything."""
        self._stopped = ExecutionStopped(outcome)
        raise self._stopped

    def take_signal(self, kind: SignalKind, key: str) -> Signal | None:
        """The oldest signal of this address; the next write takes it out of the mailbox."""
        for signal in self._signals:
            if (signal.kind, signal.key) == (kind, key):
                self._signals.remove(signal)
                self.recorder.consume(signal.signal_id)
                return signal
        return None

    def announce(
        self,
        kind: EventKind,
        state: AgentState,
        *,
        tool: str | None = None,
        step: AgentStep | None = None,
        waiting: Wait | None = None,
        ending: str | None = None,
    ) -> None:
        """Tells the subscribers."""
        self.surroundings.publish(
            Event(
                kind=kind,
                execution_id=self.context.execution_id,
                agent_id=self.context.agent_id,
                attempt=self.context.attempt,
                state=state,
                steps=len(self.journal),
                tool=tool,
                step=step,
                waiting=waiting,
                ending=ending,
            )
        )

    def _recorded(self, step: AgentStep) -> None:
        self.journal.add(step)
        self.announce(EventKind.STEP_RECORDED, AgentState.THINKING, step=step)

    def _guarded(self, write: Callable[[], R]) -> R:
        try:
            return write()
        except ExecutionStopped as stopped:
            self._stopped = stopped
            raise
