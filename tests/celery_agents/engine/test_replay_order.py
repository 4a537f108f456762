"""Async agents whose tasks share names of steps: after a crash each task gets the results that it had."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest

from agent_statestore.records import Action, AgentStep, Result
from celery_agents import AsyncRun
from celery_agents.engine.executor import Defaults
from celery_agents.engine.journal import order
from tests.celery_agents.driving import Calls, Crash, Engine


async def slowly(name: str, delay: float) -> str:
    await asyncio.sleep(delay)
    return name


def test_tasks_that_ended_in_another_order_keep_their_results(engine: Engine) -> None:
    die = True

    async def branch(run: AsyncRun, name: str, delay: float) -> str:
        fetched: str = await run.step("fetch", slowly, name, delay)
        total: str = await run.step("sum", lambda: f"sum of {fetched}")
        return total

    async def work(run: AsyncRun, input: None) -> list[str]:
        found = await asyncio.gather(branch(run, "a", 0.1), branch(run, "b", 0.0))
        if die:
            await run.step("die", crash)
        return list(found)

    def crash() -> None:
        raise Crash

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    die = False
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == ["sum of a", "sum of b"]


@pytest.mark.parametrize("seed", range(12))
def test_many_tasks_of_several_steps_go_on_as_they_were(engine: Engine, calls: Calls, seed: int) -> None:
    engine.limits = Defaults(lease=timedelta(seconds=15))
    dies_at = {5, 9, 13, 17}

    async def note(name: str, place: int, delay: float) -> list[object]:
        await asyncio.sleep(delay)
        calls((name, place))
        if len(calls.made) in dies_at:
            dies_at.discard(len(calls.made))
            raise Crash
        return [name, place]

    async def branch(run: AsyncRun, name: str, depth: int) -> list[object]:
        done: list[object] = []
        for place in range(5):
            delay = random.Random(f"{seed} {name} {place}").random() / 50
            step = run.step("note", note, name, place, delay)
            for _ in range(depth):  # more rounds of the loop between the end of the step and the next one
                step = asyncio.gather(step)  # type: ignore[assignment]
            result: object = await step
            for _ in range(depth):
                (result,) = result  # type: ignore[misc]
            done.append(result)
        return done

    async def work(run: AsyncRun, input: None) -> list[list[object]]:
        return list(await asyncio.gather(*(branch(run, name, depth) for depth, name in enumerate("abcd"))))

    execution_id = engine.start(engine.agent(work))
    while dies_at:
        engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None, engine.context(execution_id)
    assert outcome.error is None
    assert outcome.output == [[[name, place] for place in range(5)] for name in "abcd"]


def test_a_step_that_nobody_awaits_any_more_holds_nobody_back(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "_PATIENCE_SECONDS", 600.0)

    async def impatient(run: AsyncRun) -> str:
        try:
            async with asyncio.timeout(0.02):
                await run.step("slow", slowly, "slow", 0.1)
        except TimeoutError:
            return "gave up"
        raise AssertionError("it was not slow")

    async def patient(run: AsyncRun) -> list[str]:
        return [await run.step("pace", slowly, str(number), 0.06) for number in range(4)]

    async def work(run: AsyncRun, input: None) -> list[object]:
        return list(await asyncio.gather(impatient(run), patient(run)))

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == ["gave up", ["0", "1", "2", "3"]]


def test_a_step_that_is_gone_from_the_code_holds_nobody_back_for_long(engine: Engine) -> None:
    first = True

    async def work(run: AsyncRun, input: None) -> str:
        if first:
            await run.step("gone", slowly, "gone", 0.0)
        kept: str = await run.step("kept", slowly, "kept", 0.0)
        if first:
            raise Crash
        return kept

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    first = False
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert "gone" in str(outcome.error)


def test_nobody_overtakes_a_task_that_was_given_its_result_and_does_not_run_yet() -> None:
    def recorded(key: str) -> AgentStep:
        return AgentStep(
            step_number=1,
            name=key,
            action=Action(kind="call"),
            result=Result(success=True),
            timestamp=datetime.now(UTC),
        )

    async def race() -> list[str]:
        replay, gone_on = order.ReplayOrder(()), list[str]()

        async def slower() -> None:
            replay.add(recorded("b"))
            await replay.turn("b")
            gone_on.append("b")

        replay.begin()
        other = asyncio.create_task(slower())
        while not replay._waiting:
            await asyncio.sleep(0)
        while replay._waiting:  # until the result is given
            await asyncio.sleep(0)
        replay.add(recorded("a"))
        await replay.turn("a")
        gone_on.append("a")
        await other
        return gone_on

    assert asyncio.run(race()) == ["b", "a"]
