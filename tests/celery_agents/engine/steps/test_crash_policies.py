"""A call during which the process died: it is repeated, looked for, asked about or given up, as its tool says."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from agent_statestore import AgentState, Checkpoint, Lease, WaitKind
from agent_statestore.records import Checkpointed
from celery_agents import (
    AsyncRun,
    Happened,
    Run,
    StepInterrupted,
    Tool,
    tool,
)
from celery_agents.decorators import Agent
from celery_agents.engine.executor import Defaults
from celery_agents.engine.outcome import Ending
from celery_agents.errors import DeadLetter
from tests.celery_agents.driving import Calls, Crash, Engine


class Death:
    """Dies once, at one point around the effect of the tool `pay`."""

    def __init__(self, engine: Engine, point: str) -> None:
        self.point: str | None = point
        self._checkpoint = engine.store.checkpoint
        engine.store.checkpoint = self._around  # type: ignore[method-assign]

    def at(self, point: str) -> None:
        if self.point == point:
            self.point = None
            raise Crash

    def _around(self, execution_id: str, checkpoint: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        names = {
            ("intent" if step.in_flight else "result")
            for step in checkpoint.steps
            if step.action.tool == "pay" and (step.in_flight or step.result is not None)
        }
        for name in names:
            self.at(f"before the {name}")
        done = self._checkpoint(execution_id, checkpoint, lease)
        for name in names:
            self.at(f"after the {name}")
        return done


def paying(engine: Engine, calls: Calls, death: Death, on_crash: Any, **options: Any) -> Tool[..., int]:
    @tool(registry=engine.registry, on_crash=on_crash, **options)
    def pay(amount: int) -> int:
        death.at("before the effect")
        calls(amount)
        death.at("after the effect")
        return amount

    return pay


def look(amount: int, ledger: Calls) -> Happened | None:
    return Happened(amount) if amount in ledger.made else None


def agent_of(kind: str, engine: Engine, pay: Tool[..., int]) -> Agent:
    """An agent that pays 7: by itself, or beside other steps."""

    def alone(run: Run, input: None) -> int:
        return run.tool(pay, 7)

    def beside(run: Run, input: None) -> int:
        calls: dict[str, Callable[[], int]] = {"one": lambda: 1, "pay": partial(pay, 7), "two": lambda: 2}
        return run.parallel(calls)["pay"]

    async def gathering(run: AsyncRun, input: None) -> int:
        _, paid, _ = await asyncio.gather(
            run.step("one", lambda: 1), run.tool(pay, 7), run.step("two", asyncio.sleep, 0)
        )
        return int(paid)

    kinds: dict[str, Callable[..., Any]] = {"alone": alone, "parallel": beside, "async": gathering}
    return engine.agent(kinds[kind])


KINDS = ("alone", "parallel", "async")
POINTS = (
    "before the intent",
    "after the intent",
    "before the effect",
    "after the effect",
    "before the result",
    "after the result",
)
HAD_EFFECT = ("after the effect", "before the result")
IS_UNKNOWN = ("after the intent", "before the effect", *HAD_EFFECT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", [point for point in POINTS if "intent" not in point])
def test_retry_repeats_what_is_not_recorded(engine: Engine, calls: Calls, kind: str, point: str) -> None:
    agent = agent_of(kind, engine, paying(engine, calls, Death(engine, point), "retry"))
    execution_id = engine.start(agent)
    engine.crash(execution_id)
    assert all(step.result is not None for step in engine.context(execution_id).steps)  # no intent, no extra write
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == 7
    assert calls.made == [7, 7] if point in HAD_EFFECT else [7]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", POINTS)
def test_fail_repeats_nothing_that_may_have_happened(engine: Engine, calls: Calls, kind: str, point: str) -> None:
    agent = agent_of(kind, engine, paying(engine, calls, Death(engine, point), "fail"))
    execution_id = engine.start(agent)
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    if point in IS_UNKNOWN:
        assert isinstance(outcome.error, StepInterrupted)
        assert outcome.error.key == "pay"
        assert engine.context(execution_id).state is AgentState.FAILED
    else:
        assert outcome.output == 7
    assert calls.made == ([] if point in ("after the intent", "before the effect") else [7])
    (paid,) = [step for step in engine.context(execution_id).steps if step.name == "pay"]
    assert paid.result is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", POINTS)
def test_reconcile_finds_out_what_happened(engine: Engine, calls: Calls, kind: str, point: str) -> None:
    agent = agent_of(kind, engine, paying(engine, calls, Death(engine, point), lambda amount: look(amount, calls)))
    execution_id = engine.start(agent)
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == 7
    assert calls.made == [7]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", POINTS)
def test_a_person_who_looks_has_it_happen_once(engine: Engine, calls: Calls, kind: str, point: str) -> None:
    agent = agent_of(kind, engine, paying(engine, calls, Death(engine, point), "ask"))
    execution_id = engine.start(agent)
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    if point in IS_UNKNOWN:
        assert outcome.ending is Ending.PAUSED
        waiting = engine.context(execution_id).waiting
        assert waiting is not None
        assert (waiting.kind, waiting.key) == (WaitKind.INPUT, "pay interrupted 1")
        assert (waiting.prompt["tool"], waiting.prompt["input"]) == ("pay", {"amount": 7})
        assert engine.execute(execution_id) is None  # it waits for ever, and holds nothing
        engine.answer(execution_id, {"output": 7} if calls.made else "retry", waiting.key)
        outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == 7
    assert calls.made == [7]


# -- calls that take down every process --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_kills_whoever_makes_it_ends_as_a_dead_letter(engine: Engine, calls: Calls, kind: str) -> None:
    """An intent is recorded each time, which counts as progress: the number of tries does not."""
    engine.limits = Defaults(max_attempts=3)

    @tool(registry=engine.registry, on_crash=lambda **_: None)
    def pay(amount: int) -> int:
        calls(amount)
        raise Crash

    execution_id = engine.start(agent_of(kind, engine, pay))
    for _ in range(3):
        engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert isinstance(outcome.error, DeadLetter)
    assert engine.context(execution_id).state is AgentState.FAILED
    assert calls.made == [7, 7, 7]


def test_agent_code_cannot_go_on_past_a_dead_letter_and_whoever_releases_it_gets_another_try(
    engine: Engine, calls: Calls
) -> None:
    engine.limits = Defaults(max_attempts=2)
    is_mended = False

    @tool(registry=engine.registry, on_crash=lambda **_: None)
    def pay(amount: int) -> int:
        calls(amount)
        if not is_mended:
            raise Crash
        return amount

    def work(run: Run, input: None) -> int:
        try:
            return run.tool(pay, 7)
        except Exception:  # noqa: BLE001 - the fault that this test is about
            return int(run.step("instead", calls, 0))

    execution_id = engine.start(engine.agent(work))
    for _ in range(2):
        engine.crash(execution_id)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert isinstance(outcome.error, DeadLetter)

    engine.store.checkpoint(execution_id, Checkpoint(state=AgentState.IDLE))
    is_mended = True
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == 7
    assert calls.made == [7, 7, 7]


def test_retries_of_failures_do_not_count_as_deaths(engine: Engine, calls: Calls) -> None:
    engine.limits = Defaults(max_attempts=2)

    @tool(registry=engine.registry, on_crash=lambda **_: None, retries=4, first_delay=timedelta(milliseconds=1))
    def pay(amount: int) -> int:
        calls(amount)
        if len(calls.made) == 4:
            raise Crash
        if len(calls.made) < 4:
            raise OSError("down")
        return amount

    def work(run: Run, input: None) -> int:
        return run.tool(pay, 7)

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == 7


def test_an_intent_beside_a_poison_step_does_not_hide_its_crash_loop(engine: Engine, calls: Calls) -> None:
    """Each claim records an intent anew, and dies of the other step."""
    engine.limits = Defaults(max_attempts=3)
    poisoned, paid = threading.Event(), threading.Event()

    def find(amount: int) -> None:
        poisoned.wait(5)

    @tool(registry=engine.registry, on_crash=find)
    def pay(amount: int) -> int:
        calls(amount)
        paid.set()
        raise Crash

    def poison() -> None:
        poisoned.set()
        paid.wait(0.3)
        raise Crash

    def work(run: Run, input: None) -> Any:
        return run.parallel({"pay": partial(pay, 7), "poison": poison})

    execution_id = engine.start(engine.agent(work))
    for _ in range(4):
        poisoned.clear()
        paid.clear()
        engine.crash(execution_id)
    context = engine.context(execution_id)

    assert context.state is AgentState.FAILED
    assert context.error is not None
    assert context.error.type == "celery_agents.errors:DeadLetter"
    assert calls.made == [7, 7, 7]
