"""The client for async code: a thin facade that runs the one implementation in threads."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from agent_statestore.records import AgentContext, AgentStep, ExecutionSummary, JSONValue, Wait
from agent_statestore.states import AgentState
from celery_agents import current
from celery_agents.client.execution import LOOK_ANYWAY_SECONDS, Execution, check_seconds
from celery_agents.client.watch import AsyncWatch
from celery_agents.define.agent import Agent
from celery_agents.lifecycle.signals import approval_of, question_of


class AsyncExecution:
    """`Execution` with awaitable methods; see there for the meaning and the errors of each."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    @property
    def id(self) -> str:
        """The execution's id."""
        return self._execution.id

    async def state(self) -> AgentState:
        """Where it stands."""
        return (await self.summary()).state

    async def summary(self) -> ExecutionSummary:
        """Everything but its contents."""
        return await asyncio.to_thread(self._execution.summary)

    async def context(self) -> AgentContext:
        """The whole context."""
        return await asyncio.to_thread(self._execution.context)

    async def steps(self, after: int = 0) -> tuple[AgentStep, ...]:
        """The recorded steps numbered above `after`."""
        return await asyncio.to_thread(self._execution.steps, after)

    async def question(self) -> Wait | None:
        """The question that it waits to have answered, if it does."""
        return await asyncio.to_thread(lambda: self._execution.question)

    async def approval(self) -> Wait | None:
        """The approval that it waits for, if it does."""
        return await asyncio.to_thread(lambda: self._execution.approval)

    async def wait(self, timeout: float | None = None) -> JSONValue:
        """The output, once the execution is over."""
        await self._look_until(lambda summary: summary.state.is_over, timeout)
        return await asyncio.to_thread(self._execution.wait, 0)

    async def wait_for_question(self, timeout: float | None = None) -> Wait | None:
        """The question, once there is one; None if the execution ended without."""
        summary = await self._look_until(lambda seen: question_of(seen) is not None or seen.state.is_over, timeout)
        return question_of(summary)

    async def wait_for_approval(self, timeout: float | None = None) -> Wait | None:
        """The approval, once one is waited for; None if the execution ended without."""
        summary = await self._look_until(lambda seen: approval_of(seen) is not None or seen.state.is_over, timeout)
        return approval_of(summary)

    async def _look_until(self, is_met: Callable[[ExecutionSummary], bool], timeout: float | None) -> ExecutionSummary:
        """Looks at once, and then whenever something may have changed, until `timeout` seconds have passed."""
        check_seconds(timeout)
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
        """Follows the execution live."""
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

    async def resume(self, answer: JSONValue, **options: Any) -> None:
        """Answers the question that the execution waits for."""
        await asyncio.to_thread(lambda: self._execution.resume(answer, **options))

    async def approve(self, **options: Any) -> None:
        """Approves of the tool call that the execution waits to make."""
        await asyncio.to_thread(lambda: self._execution.approve(**options))

    async def reject(self, **options: Any) -> None:
        """Refuses the tool call that the execution waits to make."""
        await asyncio.to_thread(lambda: self._execution.reject(**options))

    async def send_event(self, name: str, payload: JSONValue = None, **options: Any) -> None:
        """Sends an event."""
        await asyncio.to_thread(lambda: self._execution.send_event(name, payload, **options))

    async def cancel(self, **options: Any) -> bool:
        """Cancels the execution, for good."""
        return await asyncio.to_thread(lambda: self._execution.cancel(**options))

    async def delete(self, **options: Any) -> bool:
        """Deletes the execution."""
        return await asyncio.to_thread(lambda: self._execution.delete(**options))


async def enqueue(agent: Agent | str, input: JSONValue = None, **options: Any) -> AsyncExecution:  # noqa: A002
    """Starts an execution; takes what `celery_agents.enqueue` takes."""
    return (await asyncio.to_thread(lambda: current.enqueue(agent, input, **options))).aio


async def get_execution(execution_id: str) -> AsyncExecution:
    """The handle of an existing execution."""
    return (await asyncio.to_thread(current.get_execution, execution_id)).aio
