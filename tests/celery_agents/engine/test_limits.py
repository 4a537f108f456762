"""What one execution may use: steps, time, tokens, cost, retries, the size of a value; and people who may raise it."""

from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, InvalidRecord, WaitKind
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from celery_agents import AsyncRun, RegistrationError, Retry, Run
from celery_agents.engine.executor import Defaults
from celery_agents.errors import (
    AnswerTimeout,
    BudgetExceeded,
    InvalidResult,
    LimitExceeded,
    MaxStepsExceeded,
)
from tests.celery_agents.driving import LEASE, Calls, Crash, Engine
from tests.celery_agents.household import Household, dying_at_each_write

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def counting(run: Run, input: int) -> list[int]:
    return [run.step("count", lambda n=number: n) for number in range(input)]  # type: ignore[misc]


def failure_of(home: Engine, execution_id: str) -> str:
    error = home.context(execution_id).error
    assert error is not None, home.context(execution_id).state
    return error.type.rpartition(":")[2]


# -- steps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "take",
    [
        lambda run: run.step("step", lambda: 1),
        lambda run: run.sleep(0),
        lambda run: run.sleep(HOUR),
        lambda run: run.ask("?", timeout=timedelta(0), default=1),
        lambda run: run.ask("?"),
        lambda run: run.wait_for("event", timeout=timedelta(0), default=1),
        lambda run: run.spawn("counting", 0),
        lambda run: run.parallel({"a": lambda: 1}),
    ],
)
def test_every_kind_of_step_counts_and_none_is_taken_past_the_limit(take: Any) -> None:
    home = Household()

    def work(run: Run, input: None) -> None:
        counting(run, 3)
        take(run)

    home.agent(counting)
    execution_id = home.start(home.agent(work, max_steps=3))
    home.work(within=2 * HOUR)

    assert failure_of(home, execution_id) == MaxStepsExceeded.__name__
    assert len(home.context(execution_id).steps) == 3
    assert home.all(home.registry.agent("counting")) == []


def test_a_question_on_the_last_permitted_step_is_asked_and_answered() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        counting(run, 2)
        return run.ask("?")

    execution_id = home.start(home.agent(work, max_steps=3))
    home.work()
    home.answer(execution_id, "yes")
    home.work()

    assert home.context(execution_id).output == "yes"


def test_a_person_may_allow_more_steps_and_is_asked_again_when_those_are_taken() -> None:
    home = Household()
    execution_id = home.start(home.agent(counting, max_steps=3, on_limit="ask"), 8)
    home.work()

    waiting = home.context(execution_id).waiting
    assert waiting is not None
    assert (waiting.kind, waiting.key) == (WaitKind.INPUT, "limit steps 1")
    assert waiting.prompt["limit"] == "steps"
    assert "3 steps" in waiting.prompt["question"]
    home.answer(execution_id, 2, "limit steps 1")
    home.work()
    assert len(home.context(execution_id).steps) == 3 + 1 + 2
    home.answer(execution_id, 3, "limit steps 2")
    home.work()

    assert home.context(execution_id).output == list(range(8))


def test_what_people_allowed_counts_after_every_crash_and_each_answer_once() -> None:
    def scenario(home: Household) -> str:
        execution_id = home.start(home.agent(counting, max_steps=2, on_limit="ask"), 5)
        for question in ("limit steps 1", "limit steps 2"):
            home.work(within=timedelta(minutes=2))
            home.answer(execution_id, 2 if question.endswith("1") else 1, question)
        home.work(within=timedelta(minutes=2))
        return execution_id

    for home, execution_id in dying_at_each_write(scenario):
        assert home.context(execution_id).output == list(range(5)), home.store.writes
        assert [step.name for step in home.context(execution_id).steps if step.action.kind == "limit"] == [
            "limit steps 1",
            "limit steps 2",
        ]


@pytest.mark.parametrize("nonsense", [[], [-3, "lots", True, None, {"more": 3}]])
def test_a_person_who_allows_nothing_lets_it_fail_and_is_not_asked_again(nonsense: list[Any], calls: Calls) -> None:
    home = Household()

    def work(run: Run, input: None) -> None:
        counting(run, 2)
        for _ in range(3):
            try:
                run.step("more", lambda: 1)
            except LimitExceeded as error:
                calls(type(error).__name__)
        if len(calls.made) == 3:
            raise Crash
        run.step("even more", lambda: 1)

    execution_id = home.start(home.agent(work, max_steps=2, on_limit="ask"))
    home.work()
    for rounds, answer in enumerate((*nonsense, 0), 1):
        calls.made.clear()
        home.answer(execution_id, answer, "limit steps 1", round=rounds)
        home.work(within=timedelta(minutes=5))

    assert failure_of(home, execution_id) == MaxStepsExceeded.__name__
    assert calls.made == ["MaxStepsExceeded"] * 6


def test_a_person_may_allow_more_than_a_float_holds() -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        for _ in range(2):
            run.spend(cost=2)
            run.step("more", lambda: 1)
        return "done"

    execution_id = home.start(home.agent(work, max_cost=1.0, on_limit="ask"))
    home.work()
    home.answer(execution_id, 10**400, "limit cost 1")
    home.work()
    assert home.context(execution_id).output == "done"


def test_an_agent_may_end_with_what_it_has_when_a_limit_is_reached() -> None:
    home = Household()

    def work(run: Run, input: None) -> list[int]:
        done: list[int] = []
        try:
            for number in range(10):
                counted = run.step("count", lambda n=number: n)  # type: ignore[misc]
                done.append(counted)
        except MaxStepsExceeded:
            run.say("assistant", "that is all")
        return done

    execution_id = home.start(home.agent(work, max_steps=4))
    home.work()

    assert home.context(execution_id).output == [0, 1, 2, 3]


def test_a_limit_reached_in_parallel_steps_asks_once_and_all_of_them_go_on() -> None:
    home = Household()

    def work(run: Run, input: None) -> dict[str, int]:
        return run.parallel({f"part {number}": lambda n=number: n for number in range(5)})  # type: ignore[misc]

    execution_id = home.start(home.agent(work, max_steps=2, on_limit="ask"))
    home.work()
    assert home.context(execution_id).state is AgentState.WAITING_FOR_INPUT
    home.answer(execution_id, 3, "limit steps 1")
    home.work()

    assert home.context(execution_id).output == {f"part {number}": number for number in range(5)}


def test_an_async_agent_is_asked_for_likewise() -> None:
    home = Household()

    async def work(run: AsyncRun, input: None) -> list[int]:
        return [await run.step("count", lambda n=number: n) for number in range(4)]  # type: ignore[misc]

    execution_id = home.start(home.agent(work, max_steps=3, on_limit="ask"))
    home.work()
    home.answer(execution_id, 1, "limit steps 1")
    home.work()

    assert home.context(execution_id).output == [0, 1, 2, 3]


# -- tokens and cost ---------------------------------------------------------------------------------------------------


def spender(run: Run, input: int) -> dict[str, float]:
    for _ in range(input):
        run.spend(tokens=run.step("think", lambda: 100), cost=0.5)
    return run.spent


@pytest.mark.parametrize(
    ("limit", "what"), [({"max_tokens": 250}, "300 of 250 tokens"), ({"max_cost": 1.25}, "1.5 of 1.25 cost")]
)
def test_a_budget_that_is_spent_ends_it_before_the_next_step(limit: dict[str, float], what: str) -> None:
    home = Household()
    execution_id = home.start(home.agent(spender, **limit), 10)
    home.work()

    error = home.context(execution_id).error
    assert error is not None
    assert failure_of(home, execution_id) == BudgetExceeded.__name__
    assert error.message == f"the execution has spent {what}"
    assert len(home.context(execution_id).steps) == 3


def test_what_is_spent_on_the_last_step_is_no_failure() -> None:
    home = Household()
    execution_id = home.start(home.agent(spender, max_tokens=250), 3)
    home.work()

    assert home.context(execution_id).output == {"tokens": 300, "cost": 1.5}


def test_what_was_spent_is_the_same_whenever_the_process_died() -> None:
    def scenario(home: Household) -> str:
        execution_id = home.start(home.agent(spender, max_tokens=250, on_limit="ask"), 4)
        home.work(within=timedelta(minutes=2))
        home.answer(execution_id, 100, "limit tokens 1")
        home.work(within=timedelta(minutes=2))
        return execution_id

    for home, execution_id in dying_at_each_write(scenario):
        assert home.context(execution_id).output == {"tokens": 400, "cost": 2.0}, home.store.writes


def test_what_was_spent_is_not_among_the_agents_own_memories_and_not_forgotten_with_them() -> None:
    home = Household()

    def work(run: Run, input: None) -> list[Any]:
        run.spend(tokens=70)
        run.memory["own"] = 1
        seen = [dict(run.memory), len(run.memory), "agents.spent" in run.memory]
        run.memory.clear()
        with pytest.raises(InvalidRecord, match=r"agents\.spent"):
            run.memory["agents.spent"] = {}
        return [*seen, run.spent["tokens"]]

    execution_id = home.start(home.agent(work, max_tokens=100))
    home.work()

    assert home.context(execution_id).output == [{"own": 1}, 1, False, 70]
    assert home.context(execution_id).memory.working_memory == {"agents.spent": {"tokens": 70, "cost": 0}}


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf"), "many", None, True])
def test_what_is_no_amount_cannot_be_spent(engine: Engine, amount: Any) -> None:
    def work(run: Run, input: None) -> float:
        with pytest.raises(InvalidRecord, match="tokens: needs a number"):
            run.spend(tokens=amount)
        return run.spent["tokens"]

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == 0


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": 0},
        {"max_tokens": 0},
        {"max_cost": -1.0},
        {"max_cost": float("nan")},
        {"deadline": timedelta(0)},
        {"deadline": 3600},
        {"on_limit": "beg"},
    ],
)
def test_a_limit_that_is_none_is_refused_at_registration_by_name(engine: Engine, options: dict[str, Any]) -> None:
    with pytest.raises(RegistrationError, match=next(iter(options))):
        engine.agent(counting, **options)


# -- retries and sizes -------------------------------------------------------------------------------------------------


def test_retries_are_bounded_for_the_whole_execution_across_crashes(calls: Calls) -> None:
    home = Household()
    home.limits = Defaults(lease=LEASE, max_retries=5)

    def fails() -> None:
        calls(1)
        raise OSError("down")

    def work(run: Run, input: None) -> None:
        impatient = run.options(retry=Retry(retries=3, first_delay=timedelta(milliseconds=1)))
        for name in ("a", "b", "c"):
            try:
                impatient.step(name, fails)
            except OSError:
                continue
        if run.attempt == 1:
            raise Crash
        impatient.step("d", fails)

    execution_id = home.start(home.agent(work))
    home.work(within=timedelta(minutes=1))

    assert failure_of(home, execution_id) == "OSError"
    assert [step.tries for step in home.context(execution_id).steps] == [4, 3, 1, 1]
    assert len(calls.made) == 4 + 3 + 1 + 1


@pytest.mark.parametrize(
    "take",
    [
        lambda run: run.ask("x" * DEFAULT_MAX_VALUE_BYTES),
        lambda run: run.ask({"x": "é" * (DEFAULT_MAX_VALUE_BYTES - 40)}),
        lambda run: run.ask("?", choices=["x" * DEFAULT_MAX_VALUE_BYTES]),
        lambda run: run.ask("?", choices=[object()]),
        lambda run: run.ask("?", default=object(), timeout=HOUR),
        lambda run: run.step("big", lambda: "x" * DEFAULT_MAX_VALUE_BYTES),
        lambda run: run.say("user", "x" * DEFAULT_MAX_VALUE_BYTES),
        lambda run: run.remember("x" * DEFAULT_MAX_VALUE_BYTES),
    ],
)
def test_a_value_that_no_store_takes_is_an_error_at_once_and_the_agent_goes_on(take: Any) -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        with pytest.raises((InvalidRecord, InvalidResult)):
            take(run)
        return run.step("after", lambda: "went on")

    execution_id = home.start(home.agent(work))
    home.work()

    assert home.context(execution_id).output == "went on"
    assert home.summary(execution_id).attempt == 1


def test_a_pause_that_cannot_be_stored_is_an_error_and_not_a_lost_execution() -> None:
    """The prompt alone would be stored, and the prompt with its schema not."""
    home = Household()

    def work(run: Run, input: None) -> str:
        size = DEFAULT_MAX_VALUE_BYTES - 20
        with pytest.raises(InvalidRecord):
            run.ask("x" * size, choices=["yes", "no"], timeout=HOUR)
        return run.step("after", lambda: "went on")

    execution_id = home.start(home.agent(work))
    home.work()

    assert home.context(execution_id).output == "went on"
    assert home.summary(execution_id).attempt == 1


def test_a_question_without_an_answer_in_time_is_an_error_that_is_caught_alike_on_every_attempt(calls: Calls) -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        try:
            run.ask("?", timeout=HOUR)
        except AnswerTimeout as error:
            calls(str(error))
        run.sleep(HOUR)
        return "went on"

    execution_id = home.start(home.agent(work, deadline=DAY))
    home.work(within=3 * HOUR)

    assert home.context(execution_id).output == "went on"
    assert calls.made == ["question 'ask' was not answered in time"] * 2
