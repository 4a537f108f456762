"""`LocalAgents.replace` and `crash_at`: what never comes about is an error, so that a misspelt name is."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from celery_agents import Registry, Run, agent, tool
from celery_agents.testing import LocalAgents, PlanNotReached, When


@tool
def pay(amount: int) -> str:
    return f"paid {amount}"


@tool
def refund(amount: int) -> str:
    return f"refunded {amount}"


@agent(registry=Registry())
def shop(run: Run, asks: bool) -> str:
    run.step("search", lambda: "found")
    if asks:
        run.ask("go on?")
    return run.step("payment", pay, 30)


def does(value: Any) -> Callable[..., Any]:
    return lambda *_: value


@pytest.fixture
def agents() -> LocalAgents:
    return LocalAgents()


PLANS = {
    "a step that is misspelt": (lambda agents: agents.replace("serach", does(1)), ["'serach'", "'search', 'payment'"]),
    "a tool that is not called": (
        lambda agents: agents.replace(refund, does("x")),
        ["'refund'", "tools that were: 'pay'"],
    ),
    "a tool by its name": (lambda agents: agents.replace("pay", does("x")), ["'pay'", "the tool itself"]),
    "a crash at no step": (
        lambda agents: agents.crash_at("payment#2", When.BEFORE_CHECKPOINT),
        ["crash_at('payment#2', 'before_checkpoint')", "keys that were: 'search', 'payment'"],
    ),
}
every_plan = pytest.mark.parametrize(("plan", "said"), PLANS.values(), ids=PLANS)


@every_plan
@pytest.mark.parametrize("go_on", ["run", "wait", "advance", "iterate"])
def test_a_plan_that_never_comes_about_is_an_error_when_all_is_over(
    agents: LocalAgents, plan: Callable[[LocalAgents], Any], said: list[str], go_on: str
) -> None:
    plan(agents)
    execution = agents.start(shop, False)
    goes_on: dict[str, Callable[[], Any]] = {
        "run": execution.run,
        "wait": execution.wait,
        "advance": lambda: agents.advance(timedelta(days=1)),
        "iterate": lambda: list(execution),
    }
    with pytest.raises(PlanNotReached) as error:
        goes_on[go_on]()
    for part in said:
        assert part in str(error.value)


@every_plan
def test_a_plan_may_come_about_as_long_as_somebody_waits(
    agents: LocalAgents, plan: Callable[[LocalAgents], Any], said: list[str]
) -> None:
    plan(agents)
    execution = agents.start(shop, True).run()
    agents.advance(timedelta(weeks=1))
    execution.resume("yes")
    with pytest.raises(PlanNotReached):
        execution.run()


@every_plan
def test_the_end_of_the_block_does_not_wait_for_who_still_waits(
    plan: Callable[[LocalAgents], Any], said: list[str]
) -> None:
    agents = LocalAgents().__enter__()
    plan(agents)
    agents.start(shop, True).run()
    with pytest.raises(PlanNotReached):
        agents.__exit__(None, None, None)


def test_an_error_inside_the_block_is_the_one_that_is_seen() -> None:
    def failing() -> None:
        with LocalAgents() as agents:
            agents.replace("serach", does(1))
            raise LookupError

    with pytest.raises(LookupError):
        failing()


def test_what_comes_about_is_no_error() -> None:
    with LocalAgents() as agents:
        agents.replace("search", does("else"))
        agents.replace(pay, does("nothing"))
        crash = agents.crash_at("search", When.AFTER_CHECKPOINT, times=5)
        execution = agents.start(shop, False).run()
        assert crash.happened == 1
        assert execution.wait() == "nothing"
        assert agents.start(shop, False).run().wait() == "nothing"


def test_a_plan_for_what_is_started_next_is_no_error_before_that(agents: LocalAgents) -> None:
    first = agents.start(shop, False).run()
    agents.replace(pay, does("nothing"))
    crash = agents.crash_at("payment", When.BEFORE_INTENT)
    assert first.wait() == "paid 30"
    agents.advance(timedelta(days=1))
    second = agents.start(shop, False).run()
    assert crash.happened
    assert second.wait() == "nothing"


def test_a_plan_that_is_not_required_may_come_to_nothing() -> None:
    with LocalAgents() as agents:
        agents.replace("serach", does(1), required=False)
        agents.replace(refund, does("x"), required=False)
        agents.crash_at("nowhere", When.BEFORE_INTENT, required=False)
        assert agents.start(shop, False).wait() == "paid 30"


def test_of_a_crash_in_one_execution_the_others_do_not_count(agents: LocalAgents) -> None:
    first, second = agents.start(shop, False), agents.start(shop, True)
    agents.crash_at("ask", When.AFTER_INTENT, execution=first)
    agents.run()
    second.resume("yes")
    with pytest.raises(PlanNotReached, match=r"keys that were: 'search', 'payment'$"):
        agents.run()


def test_of_a_step_that_was_come_to_the_message_names_the_moments(agents: LocalAgents) -> None:
    @agent(registry=Registry())
    def fails(run: Run, input: None) -> None:
        run.sleep(timedelta(hours=1), name="nap")

    agents.crash_at("nap", When.BEFORE_CHECKPOINT, execution=agents.start(shop, False), required=False)
    agents.crash_at("nap", When.AFTER_CHECKPOINT, times=1)
    execution = agents.start(fails)
    agents.run()
    execution.cancel()
    with pytest.raises(PlanNotReached, match="not that moment of it; those that were: after_intent, before_intent"):
        agents.run()


def test_a_step_whose_function_cannot_be_replaced_is_told_from_one_that_is_not_there(agents: LocalAgents) -> None:
    agents.replace("ask", does("yes"))
    execution = agents.start(shop, True).run()
    execution.resume("no")
    with pytest.raises(PlanNotReached, match="calls no function that can be replaced"):
        execution.run()


def test_of_very_many_steps_some_are_named(agents: LocalAgents) -> None:
    @agent(registry=Registry())
    def counts(run: Run, n: int) -> None:
        for number in range(n):
            run.step(f"step {number}", lambda: 1)

    agents.replace("stop 7", does(1))
    with pytest.raises(PlanNotReached, match=r"'step 29' and 20 more$"):
        agents.start(counts, 50).run()


@pytest.mark.parametrize("wrong", [shop, does, None, 7])
def test_what_is_neither_a_name_nor_a_tool_cannot_be_replaced(agents: LocalAgents, wrong: Any) -> None:
    with pytest.raises(TypeError, match="name of a step, or a tool"):
        agents.replace(wrong, does(1))
    with pytest.raises(TypeError, match="key of a step"):
        agents.crash_at(wrong, When.BEFORE_INTENT)


def test_a_tool_is_no_key_of_a_step(agents: LocalAgents) -> None:
    with pytest.raises(TypeError, match="key of a step"):
        agents.crash_at(pay, When.BEFORE_INTENT)  # type: ignore[arg-type]
