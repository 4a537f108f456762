"""The course of one attempt: whether it goes on, what is in flight, and how it ends.

Steps may be taken side by side, each in a thread of its own (`run.parallel`, async agents). What they share is changed
under `Course.lock`, and their records are written one after the other, as the numbers of steps have no gaps.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, NoReturn, ParamSpec, TypeVar

from agent_statestore.errors import StoreUnavailable
from agent_statestore.plain_text import line_logger
from celery_agents.engine.interrupts import Interrupts
from celery_agents.engine.lease import HeldLease
from celery_agents.engine.outcome import Ending, ExecutionStopped, Outcome
from celery_agents.engine.patience import Outage, Patience
from celery_agents.engine.steps.scope import Opened

log = line_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# How often it is looked whether steps that were announced will still be taken.
_LOOK_SECONDS: Final = 0.02


def never() -> bool:
    """Say no: where nobody shuts the process down."""
    return False


class Course:
    """Where an attempt is between its claim and its end.

    It goes on; or it is pausing; or it has stopped. These rules hold:

    1. It goes on until `stopped` is set, for good: by a boundary (`enter_boundary`: lease lost, cancel, drain), by a
       pause, by a write that found the lease lost, or from outside (`abandon`). Only what comes later in the life of
       the same end replaces it: a pause that fails, or that somebody abandons.
    2. `stopped` is the exception that unwinds the agent. Whoever comes to a boundary later gets it again, because the
       agent's code may have caught it.
    3. A step is in flight from `busy` until its record; it may be expected before, by another thread. From `stopped` on
       no step begins, and what is in flight is still recorded. Only while it is pausing are expected steps still taken.
    4. A pause is written when nothing is in flight any more, and no end is recorded before that either (`join`).
    5. `is_written` says that the store has the outcome. Nothing is written after it: who tries gets `stopped`.
    6. An exception that comes from outside (`interrupts`) into a write leaves open whether it was stored. The lease
       then counts as lost, so that nothing is written after it.

    All is changed under `lock`, but for what those in a hurry do: `abandon` and `expect` wait for nobody.
    """

    def __init__(
        self,
        held: HeldLease,
        *,
        interrupts: tuple[type[BaseException], ...] = (),
        is_draining: Callable[[], bool] = never,
        is_exiting: Callable[[], bool] = never,
    ) -> None:
        self.lock = threading.RLock()
        # What passes through a step and through the agent without being recorded as their failure; of an exit of the
        # process `is_interrupt` has the last word.
        from_outside: tuple[type[BaseException], ...] = (ExecutionStopped, *interrupts)
        self.interrupts: tuple[type[BaseException], ...] = (SystemExit, KeyboardInterrupt, *from_outside)
        self.is_interrupt = Interrupts(from_outside, is_exiting).include
        # What came from outside into the agent's code.
        self.interrupted_by: BaseException | None = None
        # What unwound the agent, if anything did.
        self.stopped: ExecutionStopped | None = None
        self.is_written = False
        # What a pause that is being written, or was written last, waits for.
        self.pausing_on: tuple[Opened, ...] = ()
        # What tasks of an async agent wait for, until the next pause, by the order in which the code came there.
        self.open_waits: dict[int, tuple[Opened, ...]] = {}
        # The keys of the steps that are in flight and of which not even an intent is recorded.
        self.unrecorded: set[str] = set()
        self.is_draining = is_draining
        self._held = held
        # Until the pause is written, or is not to be; meanwhile other waits may join it, under `lock`.
        self.is_pausing = False
        self._changed = threading.Condition(self.lock)
        self._are_waiting = False
        self._busy = 0
        self._expecting = threading.Lock()
        self._expected = 0
        self.abandoned_by_interrupts = _AbandonedByInterrupts(self)

    # -- going on ------------------------------------------------------------------------------------------------------

    def check_goes_on(self) -> None:
        """Raise what unwound the agent, if anything did."""
        if self.stopped is not None:
            raise self.stopped

    def enter_boundary(self, *, is_expected: bool = False) -> None:
        """Stop if another step has, if the lease is lost, on a cancel, or on a drain.

        What is expected before a pause is still done.
        """
        if self.stopped is not None and not (is_expected and self.is_pausing):
            raise self.stopped
        held = self._held
        if held.is_lost:
            self.stop(Outcome(ending=Ending.LOST))
        if held.cancel_requested:
            self.stop(Outcome(ending=Ending.CANCELLED))
        if self.is_draining():
            self.leave_to_next_claim()

    def enter_end(self) -> None:
        """Wait for what is in flight; the agent's function has returned, and a cancel still counts."""
        self.join()
        self.check_goes_on()
        if self._held.cancel_requested:
            self.stop(Outcome(ending=Ending.CANCELLED))

    def patience(self, what: str, fault: str, *, between: Callable[[], object] = lambda: None) -> Patience:
        """Return patience with the store up to the end of the lease as it is now, after which the attempt is lost.

        As it is now: a store that takes renewals but never this must not hold us for ever. `what` and `fault` are words
        of the log.
        """

        def lose(error: StoreUnavailable) -> NoReturn:
            log.warning("execution %s: the lease ended before the store answered: %s", lease.execution_id, error)
            held.mark_lost()
            raise self._begin_to_stop(Outcome(ending=Ending.LOST)) from error

        held, lease = self._held, self._held.lease
        outage = Outage(log, f"execution {lease.execution_id}: {what}", fault=fault, until="until the lease ends")
        return Patience(outage, until=held.deadline, give_up=lose, is_over=lambda: held.is_lost, between=between)

    # -- in flight -----------------------------------------------------------------------------------------------------

    def busy(self, key: str, *, is_expected: bool = False) -> AbstractContextManager[None]:
        """Take a step in this block: the attempt does not end before it is recorded."""
        return _Busy(self, key, is_expected)

    def expect(self) -> None:
        """Announce a step that another thread is about to take; `busy(is_expected=True)` or `unexpect` follows.

        Does not wait for the lock, as it is called on the event loop.
        """
        with self._expecting:
            self._expected += 1

    def unexpect(self) -> None:
        """Say that the step will not be taken. Does not wait for the lock either."""
        with self._expecting:
            self._expected -= 1

    def join(self) -> None:
        """Wait until no step is in flight, and no pause is being written."""
        with self.lock:
            while not self._is_quiet:
                self._wait()

    @property
    def has_come_to_rest(self) -> bool:
        """Whether the attempt has ended, and nothing is in flight: nothing that the agent waits for will come."""
        with self.lock:
            return self.stopped is not None and self._is_quiet

    @property
    def _is_quiet(self) -> bool:
        return not (self._busy > 0 or self._expected > 0 or self.is_pausing)

    def _wait(self) -> None:
        self._are_waiting = True  # for good: an attempt that somebody waits for is about to end
        # Nobody tells of an expected step that is not taken after all: that is found out on the event loop.
        self._changed.wait(_LOOK_SECONDS if self._expected > 0 else None)

    # -- stopping ------------------------------------------------------------------------------------------------------

    def stop(self, outcome: Outcome) -> NoReturn:
        """Unwind the agent; no later call of the run does anything."""
        with self.lock:
            stopped = self._begin_to_stop(outcome)
            self._end_pausing()
        raise stopped

    def leave_to_next_claim(self) -> NoReturn:
        """Stop here; another claim goes on at once, from what is stored."""
        self.stop(Outcome(ending=Ending.DRAINED, ring=True))

    def abandon(self) -> None:
        """End the attempt from outside: what is in flight may end, and nothing more is begun.

        Does not wait for `lock`: who calls this is in a hurry.
        """
        if self.stopped is None or self.is_pausing:
            self._begin_to_stop(Outcome(ending=Ending.LOST))

    def pause(
        self, opened: tuple[Opened, ...], write: Callable[[tuple[Opened, ...]], Outcome], *, in_step: bool
    ) -> NoReturn:
        """Stop to wait. Under `lock`, which is let go of until everything else that is in flight is recorded.

        `write` then writes that the execution waits, for what `pausing_on` is by now. `in_step` says that the caller is
        a step that is being taken itself.
        """
        pausing = self._begin_to_stop(Outcome(ending=Ending.PAUSED, waits=tuple(one.wait for one in opened)))
        self.pausing_on, self.is_pausing = opened, True
        try:
            self._busy -= in_step  # it waits for the others
            self._changed.notify_all()
            try:
                while self._busy > 0 or self._expected > 0:
                    self._wait()
            finally:
                self._busy += in_step
            if self.stopped is not pausing:
                self.check_goes_on()
            paused = self.write_last(write, self.pausing_on)
        except Exception as error:  # noqa: BLE001 - the stack is unwound already, perhaps
            self.stop(Outcome(ending=Ending.FAILED, error=error))
        finally:
            self._end_pausing()
        self.stop(paused)

    def _begin_to_stop(self, outcome: Outcome) -> ExecutionStopped:
        """From now on no step is begun; what is in flight is still recorded."""
        self.stopped = stopped = ExecutionStopped(outcome)
        return stopped

    def _end_pausing(self) -> None:
        """The pause is written, or is not to be: those who wait look again."""
        self.is_pausing = False
        self._changed.notify_all()

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, write: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call what writes to the store, unless nothing can be written any more."""
        if self.is_written and self.stopped is not None:
            raise self.stopped
        try:
            return write(*args, **kwargs)
        except ExecutionStopped as stopped:
            self.stopped = stopped
            raise
        except self.interrupts as error:
            # Known before the lease counts as lost: a step beside this one that finds it so may unwind the agent first.
            self.interrupted_by = self.interrupted_by or error
            # Nobody knows whether this was stored. What is recorded after it might store its messages once more.
            self._held.mark_lost()
            raise

    def write_last(self, write: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`write` the outcome, after which nothing can be written."""
        written = self.write(write, *args, **kwargs)
        self.is_written = True
        return written


# Classes, as every step goes through these blocks, and a generator takes four times as long.


class _Busy(AbstractContextManager[None]):
    __slots__ = ("_course", "_is_expected", "_key")

    def __init__(self, course: Course, key: str, is_expected: bool) -> None:
        self._course = course
        self._key = key
        self._is_expected = is_expected

    def __enter__(self) -> None:
        course = self._course
        with course.lock:
            course._busy += 1
            if self._is_expected:
                course.unexpect()

    def __exit__(self, *exc_info: object) -> None:
        course = self._course
        with course.lock:
            course.unrecorded.discard(self._key)
            course._busy -= 1
            if course._are_waiting:
                course._changed.notify_all()


class _AbandonedByInterrupts(AbstractContextManager[None]):
    """What comes from outside into this block ends the attempt, also if the agent's code catches it.

    What that code went on to would be recorded, and is not where the next attempt comes to.
    """

    __slots__ = ("_course",)

    def __init__(self, course: Course) -> None:
        self._course = course

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self.look_at(error)

    def look_at(self, error: BaseException) -> None:
        """This leaves the block. For one that most steps go through, where `with` would be two calls more."""
        course = self._course
        if not isinstance(error, ExecutionStopped) and course.is_interrupt(error):
            course.interrupted_by = course.interrupted_by or error
            course.abandon()
