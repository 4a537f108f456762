"""`run.wait_for`: events from outside, kept until they are waited for, each counted once."""

import asyncio
from datetime import timedelta
from typing import Any

import pydantic
import pytest

from agent_statestore import AgentState, InvalidRecord, Signal, SignalKind, WaitKind
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from agent_statestore.errors import ExecutionOver, ValueTooLarge
from celery_agents import AsyncRun, Run
from celery_agents.engine.outcome import Ending
from celery_agents.errors import EventTimeout
from tests.celery_agents.driving import Calls, Engine
from tests.celery_agents.household import Household, dying_at_each_write

HOUR = timedelta(hours=1)


class Payment(pydantic.BaseModel):
    amount: int
    currency: str = "EUR"


def waiter(run: Run, input: int) -> list[Any]:
    return [run.wait_for("paid") for _ in range(input)]


def test_an_event_ends_the_pause_that_waits_for_it() -> None:
    home = Household()
    execution_id = home.start(home.agent(waiter), 1)
    home.work()

    paused = home.context(execution_id)
    assert paused.waiting is not None
    assert (paused.state, paused.waiting.kind, paused.waiting.key) == (AgentState.WAITING, WaitKind.EVENT, "paid")
    assert (paused.owner, paused.due_at) == (None, None)
    home.event(execution_id, "paid", {"amount": 3})
    home.work()

    assert home.context(execution_id).output == [{"amount": 3}]
    assert home.context(execution_id).signals == ()


def test_an_event_of_another_name_wakes_nobody_and_is_kept() -> None:
    home = Household()

    def work(run: Run, input: None) -> list[Any]:
        return [run.wait_for("paid"), run.wait_for("shipped", timeout=timedelta(0), default="never")]

    execution_id = home.start(home.agent(work))
    home.work()
    home.event(execution_id, "shipped", "early")
    assert home.execute(execution_id) is None
    home.event(execution_id, "paid", "now")
    home.work()

    assert home.context(execution_id).output == ["now", "early"]


def test_events_that_came_before_anybody_waited_count_once_each_the_oldest_first() -> None:
    home = Household()
    execution_id = home.start(home.agent(waiter), 4)
    for number in range(3):
        home.event(execution_id, "paid", number)
    home.work()
    assert [step.name for step in home.context(execution_id).steps] == ["event paid", "event paid#2", "event paid#3"]
    home.event(execution_id, "paid", 3)
    home.work()

    assert home.context(execution_id).output == [0, 1, 2, 3]


def test_an_event_sent_twice_under_one_id_counts_once() -> None:
    home = Household()
    execution_id = home.start(home.agent(waiter), 2)
    home.work()
    for _ in range(3):
        once = Signal(signal_id="order 7", kind=SignalKind.EVENT, key="paid", payload=7)
        home.store.send(execution_id, once)
    home.work()

    assert home.context(execution_id).state is AgentState.WAITING
    assert len(home.context(execution_id).steps) == 1


def test_an_event_after_the_end_is_refused() -> None:
    home = Household()
    execution_id = home.start(home.agent(waiter), 0)
    home.work()

    with pytest.raises(ExecutionOver):
        home.event(execution_id, "paid")


def test_an_event_during_the_work_is_found_when_the_execution_pauses() -> None:
    home, ids = Household(), []

    def work(run: Run, input: None) -> Any:
        run.step("work", lambda: home.event(ids[0], "paid", "meanwhile"))
        return run.wait_for("paid")

    ids.append(home.start(home.agent(work)))
    outcome = home.execute(ids[0])

    assert outcome is not None
    assert (outcome.ending, outcome.ring) == (Ending.PAUSED, True)
    home.work()
    assert home.context(ids[0]).output == "meanwhile"


def test_an_execution_that_dies_at_any_write_counts_each_event_once() -> None:
    def scenario(home: Household) -> str:
        def work(run: Run, input: None) -> list[Any]:
            got = [run.wait_for("paid"), run.wait_for("paid", timeout=HOUR, default="late")]
            return [*got, run.wait_for("paid", timeout=HOUR, default="late"), run.step("end", lambda: "end")]

        execution_id = home.start(home.agent(work))
        home.work(within=timedelta(minutes=5))
        home.event(execution_id, "paid", 1)
        home.event(execution_id, "paid", 2)
        home.work(within=3 * HOUR)
        return execution_id

    for home, execution_id in dying_at_each_write(scenario):
        assert home.context(execution_id).output == [1, 2, "late", "end"], home.store.writes
        assert home.context(execution_id).signals == ()


# -- what it carries ---------------------------------------------------------------------------------------------------


def test_what_an_event_carries_is_typed(engine: Engine) -> None:
    home, seen = Household(), []

    def work(run: Run, input: None) -> None:
        seen.append(run.wait_for("paid", schema=Payment))
        run.wait_for("more")

    execution_id = home.start(home.agent(work))
    home.event(execution_id, "paid", {"amount": 3})
    home.work()
    home.event(execution_id, "more")
    home.work()

    assert seen == [Payment(amount=3, currency="EUR")] * 2


def test_an_event_that_fails_its_schema_is_passed_over_and_the_reason_is_recorded() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        return run.wait_for("paid", schema=Payment, timeout=HOUR).amount

    execution_id = home.start(home.agent(work))
    home.event(execution_id, "paid", {"amount": "a lot"})
    signal = Signal(signal_id="ann's", kind=SignalKind.EVENT, key="paid", payload={"amount": "more"}, sender="ann")
    home.store.send(execution_id, signal)
    home.work()

    context = home.context(execution_id)
    reason = "an event of ann: amount: Input should be a valid integer"
    (waiting,) = context.waits
    assert (waiting.kind, waiting.key, waiting.round) == (WaitKind.EVENT, "paid", 1)
    assert waiting.wake_at == waiting.asked_at + HOUR
    assert (waiting.refused or "").startswith(reason)
    (intent,) = context.steps
    assert (intent.result, intent.refused) == (None, waiting.refused)
    *_, moved = home.store.get_audit(execution_id)
    assert moved.reason == waiting.refused
    assert context.signals == ()

    home.event(execution_id, "paid", {"amount": 4})
    home.work()
    context = home.context(execution_id)
    assert context.output == 4
    (step,) = context.steps
    assert step.refused == waiting.refused


def test_what_is_passed_over_stops_no_timeout() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        return run.wait_for("paid", schema=Payment, timeout=HOUR, default="nobody paid")

    execution_id = home.start(home.agent(work))
    home.work()
    (first,) = home.context(execution_id).waits
    home.clock.advance(HOUR / 2)
    home.event(execution_id, "paid", "nonsense")
    home.work()
    (second,) = home.context(execution_id).waits
    assert second.refused is not None
    assert second.wake_at == first.wake_at
    home.work(within=HOUR)
    assert home.context(execution_id).output == "nobody paid"


def test_what_does_not_fit_is_passed_over_once_whenever_the_process_dies() -> None:
    def scenario(home: Household) -> str:
        def work(run: Run, input: None) -> Any:
            return run.wait_for("paid", schema=Payment).amount

        execution_id = home.start(home.agent(work))
        for payload in ("nonsense", {"amount": 1}, {"amount": 2}):
            home.event(execution_id, "paid", payload)
        home.work(within=HOUR)
        return execution_id

    for home, execution_id in dying_at_each_write(scenario):
        context = home.context(execution_id)
        assert context.output == 1, home.store.writes
        (step,) = context.steps
        assert (step.refused or "").startswith("an event: value: "), home.store.writes
        assert [signal.payload for signal in context.signals] == [{"amount": 2}]


def test_an_event_too_large_for_a_step_is_a_recorded_failure_and_the_next_counts() -> None:
    home, name = Household(), "paid " * 38

    def work(run: Run, input: None) -> Any:
        try:
            run.wait_for(name)
        except ValueTooLarge:
            run.say("user", "too much")
        return run.wait_for(name)

    execution_id = home.start(home.agent(work))
    home.work()
    _send_the_largest(home, execution_id, name)
    home.work()
    assert [step.result.success for step in home.context(execution_id).steps if step.result] == [False]
    home.event(execution_id, name, "enough")
    home.work()

    assert home.context(execution_id).output == "enough"
    (said,) = home.context(execution_id).memory.conversation_history
    assert said.content == "too much"


def _send_the_largest(home: Household, execution_id: str, name: str) -> None:
    for room in range(1_000):
        try:
            return home.event(execution_id, name, "x" * (DEFAULT_MAX_VALUE_BYTES - room))
        except ValueTooLarge:
            continue
    raise AssertionError("no event is small enough")


@pytest.mark.parametrize("value", ["Grüße, 世界 \U0001f600", "", None, 0, [], {"": None}, {"ü": ["\x00"]}])
def test_an_event_carries_any_json(value: Any) -> None:
    home = Household()
    execution_id = home.start(home.agent(waiter), 1)
    home.event(execution_id, "paid", value)
    home.work()

    assert home.context(execution_id).output == [value]


# -- time --------------------------------------------------------------------------------------------------------------


def test_two_waits_for_one_event_in_a_row_have_each_their_own_time() -> None:
    home = Household()

    def work(run: Run, input: None) -> list[Any]:
        first = run.wait_for("paid", timeout=HOUR, default="first missed")
        second = run.wait_for("paid", timeout=HOUR, default="second missed")
        return [first, second]

    execution_id = home.start(home.agent(work))
    home.work(within=HOUR + timedelta(minutes=1))
    second = home.context(execution_id).waiting
    assert second is not None
    assert second.wake_at is not None
    assert timedelta(minutes=50) < second.wake_at - home.now() < HOUR
    home.clock.advance(timedelta(minutes=30))
    home.event(execution_id, "paid", "in time")
    home.work()

    assert home.context(execution_id).output == ["first missed", "in time"]


def test_an_event_in_time_counts_even_if_it_is_read_late() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        return run.wait_for("paid", timeout=HOUR, default="missed")

    execution_id = home.start(home.agent(work))
    home.work()
    home.event(execution_id, "paid", "in time")
    home.clock.advance(5 * HOUR)
    home.work()

    assert home.context(execution_id).output == "in time"


def test_an_event_that_comes_after_its_time_is_for_the_next_wait() -> None:
    home = Household()

    def work(run: Run, input: None) -> list[Any]:
        missed = run.wait_for("paid", timeout=HOUR, default="missed")
        run.sleep(HOUR)
        return [missed, run.wait_for("paid")]

    execution_id = home.start(home.agent(work))
    home.work(within=HOUR + timedelta(minutes=1))
    home.event(execution_id, "paid", "late")
    home.work(within=2 * HOUR)

    assert home.context(execution_id).output == ["missed", "late"]


def test_without_a_default_a_timeout_is_raised_on_every_attempt(calls: Calls) -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        try:
            run.wait_for("paid", timeout=HOUR)
        except EventTimeout as error:
            calls(str(error))
        run.sleep(HOUR)
        return "gave up"

    execution_id = home.start(home.agent(work))
    home.work(within=3 * HOUR)

    assert home.context(execution_id).output == "gave up"
    assert calls.made == ["event 'paid' did not come in time"] * 2


def test_a_default_need_not_be_json_nor_fit_the_schema() -> None:
    home, seen, nothing = Household(), [], object()

    def work(run: Run, input: None) -> None:
        seen.append(run.wait_for("paid", schema=Payment, timeout=timedelta(0), default=nothing))
        run.sleep(HOUR)

    home.start(home.agent(work))
    home.work(within=2 * HOUR)

    assert seen == [nothing, nothing]


def test_a_poll_that_never_waits_ends_at_the_limit_of_steps(engine: Engine) -> None:
    def work(run: Run, input: None) -> None:
        while run.wait_for("go", timeout=timedelta(0), default=None) is None:
            pass

    execution_id = engine.start(engine.agent(work, max_steps=15))
    engine.execute(execution_id)

    context = engine.context(execution_id)
    assert context.error is not None
    assert "MaxStepsExceeded" in context.error.type
    assert len(context.steps) == 15


@pytest.mark.parametrize("timeout", [timedelta(days=200_000), timedelta.max, 5, "soon"])
@pytest.mark.parametrize("asks", [False, True])
def test_a_timeout_that_is_none_is_refused_where_it_is_given(calls: Calls, timeout: Any, asks: bool) -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        with pytest.raises(InvalidRecord, match="timeout"):
            run.ask("?", timeout=timeout) if asks else run.wait_for("paid", timeout=timeout)
        return run.step("after", calls, "goes on")

    execution_id = home.start(home.agent(work))
    home.work()

    assert home.context(execution_id).output == "goes on"


def test_code_that_waits_for_another_event_contradicts_its_journal() -> None:
    home = Household()

    def work(run: Run, input: None) -> None:
        run.wait_for("paid" if run.attempt == 1 else "shipped")
        run.wait_for("more")

    execution_id = home.start(home.agent(work))
    home.event(execution_id, "paid")
    home.work()
    home.event(execution_id, "shipped")
    home.event(execution_id, "more")
    home.work()

    error = home.context(execution_id).error
    assert error is not None
    assert "JournalMismatch" in error.type


# -- async -------------------------------------------------------------------------------------------------------------


def test_an_async_agent_waits_as_durably() -> None:
    home = Household()

    async def work(run: AsyncRun, input: None) -> list[Any]:
        paid = await run.wait_for("paid", schema=int)
        late = await run.wait_for("shipped", timeout=HOUR, default="never")
        return [paid, late]

    execution_id = home.start(home.agent(work))
    home.work()
    home.event(execution_id, "paid", 5)
    home.work(within=2 * HOUR)

    assert home.context(execution_id).output == [5, "never"]


def test_an_async_agent_that_waits_for_several_events_at_once_gets_them_all() -> None:
    home = Household()

    async def work(run: AsyncRun, input: None) -> list[Any]:
        return list(await asyncio.gather(run.wait_for("b"), run.wait_for("a"), run.sleep(HOUR)))

    execution_id = home.start(home.agent(work))
    home.work()
    home.event(execution_id, "a", 1)
    home.event(execution_id, "b", 2)
    home.work(within=3 * HOUR)

    assert home.context(execution_id).output == [2, 1, None]
