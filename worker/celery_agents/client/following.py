"""What waiting for an execution has in common, and its events as iterators."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from agent_statestore.records import ExecutionSummary
from agent_statestore.states import AgentState
from agent_statestore.streams.records import StreamEvent, StreamKind
from celery_agents.client.follower import AsyncStreamFollower, StreamFollower
from celery_agents.client.text import ended_as
from celery_agents.engine.steps.scope import execution_around
from celery_agents.errors import ExecutionCancelled, ExecutionFailed
from celery_agents.misuse import WaitInsideAgent


class Followed(Protocol):
    """The handle of an execution, as far as it is needed here."""

    id: str

    @property
    def aio(self) -> "AsyncFollowed":
        """The same for async code."""
        ...

    def follow(self, after: int = 0) -> StreamFollower:
        """Return a follower of its stream."""
        ...

    def summary(self) -> ExecutionSummary:
        """Return its summary."""
        ...

    def stands_still(self, summary: ExecutionSummary, timeout: float | None) -> str:
        """Return what a `TimeoutError` says."""
        ...


class AsyncFollowed(Protocol):
    """The async handle of an execution, as far as it is needed here."""

    def follow(self, after: int = 0) -> AsyncStreamFollower:
        """Return a follower of its stream."""
        ...


def events_of(execution: Followed, after: int, timeout: float | None) -> Iterator[StreamEvent]:
    """Yield the events of an execution; see `Execution.events`."""
    check_seconds(timeout)
    check_outside_of_agents(execution.id)
    return _events(execution, after, timeout)


def _events(execution: Followed, after: int, timeout: float | None) -> Iterator[StreamEvent]:
    give_up_at, last = _end(timeout), None
    with execution.follow(after) as follower:
        while not follower.is_over:
            events = follower.read(_left(give_up_at))
            for last in events:
                yield last
            if not events and not follower.is_over:
                raise TimeoutError(execution.stands_still(execution.summary(), timeout))
    if last is None or last.kind != StreamKind.ENDED:
        yield ended_as(execution.summary())


async def async_events_of(execution: Followed, after: int, timeout: float | None) -> AsyncIterator[StreamEvent]:
    """Yield the events of an execution; see `Execution.events`."""
    check_seconds(timeout)
    check_outside_of_agents(execution.id)
    give_up_at, last = _end(timeout), None
    async with execution.aio.follow(after) as follower:
        while not follower.is_over:
            events = await follower.read(_left(give_up_at))
            for last in events:
                yield last
            if not events and not follower.is_over:
                raise TimeoutError(execution.stands_still(await asyncio.to_thread(execution.summary), timeout))
    if last is None or last.kind != StreamKind.ENDED:
        yield ended_as(await asyncio.to_thread(execution.summary))


def _end(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(give_up_at: float | None) -> float | None:
    return None if give_up_at is None else max(give_up_at - time.monotonic(), 0.0)


def check_outside_of_agents(execution_id: str) -> None:
    """Raise `WaitInsideAgent` where an agent's code would wait for this execution."""
    inside = execution_around()
    if inside is not None:
        raise WaitInsideAgent(execution_id, inside)


def check_seconds(timeout: float | None) -> None:
    """Raise `TypeError` for anything but a number of seconds: most often a `timedelta`, which agents' waits take."""
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float)):
        raise TypeError(f"timeout needs a number of seconds, or None, not {timeout!r:.80}")


def require_completed(summary: ExecutionSummary) -> None:
    """Raise `ExecutionCancelled` or `ExecutionFailed` for an execution that is over otherwise."""
    if summary.state is AgentState.CANCELLED:
        raise ExecutionCancelled(summary.execution_id)
    if summary.state is AgentState.FAILED:
        error = summary.error
        if error is None:
            raise ExecutionFailed(summary.execution_id, "unknown", "no error was recorded")
        raise ExecutionFailed(summary.execution_id, error.type, error.message)
