"""A call whose fate is not known: what a person may answer, and what a reconcile function may find."""

import asyncio
import threading
from datetime import timedelta
from functools import partial
from typing import Any

import jsonschema
import pydantic
import pytest
from pydantic_core import core_schema

from agent_statestore import AgentState, SignalKind
from celery_agents import (
    CrashPolicy,
    Happened,
    RegistrationError,
    Retry,
    Run,
    StepInterrupted,
    Tool,
    ToolContext,
    tool,
)
from celery_agents.errors import InvalidResult
from tests.celery_agents.driving import Calls, Crash, Engine

# -- what a person answers ---------------------------------------------------------------------------------------------


class Receipt(pydantic.BaseModel):
    number: int
    note: str = ""


def interrupted(engine: Engine, calls: Calls, on_crash: Any = "ask", **options: Any) -> tuple[str, Tool[..., Receipt]]:
    """An execution whose call of `order` has been interrupted, after its effect."""

    @tool(registry=engine.registry, on_crash=on_crash, **options)
    def order(book: str) -> Receipt:
        calls(book)
        if len(calls.made) == 1:
            raise Crash
        return Receipt(number=len(calls.made))

    def work(run: Run, input: None) -> Receipt:
        return run.tool(order, "Ü")

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    return execution_id, order


def answered(engine: Engine, execution_id: str, answer: Any) -> Any:
    engine.execute(execution_id)
    engine.answer(execution_id, answer, "order interrupted 1")
    return engine.execute(execution_id)


def test_an_output_that_a_person_gives_is_typed(engine: Engine, calls: Calls) -> None:
    execution_id, _ = interrupted(engine, calls)
    outcome = answered(engine, execution_id, {"output": {"number": 12}})

    assert outcome.output == {"number": 12, "note": ""}
    assert calls.made == ["Ü"]


def test_a_person_may_let_it_fail(engine: Engine, calls: Calls) -> None:
    execution_id, _ = interrupted(engine, calls)
    outcome = answered(engine, execution_id, "fail")

    assert isinstance(outcome.error, StepInterrupted)
    assert calls.made == ["Ü"]


@pytest.mark.parametrize(
    "answer", ["perhaps", None, 7, {"output": {"number": "many"}}, {"output": {"number": 1}, "more": 1}, ["retry"]]
)
def test_a_nonsensical_answer_is_asked_for_anew_and_repeats_nothing(engine: Engine, calls: Calls, answer: Any) -> None:
    execution_id, _ = interrupted(engine, calls)
    answered(engine, execution_id, answer)

    waiting = engine.context(execution_id).waiting
    assert waiting is not None
    assert (waiting.key, waiting.round) == ("order interrupted 1", 2)
    engine.send(execution_id, SignalKind.ANSWER, waiting.key, "fail", round=2)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert isinstance(outcome.error, StepInterrupted)
    assert calls.made == ["Ü"]


def test_the_question_carries_a_schema_that_says_which_answers_there_are(engine: Engine, calls: Calls) -> None:
    execution_id, _ = interrupted(engine, calls)
    engine.execute(execution_id)
    waiting = engine.context(execution_id).waiting
    assert waiting is not None
    assert waiting.schema is not None
    validator = jsonschema.Draft202012Validator(dict(waiting.schema))

    right: list[Any] = ["retry", "fail", {"output": {"number": 1}}]
    wrong: list[Any] = ["perhaps", {"output": {"number": "x"}}, {"output": {"number": 1}, "more": 1}, {}, None]
    assert [validator.is_valid(answer) for answer in right] == [True] * 3
    assert [validator.is_valid(answer) for answer in wrong] == [False] * 5


def test_a_result_without_a_json_schema_can_be_asked_about(engine: Engine, calls: Calls) -> None:
    class Opaque:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return core_schema.no_info_plain_validator_function(
                lambda _: cls(), serialization=core_schema.plain_serializer_function_ser_schema(lambda _: "opaque")
            )

    def make() -> Opaque:
        calls("make")
        raise Crash

    def work(run: Run, input: None) -> str:
        return type(run.options(on_crash="ask").step("make", make)).__name__

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.execute(execution_id)
    engine.answer(execution_id, {"output": "whatever"}, "make interrupted 1")
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "Opaque"


def test_two_interruptions_are_two_questions(engine: Engine, calls: Calls) -> None:
    @tool(registry=engine.registry, on_crash=CrashPolicy.ASK)
    def pay(amount: int) -> int:
        calls(amount)
        if len(calls.made) < 3:
            raise Crash
        return amount

    def work(run: Run, input: None) -> int:
        return run.tool(pay, 7)

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.execute(execution_id)
    engine.answer(execution_id, "retry", "pay interrupted 1")
    engine.crash(execution_id)
    engine.execute(execution_id)
    waiting = engine.context(execution_id).waiting
    assert waiting is not None
    assert waiting.key == "pay interrupted 2"
    engine.answer(execution_id, "retry", "pay interrupted 2")
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == 7
    assert calls.made == [7, 7, 7]
    assert engine.context(execution_id).steps[0].tries == 3


def test_two_calls_interrupted_at_once_are_asked_about_at_once(engine: Engine, calls: Calls) -> None:
    together = threading.Barrier(2, timeout=60)

    @tool(registry=engine.registry, on_crash="ask")
    def pay(amount: int) -> int:
        calls(amount)
        if len(calls.made) <= 2:
            together.wait()
            raise Crash
        return amount

    def work(run: Run, input: None) -> dict[str, int]:
        return run.parallel({"left": partial(pay, 1), "right": partial(pay, 2)})

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.execute(execution_id)
    asked = [wait.key for wait in engine.context(execution_id).waits]
    for answer, key in zip(({"output": 99}, "retry"), sorted(asked, reverse=True), strict=True):
        engine.answer(execution_id, answer, key)
        outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == {"left": 1, "right": 99}
    assert sorted(asked) == ["left interrupted 1", "right interrupted 1"]
    assert len(calls.made) == 3


def test_a_crash_right_after_the_answer_asks_nothing_again(engine: Engine, calls: Calls) -> None:
    execution_id, _ = interrupted(engine, calls)
    engine.execute(execution_id)
    engine.answer(execution_id, "retry", "order interrupted 1")
    checkpoint = engine.store.checkpoint

    def die(*args: Any, **kwargs: Any) -> Any:
        engine.store.checkpoint = checkpoint  # type: ignore[method-assign]
        raise Crash

    engine.store.checkpoint = die  # type: ignore[method-assign]
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == {"number": 2, "note": ""}


def test_a_failure_that_was_seen_is_no_interruption(engine: Engine, calls: Calls) -> None:
    """The process dies while the execution waits, on a durable timer, to try again."""

    @tool(registry=engine.registry, on_crash="fail", retries=1, first_delay=timedelta(hours=1))
    def pay(amount: int) -> int:
        calls(amount)
        if len(calls.made) == 1:
            raise OSError("down")
        return amount

    def work(run: Run, input: None) -> int:
        return run.tool(pay, 7)

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    assert engine.context(execution_id).state is AgentState.WAITING
    engine.clock.advance(timedelta(hours=1))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == 7


# -- reconcile ---------------------------------------------------------------------------------------------------------


def test_reconcile_may_take_the_context_of_the_call(engine: Engine, calls: Calls) -> None:
    seen: list[ToolContext] = []

    def find(context: ToolContext, book: str) -> Happened:
        seen.append(context)
        return Happened(Receipt(number=3, note=book))

    execution_id, _ = interrupted(engine, calls, find)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == {"number": 3, "note": "Ü"}
    (context,) = seen
    assert (context.idempotency_key, context.tries) == (f"{execution_id}/order", 1)
    (step,) = engine.context(execution_id).steps
    assert (step.tries, step.in_flight) == (1, False)


def test_reconcile_may_be_async(engine: Engine, calls: Calls) -> None:
    async def find(book: str) -> Happened:
        await asyncio.sleep(0)
        return Happened(Receipt(number=4))

    execution_id, _ = interrupted(engine, calls, find)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == {"number": 4, "note": ""}


@pytest.mark.parametrize("found", [True, "yes", Happened("no receipt"), Happened(object())])
def test_reconcile_that_returns_nonsense_makes_a_person_look(engine: Engine, calls: Calls, found: Any) -> None:
    execution_id, _ = interrupted(engine, calls, lambda book: found if book else None)
    outcome = answered(engine, execution_id, {"output": {"number": 5}})

    assert outcome.output == {"number": 5, "note": ""}
    assert calls.made == ["Ü"]


def test_reconcile_that_raises_makes_a_person_look(engine: Engine, calls: Calls) -> None:
    def find(book: str) -> Happened:
        raise ConnectionError("the bank is closed")

    execution_id, _ = interrupted(engine, calls, find)
    outcome = answered(engine, execution_id, "retry")

    assert outcome.output == {"number": 2, "note": ""}
    assert calls.made == ["Ü", "Ü"]


def test_reconcile_that_finds_too_much_to_record_fails_the_step(engine: Engine, calls: Calls) -> None:
    engine.store.max_value_bytes = 2000
    execution_id, _ = interrupted(engine, calls, lambda book: Happened(Receipt(number=1, note=book * 3000)))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert "2000" in str(outcome.error)
    (step,) = engine.context(execution_id).steps
    assert step.result is not None


def test_options_bring_a_policy_for_plain_steps_and_replace_a_tools_own(engine: Engine, calls: Calls) -> None:
    @tool(registry=engine.registry, on_crash="ask")
    def pay(context: ToolContext, amount: int) -> int:
        calls(amount)
        raise Crash

    def find(amount: int, context: ToolContext) -> Happened:
        return Happened(amount * 10 + context.tries)

    def send(text: str) -> str:
        calls(text)
        raise Crash

    def work(run: Run, input: None) -> list[Any]:
        paid = run.options(on_crash=find).tool(pay, 7)
        sent = run.options(on_crash=lambda text: Happened(f"{text} was sent")).step("send", send, "it")
        try:
            return [paid, sent, run.options(on_crash="fail").step("send", send, "more")]
        except StepInterrupted:
            return [paid, sent]

    execution_id = engine.start(engine.agent(work))
    for _ in range(3):
        engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [71, "it was sent"]
    assert calls.made == [7, "it", "more"]


def test_a_policy_that_is_none_is_refused(engine: Engine) -> None:
    def work(run: Run, input: None) -> None:
        run.options(on_crash="shrug").step("x", lambda: 1)

    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    assert isinstance(outcome.error, RegistrationError)

    with pytest.raises(RegistrationError, match="needs the function"):
        tool(registry=engine.registry, on_crash="reconcile")(lambda: None)


def test_an_interrupted_retry_policy_is_left_to_the_code_of_today(engine: Engine, calls: Calls) -> None:
    """The policy was "ask" when the call was begun. Who deploys "retry" says that it may be repeated."""
    execution_id, order = interrupted(engine, calls)
    order.crash_policy = CrashPolicy.RETRY
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == {"number": 2, "note": ""}


def test_a_result_that_cannot_be_recorded_is_a_failure_and_no_interruption(engine: Engine, calls: Calls) -> None:
    @tool(registry=engine.registry, on_crash="ask", retries=3)
    def pay(amount: int) -> Any:
        calls(amount)
        return object()

    def work(run: Run, input: None) -> None:
        run.options(retry=Retry(retries=3)).tool(pay, 7)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, InvalidResult)
    assert calls.made == [7]
