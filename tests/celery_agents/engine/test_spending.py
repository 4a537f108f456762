"""What is spent inside of steps: it belongs to their records, counts once, and is the same whenever a process died."""

import asyncio
import contextlib
import contextvars
import math
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

import celery_agents
from agent_statestore import InvalidRecord
from agent_statestore.records import AgentContext
from agent_statestore.sql import SQLStore
from celery_agents import AsyncRun, Finished, Registry, Retry, Run, ToolContext, agent, tool
from celery_agents.engine.journal.spending import spent_in
from celery_agents.errors import BudgetExceeded, StepFailed
from celery_agents.misuse import SpentInVain
from celery_agents.testing import LocalAgents
from tests.celery_agents.driving import Crash, Engine
from tests.celery_agents.household import Household, dying_at_each_write

HOUR = timedelta(hours=1)


def by_step(context: AgentContext) -> dict[str, dict[str, float]]:
    return {step.name: dict(step.spent) for step in context.steps}


def paid(amount: float) -> float:
    celery_agents.spend(tokens=amount)
    return amount


async def paid_async(amount: float) -> float:
    await asyncio.sleep(0)
    celery_agents.spend(tokens=amount)
    return amount


def paid_in_copied_thread(amount: float) -> None:
    thread = threading.Thread(target=contextvars.copy_context().run, args=(paid, amount))
    thread.start()
    thread.join()


@tool(registry=Registry())
def buy(context: ToolContext, amount: float) -> float:
    context.spend(tokens=amount)
    thread = threading.Thread(target=context.spend, kwargs={"cost": amount / 10})
    thread.start()
    thread.join()
    return amount


def test_what_a_step_spends_is_in_its_record_wherever_it_is_spent(engine: Engine) -> None:
    def work(run: Run, input: None) -> list[float]:
        seen = []
        run.spend(tokens=1)
        seen.append(run.spent["tokens"])
        run.step("function", paid, 10)
        seen.append(run.spent["tokens"])
        run.step("closure", lambda: run.spend(tokens=100))
        run.step("async", paid_async, 1000)
        run.step("thread", paid_in_copied_thread, 2000)
        run.step("closure in a thread", lambda: _joined(lambda: run.spend(tokens=4000)))
        run.options(timeout=HOUR).step("timed", paid, 8000)
        run.tool(buy, amount=20000)
        run.parallel({f"parallel {n}": lambda n=n: paid_in_copied_thread(100000 * n) for n in (1, 2)})  # type: ignore[misc]
        celery_agents.spend(cost=0.5)
        seen.append(run.spent["tokens"])
        return seen

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)

    context = engine.context(execution_id)
    assert by_step(context) == {
        "function": {"tokens": 10},
        "closure": {"tokens": 100},
        "async": {"tokens": 1000},
        "thread": {"tokens": 2000},
        "closure in a thread": {"tokens": 4000},
        "timed": {"tokens": 8000},
        "buy": {"tokens": 20000, "cost": 2000},
        "parallel 1": {"tokens": 100000},
        "parallel 2": {"tokens": 200000},
    }
    assert context.output == [1, 11, 335111]
    assert context.memory.working_memory == {"agents.spent": {"tokens": 1, "cost": 0.5}}
    assert spent_in(context) == {"tokens": 335111, "cost": 2000.5}


def _joined(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_an_async_agent_spends_in_steps_on_the_loop_and_in_threads(engine: Engine) -> None:
    async def work(run: AsyncRun, input: None) -> list[float]:
        seen = []
        await run.step("loop", paid_async, 1)
        await run.step("plain", paid, 10)
        seen.append(run.spent["tokens"])
        await asyncio.gather(*(run.step("gathered", paid_async, 100) for _ in range(3)))
        await run.parallel({"a": lambda: paid(1000), "b": lambda: paid(1000)})
        await run.step("to thread", lambda: asyncio.to_thread(paid, 10000))
        celery_agents.spend(tokens=100000)
        seen.append(run.spent["tokens"])
        return seen

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)

    context = engine.context(execution_id)
    assert context.output == [11, 112311]
    assert by_step(context)["gathered#3"] == {"tokens": 100}
    assert by_step(context)["to thread"] == {"tokens": 10000}
    assert spent_in(context)["tokens"] == 112311


def test_a_transaction_spends(tmp_path: Path) -> None:
    engine = Engine()
    with SQLStore(f"sqlite:///{tmp_path}/agents.db") as engine.store:

        def book(connection: sqlalchemy.Connection) -> None:
            paid(7)
            if len(tried) < 1:
                tried.append(1)
                raise ValueError("once")

        def work(run: Run, input: None) -> float:
            run.options(retry=Retry(retries=1, first_delay=timedelta(0))).transaction("book", book)
            return run.spent["tokens"]

        tried: list[int] = []
        execution_id = engine.start(engine.agent(work))
        engine.execute(execution_id)
        context = engine.context(execution_id)
    assert (by_step(context), context.output) == ({"book": {"tokens": 14}}, 14)


# -- tries -------------------------------------------------------------------------------------------------------------


def retried(fails: int, first_delay: timedelta) -> Callable[[Run, None], Any]:
    def work(run: Run, input: None) -> list[Any]:
        def attempt() -> str:
            celery_agents.spend(tokens=10, cost=0.25)
            raise OSError("again")

        policy = Retry(retries=fails, first_delay=first_delay, max_delay=first_delay or HOUR)
        with contextlib.suppress(OSError):
            run.options(retry=policy).step("attempt", attempt)
        return [run.spent["tokens"], run.spent["cost"]]

    return work


@pytest.mark.parametrize("first_delay", [timedelta(0), HOUR])
def test_a_step_that_fails_for_good_has_spent_what_all_its_tries_have(first_delay: timedelta) -> None:
    home = Household()
    execution_id = home.start(home.agent(retried(2, first_delay)))
    home.work(within=5 * HOUR)

    context = home.context(execution_id)
    assert context.output == [30, 0.75]
    assert by_step(context) == {"attempt": {"tokens": 30, "cost": 0.75}}
    assert (context.steps[0].tries, context.attempt) == (3, 1 if not first_delay else 3)


def test_before_a_durable_retry_it_is_recorded_already() -> None:
    home = Household()
    execution_id = home.start(home.agent(retried(2, HOUR)))
    home.work()

    (step,) = home.context(execution_id).steps
    assert (step.result, dict(step.spent)) == (None, {"tokens": 10, "cost": 0.25})
    assert spent_in(home.context(execution_id)) == {"tokens": 10, "cost": 0.25}


def test_the_tries_of_concurrent_steps_that_wait_are_counted_too() -> None:
    home = Household()

    def work(run: Run, input: None) -> float:
        def attempt() -> str:
            celery_agents.spend(tokens=10)
            raise OSError("again")

        policy = Retry(retries=1, first_delay=HOUR, max_delay=HOUR)
        run.options(retry=policy).parallel({"a": attempt, "b": attempt}, return_exceptions=True)
        return run.spent["tokens"]

    execution_id = home.start(home.agent(work))
    home.work(within=5 * HOUR)

    assert home.context(execution_id).output == 40
    assert by_step(home.context(execution_id)) == {"a": {"tokens": 20}, "b": {"tokens": 20}}


@pytest.mark.parametrize(("answer", "spent"), [("retry", 20), ({"output": 1}, 10), ("fail", 10)])
def test_an_interrupted_call_keeps_what_its_earlier_tries_have_spent(answer: Any, spent: float) -> None:
    home = Household()
    tries: list[int] = []

    def work(run: Run, input: None) -> float:
        def attempt() -> int:
            tries.append(1)
            if len(tries) == 2:
                raise Crash
            celery_agents.spend(tokens=10)
            if len(tries) == 1:
                raise OSError("again")
            return 1

        policy = Retry(retries=5, first_delay=timedelta(0))
        with contextlib.suppress(celery_agents.StepInterrupted):
            run.options(retry=policy, on_crash="ask").step("attempt", attempt)
        return run.spent["tokens"]

    execution_id = home.start(home.agent(work))
    home.work(within=HOUR)
    home.answer(execution_id, answer, "attempt interrupted 2")
    home.work(within=HOUR)

    assert home.context(execution_id).output == spent
    assert by_step(home.context(execution_id)) == {"attempt": {"tokens": spent}}


# -- replays -----------------------------------------------------------------------------------------------------------


def spender(run: Run, input: None) -> list[dict[str, float]]:
    seen = []
    for number in range(3):
        run.step("think", paid, 100)
        run.spend(cost=0.5)
        seen.append(run.spent)
        run.parallel({f"{number} {one}": lambda: paid(10) for one in "ab"})
        seen.append(run.spent)
    run.sleep(HOUR)
    return [*seen, run.spent]


async def async_spender(run: AsyncRun, input: None) -> list[dict[str, float]]:
    seen = []

    async def one(name: str) -> None:
        await run.step(name, paid_async, 10)
        seen.append(run.spent)

    for _ in range(3):
        await run.step("think", paid_async, 100)
        run.spend(cost=0.5)
        seen.append(run.spent)
        await asyncio.gather(one("a"), one("b"))
        seen.append(run.spent)
    await run.sleep(HOUR)
    return [*seen, run.spent]


@pytest.mark.parametrize("function", [spender, async_spender])
def test_the_sum_is_the_same_at_every_point_whenever_the_process_died(function: Callable[..., Any]) -> None:
    def scenario(home: Household) -> str:
        execution_id = home.start(home.agent(function))
        home.work(within=2 * HOUR)
        return execution_id

    home = Household()
    undisturbed = home.context(scenario(home)).output
    assert undisturbed[-1] == {"tokens": 360, "cost": 1.5}
    for home, execution_id in dying_at_each_write(scenario):
        context = home.context(execution_id)
        assert context.output == undisturbed, home.store.writes
        assert spent_in(context) == undisturbed[-1]


@pytest.mark.parametrize(
    ("limit", "what"), [({"max_tokens": 250}, "340 of 250 tokens"), ({"max_cost": 0.75}, "1.5 of 0.75 cost")]
)
def test_what_steps_have_spent_counts_for_the_limits(limit: dict[str, float], what: str) -> None:
    home = Household()

    def work(run: Run, input: None) -> None:
        run.step("a", paid, 240)
        run.spend(cost=0.5)
        run.step("b", lambda: celery_agents.spend(tokens=100, cost=1))
        run.step("c", paid, 100)

    execution_id = home.start(home.agent(work, **limit))
    home.work()

    error = home.context(execution_id).error
    assert error is not None
    assert error.type.endswith(BudgetExceeded.__name__)
    assert what in error.message
    assert len(home.context(execution_id).steps) == 2


def test_steps_that_are_recorded_count_before_the_code_has_come_to_them() -> None:
    """Tasks of an async agent begin new steps while others are still led through the journal."""
    home = Household()

    async def work(run: AsyncRun, input: None) -> None:
        await run.step("a", paid_async, 100)
        if home.deaths:
            await run.step("new", paid_async, 100)  # of a new version of the code
        await run.step("b", paid_async, 100)
        raise Crash

    execution_id = home.start(home.agent(work, max_tokens=150))
    home.work(within=HOUR)
    error = home.context(execution_id).error
    assert error is not None
    assert "200 of 150 tokens" in error.message


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "amount", [-1, -0.5, math.nan, math.inf, 10**400, pytest.param(10**5000, id="longest"), 10**16, True, "1", None]
)
def test_what_is_no_amount_is_refused_in_a_step_and_nothing_is_counted(engine: Engine, amount: Any) -> None:
    def work(run: Run, input: None) -> dict[str, float]:
        def attempt() -> None:
            with pytest.raises(InvalidRecord, match="tokens: needs a number"):
                celery_agents.spend(tokens=amount, cost=1)

        run.step("attempt", attempt)
        with pytest.raises(InvalidRecord, match="tokens: needs a number"):
            celery_agents.spend(tokens=amount, cost=1)
        return run.spent

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)

    assert engine.context(execution_id).output == {"tokens": 0, "cost": 0}
    with pytest.raises(InvalidRecord):
        celery_agents.spend(tokens=amount)


def test_sums_that_no_record_takes_are_refused_when_they_are_spent(engine: Engine) -> None:
    def work(run: Run, input: None) -> dict[str, float]:
        def attempt() -> None:
            celery_agents.spend(tokens=10**15)
            with pytest.raises(InvalidRecord, match="tokens"):
                celery_agents.spend(tokens=1)

        run.step("attempt", attempt)
        return run.spent

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    assert engine.context(execution_id).output == {"tokens": 10**15, "cost": 0}


def test_spending_at_once_from_many_threads_loses_nothing(engine: Engine) -> None:
    def one() -> None:
        context = [contextvars.copy_context() for _ in range(4)]
        threads = [threading.Thread(target=each.run, args=(_often,)) for each in context]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def work(run: Run, input: None) -> float:
        run.parallel({f"{number}": one for number in range(4)})
        return run.spent["tokens"]

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    assert engine.context(execution_id).output == 4 * 4 * 200
    assert {step.spent["tokens"] for step in engine.context(execution_id).steps} == {800}


def _often() -> None:
    for _ in range(200):
        celery_agents.spend(tokens=1)


def test_what_cannot_be_recorded_any_more_is_refused(engine: Engine) -> None:
    refused: list[BaseException] = []

    def late(spend: Callable[..., None]) -> None:
        try:
            spend(tokens=1)
        except SpentInVain as error:
            refused.append(error)

    def work(run: Run, input: None) -> float:
        def in_vain() -> None:  # a thread of unknown origin beside steps that run at once
            thread = threading.Thread(target=late, args=(run.spend,))
            thread.start()
            thread.join()

        kept: list[contextvars.Context] = []
        run.step("over", lambda: kept.append(contextvars.copy_context()))
        kept[0].run(late, celery_agents.spend)
        run.parallel({"a": in_vain, "b": lambda: paid(5)})
        return run.spent["tokens"]

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    assert engine.context(execution_id).output == 5
    assert [str(error).split(":")[0] for error in refused] == [
        "step 'over' has ended and is recorded",
        "which of the steps 'a, b' has spent this is not known",
    ]


def test_outside_of_executions_spending_counts_nowhere() -> None:
    celery_agents.spend(tokens=1, cost=2)


def test_a_record_of_an_older_worker_has_spent_nothing_and_its_memory_counts(engine: Engine) -> None:
    """It counted in the agent's code, and so does code that was not changed."""

    def work(run: Run, input: None) -> dict[str, float]:
        run.spend(tokens=run.step("think", lambda: 100))
        if not done:
            done.append(1)
            raise Crash
        run.step("more", paid, 5)
        return run.spent

    done: list[int] = []
    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.execute(execution_id)
    context = engine.context(execution_id)
    assert (by_step(context), context.output["tokens"]) == ({"think": {}, "more": {"tokens": 5}}, 105)


def test_a_failed_step_is_shown_with_what_it_has_spent(engine: Engine) -> None:
    def work(run: Run, input: None) -> float:
        def attempt() -> object:
            celery_agents.spend(tokens=3)
            return object()  # which JSON cannot carry

        with pytest.raises((StepFailed, celery_agents.InvalidResult)):
            run.step("attempt", attempt)
        return run.spent["tokens"]

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    assert engine.context(execution_id).output == 3


def test_what_a_poll_and_an_escalation_spend_is_kept_over_the_pauses_between() -> None:
    home = Household()
    looks: list[int] = []

    def poll(number: int) -> Finished | None:
        celery_agents.spend(tokens=10)
        looks.append(number)
        return Finished("done") if len(looks) == 3 else None

    def work(run: Run, input: None) -> list[Any]:
        run.wait_job("render", lambda: 7, poll=poll, every=HOUR)
        run.ask("?", timeout=HOUR, default=None, escalate=lambda _: celery_agents.spend(cost=0.5))
        return [run.spent["tokens"], run.spent["cost"]]

    async def work_async(run: AsyncRun, input: None) -> list[Any]:
        await run.wait_job("render", lambda: 7, poll=poll, every=HOUR)
        await run.ask("?", timeout=HOUR, default=None, escalate=lambda _: celery_agents.spend(cost=0.5))
        await run.sleep(HOUR)
        return [run.spent["tokens"], run.spent["cost"]]

    for one in (work, work_async):
        looks.clear()
        execution_id = home.start(home.agent(one))
        home.work(within=9 * HOUR)
        assert home.context(execution_id).output == [30, 0.5], one
        assert by_step(home.context(execution_id))["job render"] == {"tokens": 30}


def test_a_fork_has_spent_what_the_steps_that_it_takes_over_have() -> None:
    registry = Registry()
    home = LocalAgents(registry=registry)

    def work(run: Run, input: None) -> float:
        for number in range(3):
            run.step(f"{number}", paid, 10)
            run.spend(tokens=1)
        return run.spent["tokens"]

    original = home.start(agent(registry=registry)(work)).run()
    fork = original.fork(at_step=2).run()
    assert (original.wait(), fork.wait()) == (33, 33)
    assert spent_in(fork.context()) == {"tokens": 33}
