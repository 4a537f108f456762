"""One attempt at an execution: what every durable operation of a run stands on.

Steps may run side by side, each in a thread of its own (`run.parallel`, async agents). What they share is changed under
`Attempt.lock`, and their records are written one after the other, as the numbers of steps have no gaps.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar

from agent_statestore.errors import StoreUnavailable
from agent_statestore.records import Action, AgentContext, AgentStep, Result, Signal, SignalKind, StepChanges, Wait
from agent_statestore.states import AgentState
from agent_statestore.transactions import StepTransaction
from celery_agents.engine.course import Traffic
from celery_agents.engine.environment import Environment
from celery_agents.engine.events import Event, EventKind
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.journal import Journal
from celery_agents.engine.journal.memory import RunMemory
from celery_agents.engine.journal.recorder import Recorder
from celery_agents.engine.lease import HeldLease
from celery_agents.engine.limits import Limits
from celery_agents.engine.outcome import Ending, ExecutionStopped, Outcome
from celery_agents.engine.pauses.wait import Standing
from celery_agents.engine.steps.scope import Nesting
from celery_agents.errors import NestedStep

R = TypeVar("R")


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
        environment: Environment,
        max_value_bytes: int,
    ) -> None:
        self.context = context
        self.max_value_bytes = max_value_bytes
        self.journal = journal
        self.recorder = recorder
        self.memory = memory
        self.held = held
        self.environment = environment
        self.limits = Limits(environment.budget, context)
        journal.pass_by(self.limits.take_in(context.steps))
        self.lock = threading.RLock()
        self.traffic = Traffic(self.lock)
        self.nesting = Nesting()
        # Called with each step that is recorded, in that order, by the thread that recorded it.
        self.on_recorded: Callable[[AgentStep], object] = lambda _: None
        self._begun: set[str] = set()
        self._is_written = False
        self._retries = sum(step.tries - 1 for step in context.steps)
        # What a pause that is being written, or was written last, waits for.
        self.pausing_on: Wait | None = None
        self._signals = list(context.signals)
        self._stopped: ExecutionStopped | None = None
        self.interrupted_by: BaseException | None = None

    @property
    def interrupts(self) -> tuple[type[BaseException], ...]:
        """What passes through a step and through the agent without being recorded as their failure."""
        return (SystemExit, KeyboardInterrupt, ExecutionStopped, *self.environment.interrupts)

    @property
    def waiting(self) -> Wait | None:
        """What the execution was paused on, until the first write of this attempt."""
        return self.context.waiting if self.recorder.is_paused else None

    def now(self) -> datetime:
        """The time on the store's clock."""
        return self.recorder.now()

    def come_to(self, name: str, *, is_derived: bool = False) -> str:
        """The code has come to a step: its key. Called in the thread, or on the loop, of the agent's function.

        Raises `InvalidRecord` for what is no name; `is_derived`: see `Journal.next_key`.
        """
        if self._stopped is not None:
            # The agent's code caught the exception that unwinds it. There is nothing left for it to do.
            raise self._stopped
        inside = self.nesting.step_around
        if inside is not None:
            raise NestedStep(name, inside)
        return self.journal.next_key(name, is_derived=is_derived)

    def look_up(self, key: str, action: Action) -> AgentStep | None:
        """What is recorded under the key of a step. Raises `JournalMismatch` if that did something else."""
        recorded = self.journal.look_up(key, action)
        if recorded is not None and recorded.result is not None and not self._keeps_pending(recorded):
            self.memory.repeat_step(recorded.changes)
        return recorded

    def _keeps_pending(self, recorded: AgentStep) -> bool:
        """Whether what is pending here may never have been stored: another step may have been recorded before it."""
        return self.nesting.is_concurrent and recorded.changes is None

    def has_come_to(self, name: str) -> bool:
        """Whether the next occurrence of this step is recorded, or is what the execution was paused on."""
        return self.has_begun(self.journal.upcoming_key(name))

    def has_begun(self, key: str) -> bool:
        """Whether the step of this key, or its intent, is recorded, or is what the execution was paused on."""
        waiting = self.waiting
        return self.journal.has(key) or (waiting is not None and waiting.key == key)

    def stand_in(self, name: str, tool: str | None) -> Callable[..., Any] | None:
        """What is called instead of the function of a step, or of a tool; None for nothing else. For tests."""
        del name, tool
        return None

    def enter_boundary(self, *, even_before_pause: bool = False) -> None:
        """A boundary of this step: stops if another one has, if the lease is lost, on a cancel, or on a drain."""
        if self._stopped is not None and not (even_before_pause and self.traffic.is_pausing):
            raise self._stopped
        if self.held.is_lost:
            self.stop(Outcome(ending=Ending.LOST))
        if self.held.cancel_requested:
            self.stop(Outcome(ending=Ending.CANCELLED))
        if self.environment.is_draining():
            self.stop(Outcome(ending=Ending.DRAINED, ring=True))

    def enter_wait(self, *, in_step: bool = False, standing: Standing | None = None, steps: int = 1) -> None:
        """A boundary, at which the execution may pause, until that many new `steps` are taken. Raises `LimitExceeded`.

        Of a caller that is `in_step` the step is counted already.
        """
        self.enter_boundary()
        coming = self._unrecorded() + (0 if in_step else steps)
        self.limits.check(self, len(self.journal) + coming, in_step=in_step, standing=standing)

    def leave_to_next_claim(self) -> NoReturn:
        """What is stored is not what this attempt has in its memory: the next one reads it."""
        self.stop(Outcome(ending=Ending.DRAINED, ring=True))

    def may_retry(self) -> bool:
        """Counts one more retry of this execution; False if it has had all that it may have."""
        with self.lock:
            self._retries += 1
            return self._retries <= self.environment.max_retries

    @property
    def stopped(self) -> ExecutionStopped | None:
        """What unwound the agent, if anything did."""
        return self._stopped

    def enter_end(self) -> None:
        """The agent's function has returned: the last moment for a cancel. Raises `JournalMismatch`."""
        self.join()
        if self._stopped is not None:
            raise self._stopped
        if self.held.cancel_requested:
            self.stop(Outcome(ending=Ending.CANCELLED))
        self.journal.check_all_reached()

    def begin_step(self, key: str, action: Action, *, is_expected: bool = False) -> None:
        """A step that has no result yet is about to run, inside of `busy`. Raises `LimitExceeded`.

        One that was expected is still taken before a pause.
        """
        with self.lock:  # of steps that begin at once, as many go on as there may be
            self.enter_boundary(even_before_pause=is_expected)
            self._begun.add(key)
            self.limits.check(self, len(self.journal) + self._unrecorded(), in_step=True)
        state = AgentState.USING_TOOL if action.kind == "tool" else AgentState.THINKING
        self.announce(EventKind.STATE, state, tool=action.tool)

    def _unrecorded(self) -> int:
        """How many steps are being taken of which not even an intent is recorded."""
        with self.lock:
            return sum(not self.journal.has(key) for key in self._begun)

    def make_step(
        self,
        key: str,
        action: Action,
        result: Result | None,
        *,
        started: datetime,
        tries: int = 1,
        changes: StepChanges | None = None,
        in_flight: bool = False,
        number: int | None = None,
    ) -> AgentStep:
        """The record of a step, or (no result) of an intent. Its number is free until `lock` is let go."""
        return AgentStep(
            step_number=number or self.journal.number_for(key),
            name=key,
            action=action,
            result=result,
            attempt=self.context.attempt,
            tries=tries,
            timestamp=started,
            duration=max(self.now() - started, timedelta(0)),
            changes=changes,
            in_flight=in_flight,
            said=self.memory.said,
            remembered=self.memory.remembered,
        )

    def record(self, step: AgentStep) -> None:
        """Writes a step with its result, in one round trip."""
        self.record_all((step,))

    def record_all(self, steps: tuple[AgentStep, ...]) -> None:
        """Writes several steps, in one round trip."""
        with self.lock:
            self._guarded(lambda: self.recorder.record_all(steps))
            for step in steps:
                self._recorded(step)

    def record_intent(self, step: AgentStep) -> None:
        """Writes that a step is about to be done, or waits to be."""
        with self.lock:
            self._guarded(lambda: self.recorder.record_all((step,)))
            self.journal.add(step)

    def record_in(self, transaction: StepTransaction, step: AgentStep, checkpoint_id: str) -> AgentStep:
        """`record`, in a transaction that the step wrote in; see `Recorder.record_in`."""
        recorded = self._guarded(lambda: self.recorder.record_in(transaction, step, checkpoint_id))
        self._recorded(recorded)
        return recorded

    def asking_store(self, question: Callable[[], R]) -> R:
        """Asks the store something, and waits up to the lease's end while it does not answer."""
        unavailable, give_up_at = 0, 0.0
        while True:
            try:
                return question()
            except StoreUnavailable as error:
                give_up_at = give_up_at or self.held.deadline
                self.wait_for_store(error, unavailable, give_up_at)
                unavailable += 1

    def wait_for_store(self, error: StoreUnavailable, waited: int, give_up_at: float) -> None:
        """See `Recorder.wait_for_store`. Nothing is in flight, so this is a step boundary too."""
        self._guarded(lambda: self.recorder.wait_for_store(error, waited, give_up_at))
        self.enter_boundary()

    def inside_step(self, key: str) -> AbstractContextManager[None]:
        """The step's own function runs in this block; it cannot take further steps."""
        return self.nesting.inside_step(key)

    def busy(self, key: str, *, is_expected: bool = False) -> AbstractContextManager[None]:
        """A step is being taken in this block: the attempt does not end before it is recorded."""
        return _Busy(self, key, is_expected)

    def join(self) -> None:
        """Waits until no step is being taken any more, and no pause is being written."""
        self.traffic.wait_until_quiet()

    def abandon(self) -> None:
        """The attempt is being ended from outside: what is in flight may end, and nothing more is begun.

        Does not wait for `lock`: who calls this is in a hurry.
        """
        if self._stopped is None or self.traffic.is_pausing:
            self._stopped = ExecutionStopped(Outcome(ending=Ending.LOST))

    def abandoned_by_interrupts(self) -> AbstractContextManager[None]:
        """What comes from outside into this block ends the attempt, also if the agent's code catches it.

        What that code went on to would be recorded, and is not where the next attempt comes to.
        """
        return _AbandonedByInterrupts(self)

    def check_goes_on(self) -> None:
        """Raises what unwound the agent, if anything did."""
        if self._stopped is not None:
            raise self._stopped

    def begin_to_stop(self, outcome: Outcome) -> ExecutionStopped:
        """From now on no step is begun; what is in flight is still recorded. Returns what the agent is unwound with."""
        self._stopped = ExecutionStopped(outcome)
        return self._stopped

    def write_last(self, write: Callable[[], R]) -> R:
        """Writes the outcome, after which nothing can be written."""
        written = self._guarded(write)
        self._is_written = True
        return written

    def stop(self, outcome: Outcome) -> NoReturn:
        """Unwinds the agent; no later call of the run does anything."""
        with self.lock:
            self._stopped = ExecutionStopped(outcome)
            self.traffic.end_pausing()
        raise self._stopped

    def give_up(self, error: Exception, step: AgentStep) -> NoReturn:
        """Ends the execution at once, with a last word on a step, and unwinds the agent.

        What is in flight is not waited for: it may be what takes down every process.
        """
        with self.lock:
            within = self.environment.announce_within
            self.write_last(lambda: self.recorder.fail(describe(error, with_traceback=True), within, (step,)))
            self.stop(Outcome(ending=Ending.FAILED, error=error))

    @property
    def is_written(self) -> bool:
        """Whether the store has the outcome already. Nothing can be written after it."""
        return self._is_written

    @property
    def has_come_to_rest(self) -> bool:
        """Whether the attempt has ended, and nothing is in flight: nothing that the agent waits for will come."""
        with self.lock:
            return self._stopped is not None and self.traffic.is_quiet

    @property
    def is_stopping(self) -> bool:
        """Whether the attempt has ended, or will as soon as what is in flight is recorded."""
        return self._stopped is not None

    def take_signal(self, kind: SignalKind, key: str) -> Signal | None:
        """The oldest signal of this address; the next write of this thread takes it out of the mailbox."""
        with self.lock:
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
        self.environment.publish(
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
        self.on_recorded(step)
        self.announce(EventKind.STEP_RECORDED, AgentState.THINKING, step=step)

    def _guarded(self, write: Callable[[], R]) -> R:
        if self._is_written and self._stopped is not None:
            raise self._stopped
        try:
            return write()
        except ExecutionStopped as stopped:
            self._stopped = stopped
            raise
        except self.interrupts:
            # Nobody knows whether this was stored. What is recorded after it might store its messages once more.
            self.held.mark_lost()
            raise


# Classes, as every step goes through these blocks, and a generator takes four times as long.


class _Busy(AbstractContextManager[None]):
    __slots__ = ("_attempt", "_is_expected", "_key")

    def __init__(self, attempt: Attempt, key: str, is_expected: bool) -> None:
        self._attempt = attempt
        self._key = key
        self._is_expected = is_expected

    def __enter__(self) -> None:
        self._attempt.traffic.enter(is_expected=self._is_expected)

    def __exit__(self, *exc_info: object) -> None:
        attempt = self._attempt
        with attempt.lock:
            attempt._begun.discard(self._key)
            attempt.traffic.leave()


class _AbandonedByInterrupts(AbstractContextManager[None]):
    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        attempt = self._attempt
        if isinstance(error, attempt.interrupts) and not isinstance(error, ExecutionStopped):
            attempt.interrupted_by = attempt.interrupted_by or error
            attempt.abandon()
