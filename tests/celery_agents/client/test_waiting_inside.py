"""Waiting for an execution in the code of an agent: refused, as it would hold the slot that the other one needs."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from celery_agents import AsyncRun, Registry, Run, WaitInsideAgent, agent
from celery_agents.client.execution import Execution
from celery_agents.engine.steps.scope import execution_around
from celery_agents.testing import LocalAgents, LocalExecution

WAYS: dict[str, Callable[[Execution], Any]] = {
    "wait": lambda other: other.wait(1),
    "wait for ever": lambda other: other.wait(),
    "wait_for_question": lambda other: other.wait_for_question(1),
    "wait_for_approval": lambda other: other.wait_for_approval(1),
    "follow": lambda other: next(iter(other)),
    "of the test kit": lambda _: LOCAL[0].wait(),
    "follow with the test kit": lambda _: next(iter(LOCAL[0])),
}
LOCAL: list[LocalExecution] = []
ASYNC_WAYS: dict[str, Callable[[Execution], Awaitable[Any]]] = {
    "wait": lambda other: other.aio.wait(1),
    "wait_for_question": lambda other: other.aio.wait_for_question(1),
    "wait_for_approval": lambda other: other.aio.wait_for_approval(1),
    "follow": lambda other: anext(aiter(other.aio)),
}


def test_every_way_to_wait_is_refused_in_an_agent_and_in_its_steps() -> None:
    registry = Registry()
    refused: list[tuple[str, str]] = []
    other: list[Execution] = []

    def note(where: str, how: str, way: Callable[[Execution], Any]) -> None:
        with pytest.raises(WaitInsideAgent, match=other[0].id):
            way(other[0])
        refused.append((where, how))

    async def note_async(where: str, how: str, way: Callable[[Execution], Awaitable[Any]]) -> None:
        with pytest.raises(WaitInsideAgent, match=other[0].id):
            await way(other[0])
        refused.append((where, how))

    @agent(registry=registry)
    def asks(run: Run, input: None) -> str:
        return str(run.ask("?"))

    @agent(registry=registry)
    def plain(run: Run, input: None) -> None:
        for how, way in WAYS.items():
            note("agent", how, way)
            run.step(f"step {how}", note, "step", how, way)
            run.parallel({f"one {how}": partial(note, "parallel", how, way), f"two {how}": partial(str, 1)})
        with pytest.raises(TimeoutError):
            other[0].wait(0)  # holds nothing

    @agent(registry=registry)
    async def coroutine(run: AsyncRun, input: None) -> None:
        for how, way in ASYNC_WAYS.items():
            await note_async("async agent", how, way)
            await run.step(f"step {how}", note_async, "async step", how, way)
            await run.step(f"thread {how}", note, "thread", how, WAYS["wait"])

    with LocalAgents(registry=registry) as local:
        waiting = local.start(asks, None)
        LOCAL[:] = [waiting]
        other.append(Execution(waiting.id, local.runtime))
        for each in (plain, coroutine):
            local.start(each, None).wait()
        assert execution_around() is None
        with pytest.raises(TimeoutError):
            other[0].wait(0.01)
        with pytest.raises(TimeoutError):
            asyncio.run(other[0].aio.wait(0.01))
    wanted = {(where, how) for where in ("agent", "step", "parallel") for how in WAYS}
    wanted |= {(where, how) for where in ("async agent", "async step", "thread") for how in ASYNC_WAYS}
    assert set(refused) == wanted
