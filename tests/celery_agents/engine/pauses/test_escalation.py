"""`run.ask` whose deadline passes: the callback is a durable step, and then the question stands again."""

from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState
from celery_agents import AsyncRun, Run
from celery_agents.errors import AnswerTimeout
from tests.celery_agents.driving import Calls, Crash
from tests.celery_agents.household import Household, dying_at_each_write

HOUR = timedelta(hours=1)


def asking(home: Household, calls: Calls, **options: Any) -> str:
    def work(run: Run, input: None) -> list[Any]:
        answer = run.ask("May I?", timeout=HOUR, escalate=calls, **options)
        return [answer, run.step("after", lambda: "done")]

    return home.start(home.agent(work))


def test_nobody_is_called_while_the_question_may_still_be_answered(calls: Calls) -> None:
    home = Household()
    execution_id = asking(home, calls)
    home.work(within=timedelta(minutes=50))
    home.answer(execution_id, "yes")
    home.work(within=3 * HOUR)

    assert home.context(execution_id).output == ["yes", "done"]
    assert calls.made == []


def test_after_the_deadline_the_callback_is_called_and_the_question_stands_again(calls: Calls) -> None:
    home = Household()
    execution_id = asking(home, calls)
    home.work(within=timedelta(minutes=61))

    context = home.context(execution_id)
    assert calls.made == ["May I?"]
    assert context.state is AgentState.WAITING_FOR_INPUT
    assert context.waiting is not None
    assert context.waiting.wake_at is not None
    assert context.waiting.key == "ask"
    assert timedelta(minutes=50) < context.waiting.wake_at - home.now() < HOUR
    home.answer(execution_id, "yes")
    home.work(within=3 * HOUR)

    assert home.context(execution_id).output == ["yes", "done"]
    assert [step.name for step in home.context(execution_id).steps] == ["escalate ask", "ask", "after"]
    assert calls.made == ["May I?"]


@pytest.mark.parametrize(("default", "expected"), [({"default": "no"}, ["no", "done"]), ({}, None)])
def test_when_nobody_answers_then_either_comes_the_default_or_the_error(
    calls: Calls, default: dict[str, Any], expected: Any
) -> None:
    home = Household()
    execution_id = asking(home, calls, **default)
    home.work(within=3 * HOUR)

    context = home.context(execution_id)
    assert context.output == expected
    assert (context.error is None) == bool(default)
    if context.error is not None:
        assert context.error.type.endswith(AnswerTimeout.__name__)
    assert calls.made == ["May I?"]


def test_an_answer_that_comes_while_the_callback_runs_counts(calls: Calls) -> None:
    home, ids = Household(), []

    def escalate(prompt: Any) -> None:
        calls(prompt)
        home.answer(ids[0], "just now")

    def work(run: Run, input: None) -> Any:
        return run.ask("May I?", timeout=HOUR, escalate=escalate)

    ids.append(home.start(home.agent(work)))
    home.work(within=timedelta(minutes=61))

    assert home.context(ids[0]).output == "just now"
    assert calls.made == ["May I?"]


@pytest.mark.parametrize("when", ["before the first deadline", "before the second", "never"])
def test_an_execution_that_dies_at_any_write_asks_and_escalates_as_it_was_to(when: str) -> None:
    def scenario(home: Household) -> tuple[str, Calls]:
        calls = Calls()
        execution_id = asking(home, calls, default="nobody")
        home.work(within=timedelta(minutes=30))
        if when == "before the first deadline":
            home.answer(execution_id, "yes")
        home.work(within=timedelta(minutes=60))
        if when == "before the second":
            home.answer(execution_id, "yes")
        home.work(within=2 * HOUR)
        return execution_id, calls

    for home, (execution_id, calls) in dying_at_each_write(scenario):
        context = home.context(execution_id)
        assert context.output == ["nobody" if when == "never" else "yes", "done"], home.store.writes
        # Recorded, it is not called again; the one death before it is recorded may repeat it.
        assert len(calls.made) in ((0,) if when == "before the first deadline" else (1, 2))
        assert context.ended_at is not None
        latest = {"before the first deadline": 31, "before the second": 91, "never": 122}[when]
        assert context.ended_at - context.created_at < timedelta(minutes=latest + 1)


def test_a_callback_that_died_is_called_again_and_its_question_stands_again() -> None:
    home, calls = Household(), Calls()

    def escalate(prompt: Any) -> None:
        if len(calls(calls.made)) < 2:
            raise Crash

    def work(run: Run, input: None) -> Any:
        return run.ask("May I?", timeout=HOUR, escalate=escalate, default="nobody")

    execution_id = home.start(home.agent(work))
    home.work(within=timedelta(minutes=62))
    assert home.context(execution_id).state is AgentState.WAITING_FOR_INPUT
    assert len(calls.made) == 2
    home.work(within=2 * HOUR)

    assert home.context(execution_id).output == "nobody"


def test_a_callback_that_fails_fails_the_question_on_every_attempt(calls: Calls) -> None:
    home = Household()

    def escalate(prompt: Any) -> None:
        raise OSError("no mail today")

    def work(run: Run, input: None) -> str:
        try:
            run.ask("May I?", timeout=HOUR, escalate=escalate)
        except OSError as error:
            calls(str(error))
        run.sleep(HOUR)
        return "went on"

    execution_id = home.start(home.agent(work))
    home.work(within=4 * HOUR)

    assert home.context(execution_id).output == "went on"
    assert calls.made == ["no mail today"] * 2


def test_questions_in_a_row_escalate_each_for_itself(calls: Calls) -> None:
    home = Household()

    def work(run: Run, input: None) -> list[Any]:
        return [run.ask(n, timeout=HOUR, escalate=calls, default="nobody") for n in range(3)]

    execution_id = home.start(home.agent(work))
    home.work(within=7 * HOUR)

    assert home.context(execution_id).output == ["nobody"] * 3
    assert calls.made == [0, 1, 2]


def test_an_async_callback_is_awaited(calls: Calls) -> None:
    home = Household()

    async def escalate(prompt: Any) -> None:
        calls(prompt)

    async def work(run: AsyncRun, input: None) -> Any:
        return await run.ask("May I?", timeout=HOUR, escalate=escalate, default="nobody")

    execution_id = home.start(home.agent(work))
    home.work(within=3 * HOUR)

    assert home.context(execution_id).output == "nobody"
    assert calls.made == ["May I?"]


@pytest.mark.parametrize(("answer", "default"), [(True, 1), (1, True), (1.0, True), (0, False)])
def test_an_answer_that_python_takes_for_the_default_stays_the_answer(answer: Any, default: Any) -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        got = run.ask("?", default=default, timeout=HOUR)
        return f"{type(got).__name__} {got}"

    execution_id = home.start(home.agent(work))
    home.work()
    home.answer(execution_id, answer)
    home.work()

    assert home.context(execution_id).output == f"{type(answer).__name__} {answer}"


def test_true_is_not_the_choice_1() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        return run.ask("How many?", choices=[1, 2])

    execution_id = home.start(home.agent(work))
    home.work()
    home.answer(execution_id, True)
    home.work()

    waiting = home.context(execution_id).waiting
    assert waiting is not None
    assert (waiting.round, waiting.refused) == (2, "round 1, the answer: True is not one of [1, 2]")
