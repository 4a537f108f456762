"""How the work of a step and its checkpoint go together: one after the other, or in one transaction."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import CoroutineType
from typing import Any, Protocol, TypeVar

from agent_statestore.checkpoint import StepTransaction, new_checkpoint_id
from agent_statestore.records import AgentStep
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.steps import calling
from celery_agents.engine.steps.cut_call import call_cuttable

R = TypeVar("R")


# Not frozen, as one is made for every step, and a frozen one takes several times as long.
@dataclass(slots=True)
class Try:
    """One try of a step: the step's key in the journal, and which try it is, from 1."""

    key: str
    number: int


class OpenWork(Protocol):
    """One try of a step's work."""

    def call(self) -> Any:
        """Does it."""
        ...

    def record(self, step: AgentStep) -> AgentStep:
        """Checkpoints it; returns what is recorded."""
        ...


class Work(Protocol):
    """What a step does."""

    def open(self, attempt: Attempt, this: Try, do: Callable[[OpenWork], R]) -> R:
        """Return what `do` returns, which makes one try. What can be undone is undone when it raises.

        Raise what `do` raises, and `StoreUnavailable` if the whole try is to be done again.
        """
        ...


@dataclass(slots=True)
class PlainWork:
    """Work of any kind; the checkpoint follows it. `timeout` is for one try.

    `is_async` says that a call of the function only makes a coroutine, and `is_cuttable` that somebody may cut it off.
    """

    function: Callable[[Try], Any]
    is_async: bool = False
    timeout: timedelta | None = None
    is_cuttable: bool = False

    def open(self, attempt: Attempt, this: Try, do: Callable[[OpenWork], R]) -> R:
        """See `Work`."""
        return do(_Plain(self, attempt, this))


@dataclass(slots=True)
class CalledWork:
    """Work whose first try was made on the event loop. What came of the call is the exception, if there is one."""

    work: PlainWork
    value: Any = None
    error: BaseException | None = None
    _is_taken: bool = False

    def open(self, attempt: Attempt, this: Try, do: Callable[[OpenWork], R]) -> R:
        """See `Work`."""
        if self._is_taken:
            return self.work.open(attempt, this, do)
        self._is_taken = True
        return do(_Called(self, attempt))


@dataclass(frozen=True, slots=True)
class TransactionalWork:
    """Work on the store's own database, in one transaction with the checkpoint: it happens exactly once.

    The store knows the checkpoint by its id, whichever try has committed it.
    """

    function: Callable[[Any], Any]
    checkpoint_id: str = field(default_factory=new_checkpoint_id)

    def open(self, attempt: Attempt, this: Try, do: Callable[[OpenWork], R]) -> R:
        """See `Work`. No step beside it records anything meanwhile: that might wait for this transaction's locks."""
        del this
        with attempt.course.lock, attempt.recorder.transaction() as transaction:
            return do(_Transactional(self.function, attempt, transaction, self.checkpoint_id))


@dataclass(slots=True)
class _Plain:
    work: PlainWork
    attempt: Attempt
    this: Try

    def call(self) -> Any:
        work, this = self.work, self.this
        if work.is_cuttable:
            return self._call_cuttable()
        if work.timeout is None or work.is_async:
            value = work.function(this)
        else:
            value = calling.in_time(partial(work.function, this), this.key, work.timeout)
        if not isinstance(value, CoroutineType):
            return value
        return calling.awaited(value, key=this.key, timeout=work.timeout, held=self.attempt.held)

    def _call_cuttable(self) -> Any:
        work = self.work
        function = partial(work.function, self.this)
        return call_cuttable(function, self.attempt, self.this.key, work.timeout, is_async=work.is_async)

    def record(self, step: AgentStep) -> AgentStep:
        self.attempt.recorder.record_all((step,))
        return step


@dataclass(frozen=True, slots=True)
class _Called:
    called: CalledWork
    attempt: Attempt

    def call(self) -> Any:
        if self.called.error is not None:
            raise self.called.error
        return self.called.value

    def record(self, step: AgentStep) -> AgentStep:
        return self.attempt.recorder.record_found_out(step)


@dataclass(frozen=True, slots=True)
class _Transactional:
    function: Callable[[Any], Any]
    attempt: Attempt
    transaction: StepTransaction
    checkpoint_id: str

    def call(self) -> Any:
        return self.function(self.transaction.connection)

    def record(self, step: AgentStep) -> AgentStep:
        return self.attempt.recorder.record_in(self.transaction, step, self.checkpoint_id)
