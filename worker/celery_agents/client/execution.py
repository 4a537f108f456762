"""`Execution`, the handle that a client holds, and `AsyncExecution`, the same handle for async code."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final

from agent_statestore.contract.watch import Watch
from agent_statestore.errors import ExecutionNotFound
from agent_statestore.records import AgentContext, AgentStep, ExecutionSummary, JSONValue, Wait
from agent_statestore.states import AgentState
from agent_statestore.streams.records import StreamEvent
from celery_agents.client.follower import AsyncStreamFollower, StreamFollower
from celery_agents.client.following import (
    async_events_of,
    check_outside_of_agents,
    check_seconds,
    events_of,
    require_completed,
)
from celery_agents.client.steered import SteeredExecution
from celery_agents.client.text import TextPiece, async_pieces_of, pieces_of
from celery_agents.client.watch import AsyncWatch
from celery_agents.engine.journal.spending import spent_in
from celery_agents.lifecycle import delete, signals
from celery_agents.lifecycle.cancel import cancel
from celery_agents.lifecycle.decider import PYTHON, Decider
from celery_agents.lifecycle.services import Services
from celery_agents.lifecycle.signals import approval_of, approvals_of, question_of, questions_of

# A watch tells of every change. Looking without being told guards against what nobody foresees.
LOOK_ANYWAY_SECONDS: Final = 30.0


class Execution(SteeredExecution):
    """One execution, seen from the outside. Cheap to make; every call looks at the store."""

    def __init__(self, execution_id: str, services: Services, channel: str = PYTHON) -> None:
        """`channel` is recorded with each decision that is sent through this handle."""
        self.id = execution_id
        self._services = services
        self._channel = channel

    def __repr__(self) -> str:
        return f"<Execution {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Execution) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def aio(self) -> "AsyncExecution":
        """The same handle for async code."""
        return AsyncExecution(self)

    @property
    def state(self) -> AgentState:
        """The state of the execution. Raises `ExecutionNotFound`."""
        return self.summary().state

    def summary(self) -> ExecutionSummary:
        """Return everything but the contents of the execution: cheap. Raise `ExecutionNotFound`."""
        summary = self._services.store.get_summary(self.id)
        if summary is None:
            raise ExecutionNotFound(self.id)
        return summary

    def context(self) -> AgentContext:
        """Return the whole context. Raise `ExecutionNotFound`."""
        context = self._services.store.get_context(self.id)
        if context is None:
            raise ExecutionNotFound(self.id)
        return context

    def spent(self) -> dict[str, float]:
        """Return what it has spent by now, `tokens` and `cost`. Read with the whole context."""
        return {"tokens": 0, "cost": 0, **spent_in(self.context())}

    def steps(self, after: int = 0) -> tuple[AgentStep, ...]:
        """Return the recorded steps numbered above `after`."""
        return self._services.store.get_steps(self.id, after)

    @property
    def waits(self) -> tuple[Wait, ...]:
        """All that the execution waits for; whatever comes first has it go on."""
        return self.summary().waits

    @property
    def question(self) -> Wait | None:
        """The question whose answer the execution waits for, if any; the first, if there are several."""
        return question_of(self.summary())

    @property
    def questions(self) -> tuple[Wait, ...]:
        """All questions whose answers the execution waits for."""
        return questions_of(self.summary())

    @property
    def approvals(self) -> tuple[Wait, ...]:
        """All approvals that the execution waits for; see `approval`."""
        return approvals_of(self.summary())

    @property
    def approval(self) -> Wait | None:
        """The approval that the execution waits for, if any; the first, if there are several.

        Its `prompt` holds `tool`, `description`, `arguments` and `digest`. Its `schema` is the schema of the arguments.
        """
        return approval_of(self.summary())

    def wait(self, timeout: float | None = None) -> JSONValue:
        """Block until the execution is over and return its output. `timeout` is in seconds.

        Raises `ExecutionFailed`, `ExecutionCancelled`, `TimeoutError`, `ExecutionNotFound`. In the code of an agent it
        raises `WaitInsideAgent`, as do all ways to wait, unless `timeout` is 0: the agent would hold the slot that the
        other execution may need. There, `run.spawn` and `run.gather` wait without a slot.
        """
        require_completed(self._look_until(lambda summary: summary.state.is_over, timeout))
        return self.context().output

    def wait_for_question(self, timeout: float | None = None) -> Wait | None:
        """Block until the execution asks a person something, and return the question; None if it ended without one.

        `timeout` is in seconds. Raises `TimeoutError`, `ExecutionNotFound`.
        """
        summary = self._look_until(lambda summary: summary.state.is_over or question_of(summary) is not None, timeout)
        return question_of(summary)

    def wait_for_approval(self, timeout: float | None = None) -> Wait | None:
        """Block until the execution waits for an approval, and return it (see `approval`); None if it ended before.

        `timeout` is in seconds. Raises `TimeoutError`, `ExecutionNotFound`.
        """
        summary = self._look_until(lambda summary: summary.state.is_over or approval_of(summary) is not None, timeout)
        return approval_of(summary)

    def __iter__(self) -> Iterator[AgentStep]:
        """Follow the execution live to its end: yield its steps from the first on, and new ones as they are recorded.

        An intent (a step without a result) is yielded once it has a result.
        """
        check_outside_of_agents(self.id)
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

    def follow(self, after: int = 0) -> StreamFollower:
        """Return a follower of its stream, for those who wait in slices; `events` is made of it."""
        return StreamFollower(self._services.store, self.id, after)

    def events(self, after: int = 0, *, timeout: float | None = None) -> Iterator[StreamEvent]:
        """Follow what happens, live: yield the events of its stream, in order, until the execution is over.

        Begin behind the event of number `after`, such as the last one that was seen before a connection was lost. If
        older ones were removed, a `trimmed` event says so. The last one is `ended`; see `StreamKind`. While the store
        is away, this waits.

        Raise `TimeoutError` after so many seconds in all, `ExecutionNotFound`, and `WaitInsideAgent` as `wait` does.
        """
        return events_of(self, after, timeout)

    def stream_text(self, after: int = 0, *, timeout: float | None = None) -> Iterator[TextPiece]:
        """Follow the text that its models say, piece by piece; see `TextPiece` and `events`."""
        return pieces_of(self.events(after, timeout=timeout))

    def watch(self) -> Watch:
        """Return a watch that wakes its holder when something about the execution may have changed. Close it after use.

        On Redis and in memory the watch is told of changes; elsewhere it looks at growing intervals of up to half a
        second.
        """
        return self._services.store.watch(self.id)

    def resume(
        self,
        answer: JSONValue,
        *,
        key: str | None = None,
        round: int | None = None,  # noqa: A002 - the field's name
        sender: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Answer the question that the execution waits for; the execution goes on at once on any worker.

        `key` names the question (`Wait.key`), in case the execution asks another one by now; it is needed where several
        are open. `round` is the time of asking (`Wait.round`): an answer that the worker finds of no use is recorded,
        and the question is asked anew. `sender` (at most 255 characters, none of them invisible) and `reason` are
        recorded, with the system's user of this process. Raises `InvalidAnswer` for an answer that does not fit the
        question, `QuestionNotAsked` (also where the execution waits for an approval), `SeveralAsked`,
        `AlreadyAnswered` (the first of several answers wins), `ExecutionOver`, `ExecutionNotFound`.
        """
        signals.answer(self._services, self.summary(), answer, key=key, round=round, by=self._decider(sender, reason))

    def approve(
        self,
        *,
        key: str | None = None,
        digest: str | None = None,
        arguments: Mapping[str, JSONValue] | None = None,
        sender: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Approve the tool call that the execution waits to make; the execution goes on at once on any worker.

        Give the `digest` that was shown (`approval.prompt["digest"]`): nothing is then approved if the execution has
        come to another call by now, or to the same call again. Without a digest, this approves whatever the execution
        waits for, or what `key` names (`approval.key`); where several are open, one of the two is needed. `arguments`,
        all of them by name, replace those that the agent chose. `sender` and `reason` are recorded.

        Raises `InvalidArguments` for arguments that do not fit the tool, `NoApprovalAsked`, `SeveralAsked`,
        `AlreadyAnswered` (the first of several decisions wins), `ExecutionOver`, `ExecutionNotFound`.
        """
        signals.approve(
            self._services,
            self.summary(),
            key=key,
            digest=digest,
            arguments=arguments,
            by=self._decider(sender, reason),
        )

    def reject(
        self,
        *,
        key: str | None = None,
        digest: str | None = None,
        sender: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Refuse the tool call that the execution waits to make: the agent gets `ApprovalDenied`.

        Parameters and errors are the same as for `approve`.
        """
        signals.reject(self._services, self.summary(), key=key, digest=digest, by=self._decider(sender, reason))

    def send_event(
        self, name: str, payload: JSONValue = None, *, event_id: str | None = None, sender: str | None = None
    ) -> None:
        """Send an event. `run.wait_for(name)` returns its payload; the event is kept until the agent waits for it.

        An event changes nothing if this execution was sent one with the same `event_id` (at most 249 characters)
        before, so sending may be repeated. While the execution waits for an event of this name, its `schema` is held
        against the payload. An event that is sent before is judged when it is waited for: one that does not fit is then
        passed over, and `Wait.refused` and the audit trail say why. Raises `InvalidEvent`, `NotSerialisable`,
        `ValueTooLarge`, `InvalidRecord`, `ExecutionOver`, `ExecutionNotFound`.
        """
        signals.send_event(self._services, self.id, name, payload, event_id=event_id, by=self._decider(sender, None))

    def cancel(self, *, now: bool = False, sender: str | None = None, reason: str | None = None) -> bool:
        """Cancel the execution for good; return False if it was over already.

        If nothing runs the execution, it is cancelled when this returns; otherwise it ends at its next step boundary.
        With `now` it does not wait for that (a step that hangs has none): it is cancelled when this returns, and so are
        its children, and nothing that is still running is recorded. What a step does to the world outside may still
        happen: a worker with a prefork pool kills the process within seconds, while on threads and solo the step keeps
        its slot until its function returns. Raises `ExecutionNotFound`.
        """
        return cancel(self._services, self.id, by=self._decider(sender, reason), now=now)

    def delete(self, *, sender: str | None = None, reason: str | None = None) -> bool:
        """Delete the execution, even while a worker has it; return False if it was not there.

        The worker's next write is refused, and it stops; a prefork pool kills a process whose step does not end within
        a lease. A parent that waits for the execution, and executions that wait for their turn behind it, go on at
        once. Its own children go on running: call `cancel` first to end them too. Its result in Celery's result backend
        goes first. `Store.delete_context` says what is kept of the execution, including `sender` and `reason`; where
        nothing is kept, the log tells who deleted it. Raises `ResultBackendUnavailable`, and then nothing is deleted.
        """
        return delete.delete(self._services, self.id, by=self._decider(sender, reason))

    def _decider(self, sender: str | None, reason: str | None) -> Decider:
        return Decider(sender=sender, reason=reason, channel=self._channel)

    def _look_until(self, is_met: Callable[[ExecutionSummary], bool], timeout: float | None) -> ExecutionSummary:
        """Look whenever something may have changed, for the last time when `timeout` seconds have passed."""
        check_seconds(timeout)
        if timeout is None or timeout > 0:
            check_outside_of_agents(self.id)
        give_up_at = None if timeout is None else time.monotonic() + timeout
        if is_met(summary := self.summary()):
            return summary
        with self.watch() as watch:
            while not is_met(summary := self.summary()):
                remaining = LOOK_ANYWAY_SECONDS if give_up_at is None else give_up_at - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError(self.stands_still(summary, timeout))
                watch.wait(min(LOOK_ANYWAY_SECONDS, remaining))
        return summary

    def stands_still(self, summary: ExecutionSummary, timeout: float | None) -> str:
        """Return the message for a wait in vain. It names the store: most often the workers are on another one."""
        said = f"execution {self.id} is still {summary.state.value} after {timeout} s"
        if summary.state is not AgentState.IDLE:
            return said
        return f"{said}: no worker on {self._services.store.url} that knows agent {summary.agent_id!r} has taken it yet"


class AsyncExecution:
    """`Execution` with awaitable methods; `Execution` describes their meaning and their errors."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    @property
    def id(self) -> str:
        """The execution's id."""
        return self._execution.id

    async def state(self) -> AgentState:
        """Return the state of the execution."""
        return (await self.summary()).state

    async def summary(self) -> ExecutionSummary:
        """Return everything but the contents of the execution."""
        return await asyncio.to_thread(self._execution.summary)

    async def context(self) -> AgentContext:
        """Return the whole context."""
        return await asyncio.to_thread(self._execution.context)

    async def spent(self) -> dict[str, float]:
        """Return what it has spent by now, `tokens` and `cost`."""
        return await asyncio.to_thread(self._execution.spent)

    async def steps(self, after: int = 0) -> tuple[AgentStep, ...]:
        """Return the recorded steps numbered above `after`."""
        return await asyncio.to_thread(self._execution.steps, after)

    async def question(self) -> Wait | None:
        """Return the question whose answer the execution waits for, if any."""
        return await asyncio.to_thread(lambda: self._execution.question)

    async def approval(self) -> Wait | None:
        """Return the approval that the execution waits for, if any."""
        return await asyncio.to_thread(lambda: self._execution.approval)

    async def waits(self) -> tuple[Wait, ...]:
        """Return all that the execution waits for."""
        return (await self.summary()).waits

    async def questions(self) -> tuple[Wait, ...]:
        """Return all questions whose answers the execution waits for."""
        return questions_of(await self.summary())

    async def approvals(self) -> tuple[Wait, ...]:
        """Return all approvals that the execution waits for."""
        return approvals_of(await self.summary())

    async def wait(self, timeout: float | None = None) -> JSONValue:
        """Return the output, once the execution is over."""
        await self._look_until(lambda summary: summary.state.is_over, timeout)
        return await asyncio.to_thread(self._execution.wait, 0)

    async def wait_for_question(self, timeout: float | None = None) -> Wait | None:
        """Return the question, once there is one; None if the execution ended without one."""
        summary = await self._look_until(lambda seen: question_of(seen) is not None or seen.state.is_over, timeout)
        return question_of(summary)

    async def wait_for_approval(self, timeout: float | None = None) -> Wait | None:
        """Return the approval, once the execution waits for one; None if it ended before."""
        summary = await self._look_until(lambda seen: approval_of(seen) is not None or seen.state.is_over, timeout)
        return approval_of(summary)

    async def _look_until(self, is_met: Callable[[ExecutionSummary], bool], timeout: float | None) -> ExecutionSummary:
        """Look at once, and then whenever something may have changed, until `timeout` seconds have passed."""
        check_seconds(timeout)
        if timeout is None or timeout > 0:
            check_outside_of_agents(self.id)
        summary = await self.summary()
        if is_met(summary):
            return summary
        try:
            async with asyncio.timeout(timeout), AsyncWatch(self._execution.watch) as watch:
                while not is_met(summary := await self.summary()):
                    await watch.wait(LOOK_ANYWAY_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(self._execution.stands_still(summary, timeout)) from error
        return summary

    async def __aiter__(self) -> AsyncIterator[AgentStep]:
        """Follow the execution live."""
        check_outside_of_agents(self.id)
        seen = 0
        async with AsyncWatch(self._execution.watch) as watch:
            while True:
                summary = await self.summary()
                for step in await self.steps(after=seen) if summary.step_count > seen else ():
                    if step.result is None and not summary.state.is_over:
                        break
                    seen = step.step_number
                    watch.progress()
                    yield step
                if summary.state.is_over and seen >= summary.step_count:
                    return
                await watch.wait(LOOK_ANYWAY_SECONDS)

    def follow(self, after: int = 0) -> AsyncStreamFollower:
        """Return a follower of its stream, for those who wait in slices."""
        return AsyncStreamFollower(self._execution._services.store, self.id, after)

    async def events(self, after: int = 0, *, timeout: float | None = None) -> AsyncIterator[StreamEvent]:
        """Follow what happens, live; see `Execution.events`. No thread waits for it."""
        async for event in async_events_of(self._execution, after, timeout):
            yield event

    def stream_text(self, after: int = 0, *, timeout: float | None = None) -> AsyncIterator[TextPiece]:
        """Follow the text of its models."""
        return async_pieces_of(self.events(after, timeout=timeout))

    async def resume(self, answer: JSONValue, **options: Any) -> None:
        """Answer the question that the execution waits for."""
        await asyncio.to_thread(lambda: self._execution.resume(answer, **options))

    async def approve(self, **options: Any) -> None:
        """Approve the tool call that the execution waits to make."""
        await asyncio.to_thread(lambda: self._execution.approve(**options))

    async def reject(self, **options: Any) -> None:
        """Refuse the tool call that the execution waits to make."""
        await asyncio.to_thread(lambda: self._execution.reject(**options))

    async def send_event(self, name: str, payload: JSONValue = None, **options: Any) -> None:
        """Send an event."""
        await asyncio.to_thread(lambda: self._execution.send_event(name, payload, **options))

    async def say(self, text: str, **options: Any) -> None:
        """Say something to the execution while it runs."""
        await asyncio.to_thread(lambda: self._execution.say(text, **options))

    async def cancel(self, **options: Any) -> bool:
        """Cancel the execution for good."""
        return await asyncio.to_thread(lambda: self._execution.cancel(**options))

    async def delete(self, **options: Any) -> bool:
        """Delete the execution."""
        return await asyncio.to_thread(lambda: self._execution.delete(**options))
