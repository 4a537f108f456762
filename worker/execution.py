"""`Execution`: the handle that a client holds."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from statestore.clock import SystemClock, from_us
from statestore.envelope import dump
from statestore.errors import ExecutionNotFound, ExecutionOver, QuestionNotAsked
from statestore.records import (
    AgentContext,
    AgentStep,
    ExecutionSummary,
    JSONValue,
    Signal,
    SignalKind,
    Wait,
    WaitKind,
)
from statestore.states import AgentState
from statestore.watching import Watch
from worker.cancelling import finish_cancel, request_cancel
from worker.errors import ExecutionCancelled, ExecutionFailed, InvalidAnswer
from worker.runtime import Runtime

if TYPE_CHECKING:
    from worker.aio import AsyncExecution

# A watch tells of every change. Looking without being told, this rarely, is for what nobody foresees.
LOOK_ANYWAY_SECONDS: Final = 30.0
# What the record of a step holds besides its values: names, times, counts.
_STEP_ROOM_BYTES: Final = 512


class Execution:
    """One execution, from the outside. Cheap to make; every call looks at the store."""

    def __init__(self, execution_id: str, runtime: Runtime) -> None:
        self.id = execution_id
        self._runtime = runtime

    def __repr__(self) -> str:
        return f"<Execution {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Execution) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def aio(self) -> "AsyncExecution":
        """The same handle for async code."""
        from worker.aio import AsyncExecution

        return AsyncExecution(self)

    @property
    def state(self) -> AgentState:
        """Where it stands. Raises `ExecutionNotFound`."""
        return self.summary().state

    def summary(self) -> ExecutionSummary:
        """Everything but its contents: cheap. Raises `ExecutionNotFound`."""
        summary = self._runtime.store.get_summary(self.id)
        if summary is None:
            raise ExecutionNotFound(self.id)
        return summary

    def context(self) -> AgentContext:
        """The whole context. Raises `ExecutionNotFound`."""
        context = self._runtime.store.get_context(self.id)
        if context is None:
            raise ExecutionNotFound(self.id)
        return context

    def steps(self, after: int = 0) -> tuple[AgentStep, ...]:
        """The recorded steps numbered above `after`."""
        return self._runtime.store.get_steps(self.id, after)

    @property
    def question(self) -> Wait | None:
        """The question that it waits to have answered, if it does."""
        return question_of(self.summary())

    def wait(self, timeout: float | None = None) -> JSONValue:
        """Blocks until the execution is over and returns its output. `timeout` is in seconds.

        Raises `ExecutionFailed`, `ExecutionCancelled`, `TimeoutError`, `ExecutionNotFound`.
        """
        return self._output(self._look_until(lambda summary: summary.state.is_over, timeout))

    def wait_for_question(self, timeout: float | None = None) -> Wait | None:
        """Blocks until the execution asks a person something, and returns the question; None if it ended without.

        `timeout` is in seconds. Raises `TimeoutError`, `ExecutionNotFound`.
        """
        summary = self._look_until(lambda summary: summary.state.is_over or question_of(summary) is not None, timeout)
        return question_of(summary)

    def __iter__(self) -> Iterator[AgentStep]:
        """Follows the execution live: yields its steps from the first on, new ones as they are recorded, to its end.

        An intent (a step without a result) is yielded once its result is there.
        """
        seen = 0
        with self.watch() as watch:
            while True:
                summary = self.summary()
                for step in self.steps(after=seen) if summary.step_count > seen else ():
                    if step.result is None and not summary.state.is_over:
                        break
                    seen = step.step_number
                    watch.progress()
                    yield step
                if summary.state.is_over and seen >= summary.step_count:
                    return
                watch.wait(LOOK_ANYWAY_SECONDS)

    def watch(self) -> Watch:
        """Wakes its holder when something about the execution may have changed; to be closed.

        On Redis and in memory it is told; elsewhere it looks at growing intervals of up to half a second.
        """
        return self._runtime.store.watch(self.id)

    def resume(
        self, answer: JSONValue, *, key: str | None = None, sender: str | None = None, reason: str | None = None
    ) -> None:
        """Answers the question that the execution waits for; it goes on at once on any worker.

        `key` names the question (`Wait.key`) where there might be another one by now; `sender` and `reason` are
        recorded. Raises `InvalidAnswer` for one that does not fit the question's schema, `QuestionNotAsked`,
        `AlreadyAnswered` (of several answers the first one wins), `ExecutionOver`, `ExecutionNotFound`.
        """
        summary = self.summary()
        if summary.state.is_over:
            raise ExecutionOver(self.id, summary.state.value)
        asked = question_of(summary)
        if key is None:
            if asked is None:
                raise QuestionNotAsked(self.id, "")
            key = asked.key
        if asked is not None and asked.key == key:
            # Both stand in the record of the step. What would not fit there is refused here.
            dump([asked.prompt, answer], "answer", self._runtime.store.max_value_bytes - _STEP_ROOM_BYTES)
            if asked.schema is not None:
                _hold_against(asked, answer)
        sent = self._runtime.store.send(
            self.id,
            Signal(
                signal_id=uuid4().hex,
                kind=SignalKind.ANSWER,
                key=key,
                payload=answer,
                sender=sender,
                reason=reason,
                sent_at=from_us(SystemClock().now_us()),
            ),
        )
        if sent.woke:
            self._runtime.ring(summary)

    def cancel(self, *, sender: str | None = None, reason: str | None = None) -> bool:
        """Cancels the execution, for good; False if it was over already.

        If nothing runs it, it is cancelled when this returns; else at its next step boundary. Raises
        `ExecutionNotFound`.
        """
        store, settings = self._runtime.store, self._runtime.settings
        if not request_cancel(store, self.id, sender=sender, reason=reason):
            return False
        if finish_cancel(store, settings, self.id):
            self._runtime.ring(self.summary())  # a worker tells the result backend and Flower
        return True

    def _look_until(self, is_met: Callable[[ExecutionSummary], bool], timeout: float | None) -> ExecutionSummary:
        """Looks whenever something may have changed, the last time when `timeout` seconds have passed."""
        give_up_at = None if timeout is None else time.monotonic() + timeout
        if is_met(summary := self.summary()):
            return summary
        with self.watch() as watch:
            while not is_met(summary := self.summary()):
                remaining = LOOK_ANYWAY_SECONDS if give_up_at is None else give_up_at - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError(f"execution {self.id} is still {summary.state.value} after {timeout} s")
                watch.wait(min(LOOK_ANYWAY_SECONDS, remaining))
        return summary

    def _output(self, summary: ExecutionSummary) -> JSONValue:
        if summary.state is AgentState.CANCELLED:
            raise ExecutionCancelled(self.id)
        if summary.state is AgentState.FAILED:
            error = summary.error
            if error is None:
                raise ExecutionFailed(self.id, "unknown", "no error was recorded")
            raise ExecutionFailed(self.id, error.type, error.message)
        return self.context().output


def question_of(summary: ExecutionSummary) -> Wait | None:
    """The question that an execution waited to have answered when it was looked at."""
    waiting = summary.waiting
    return waiting if waiting is not None and waiting.kind is WaitKind.INPUT else None


def _hold_against(question: Wait, answer: JSONValue) -> None:
    import jsonschema  # here, because every celery command imports this module and few need that

    schema = dict(question.schema or {})
    faults = sorted(jsonschema.Draft202012Validator(schema).iter_errors(answer), key=str)
    if faults:
        problems = [f"{'.'.join(str(part) for part in fault.path) or 'answer'}: {fault.message}" for fault in faults]
        raise InvalidAnswer(question.key, problems)
