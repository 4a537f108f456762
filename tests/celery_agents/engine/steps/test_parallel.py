"""`run.parallel`: several steps at once, each recorded as it ends; a crash repeats only the unfinished."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from agent_statestore import AgentState, WaitKind
from celery_agents import AsyncRun, MemoryInParallel, NestedStep, Retry, Run, StepInThread, tool
from celery_agents.engine.outcome import Ending
from celery_agents.engine.steps import parallel
from celery_agents.errors import JournalMismatch, MaxStepsExceeded
from tests.celery_agents.driving import Calls, Crash, Engine


def square(number: int) -> int:
    return number * number


def fail(message: str) -> None:
    raise LookupError(message)


# -- what is returned --------------------------------------------------------------------------------------------------


def test_a_mapping_names_the_steps_and_a_list_leaves_them_the_names_of_their_functions(engine: Engine) -> None:
    @tool(registry=engine.registry)
    def look(query: str) -> str:
        return query.upper()

    def work(run: Run, input: None) -> Any:
        named: dict[str, Callable[[], Any]] = {"four": partial(square, 2), "found": partial(look, "ä")}
        listed: list[Callable[[], Any]] = [partial(square, 3), partial(square, 4), partial(look, query="ö")]
        by_name, in_order = run.parallel(named), run.parallel(listed)
        return [by_name, in_order, run.parallel([]), run.parallel({})]

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [{"four": 4, "found": "Ä"}, [9, 16, "Ö"], [], {}]
    steps = engine.context(execution_id).steps
    assert sorted(step.name for step in steps) == ["found", "four", "look", "square", "square#2"]
    assert {step.name: step.action.input for step in steps if step.action.tool} == {
        "found": {"query": "ä"},
        "look": {"query": "ö"},
    }
    assert [step.step_number for step in steps] == [1, 2, 3, 4, 5]


def test_steps_run_at_once_up_to_the_limit(engine: Engine) -> None:
    running, most = 0, 0
    changed = threading.Condition()

    def meet() -> None:
        nonlocal running, most
        with changed:
            running += 1
            most = max(most, running)
            changed.notify_all()
            changed.wait_for(lambda: most == 3, timeout=5)
        time.sleep(0.01)
        with changed:
            running -= 1

    def work(run: Run, input: None) -> None:
        run.parallel([meet] * 9, limit=3)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.ending is Ending.COMPLETED
    assert most == 3


@pytest.mark.parametrize("calls_given", [[], [lambda: 1]])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_limit_that_permits_nothing_is_refused(engine: Engine, calls_given: Any, is_async: bool) -> None:
    def work(run: Run, input: None) -> Any:
        return run.parallel(calls_given, limit=0)

    async def work_async(run: AsyncRun, input: None) -> Any:
        return await run.parallel(calls_given, limit=0)

    outcome = engine.execute(engine.start(engine.agent(work_async if is_async else work)))

    assert outcome is not None
    assert isinstance(outcome.error, ValueError)
    assert "limit" in str(outcome.error)


@pytest.mark.parametrize("is_async", [False, True])
def test_the_first_error_in_their_order_is_raised_when_all_have_ended(
    engine: Engine, calls: Calls, is_async: bool
) -> None:
    late = threading.Event()

    def fail_late() -> None:
        late.wait(5)
        fail("first")

    def fail_early() -> None:
        fail("second")

    def succeed() -> None:
        calls("done")
        late.set()

    wanted = {"a": fail_late, "b": fail_early, "c": succeed}

    def work(run: Run, input: None) -> Any:
        return run.parallel(wanted)

    async def work_async(run: AsyncRun, input: None) -> Any:
        return await run.parallel(wanted)

    execution_id = engine.start(engine.agent(work_async if is_async else work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert isinstance(outcome.error, LookupError)
    assert str(outcome.error) == "first"
    assert calls.made == ["done"]
    assert sorted(step.name for step in engine.context(execution_id).steps) == ["a", "b", "c"]


@pytest.mark.parametrize("is_async", [False, True])
def test_errors_stand_in_their_places_if_asked_for_and_are_the_same_after_a_crash(
    engine: Engine, calls: Calls, is_async: bool
) -> None:
    @tool(registry=engine.registry)
    def look(number: int) -> int:
        return number

    many: Any = "many"
    wanted: list[Callable[[], Any]] = [partial(square, 2), partial(fail, "no"), partial(look, many), lambda: 1]
    seen: list[list[Any]] = []

    def judge(results: list[Any]) -> None:
        seen.append(results)
        if len(seen) == 1:
            raise Crash

    def work(run: Run, input: None) -> None:
        judge(run.parallel(wanted, return_exceptions=True))

    async def work_async(run: AsyncRun, input: None) -> None:
        judge(await run.parallel(wanted, return_exceptions=True))

    execution_id = engine.start(engine.agent(work_async if is_async else work))
    engine.crash(execution_id)
    engine.execute(execution_id)

    first, second = ([f"{type(one).__name__}: {one}" for one in some] for some in seen)
    assert first == second
    assert (first[0], first[1], first[3]) == ("int: 4", "LookupError: no", "int: 1")
    assert "number" in first[2]


# -- crashes -----------------------------------------------------------------------------------------------------------


def test_a_crash_repeats_only_the_unfinished(engine: Engine, calls: Calls) -> None:
    die = True
    others = threading.Barrier(4, timeout=60)

    def look(number: int) -> int:
        calls(number)
        if die:
            others.wait()
            if number == 2:
                time.sleep(0.05)
                raise Crash
        return number

    def work(run: Run, input: None) -> list[int]:
        return run.parallel([partial(look, number) for number in range(4)])

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    die = False
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [0, 1, 2, 3]
    assert sorted(calls.made) == [0, 1, 2, 2, 3]


def test_an_exit_in_one_branch_begins_nothing_more_and_keeps_what_ends_soon(engine: Engine, calls: Calls) -> None:
    exiting = threading.Event()

    def leave() -> None:
        exiting.set()
        raise Crash

    def end_soon() -> str:
        exiting.wait(5)
        time.sleep(0.02)
        calls("soon")
        return "soon"

    def flaky() -> None:
        exiting.wait(5)
        calls("try")
        raise OSError("again, please")

    def work(run: Run, input: None) -> None:
        retrying = run.options(retry=Retry(retries=100, first_delay=timedelta(milliseconds=1)))
        wanted: dict[str, Callable[[], Any]] = {"soon": end_soon, "flaky": flaky, "leave": leave}
        retrying.parallel(wanted | {"last": partial(calls, "last")}, limit=3)

    execution_id = engine.start(engine.agent(work))
    with pytest.raises(Crash):
        engine.execute(execution_id)
    tries = calls.made.count("try")

    assert tries <= 5
    assert "last" not in calls.made
    recorded = {step.name: step.result for step in engine.context(execution_id).steps}
    assert recorded["soon"] is not None
    assert "leave" not in recorded
    assert engine.context(execution_id).owner is None  # the lease is given back


def test_what_does_not_end_soon_after_an_exit_records_nothing_beside_its_successor(
    engine: Engine, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "STOP_SECONDS", 0.05)
    begun, released, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> str:
        calls("slow")
        begun.set()
        if len(calls.made) == 1:
            released.wait(5)
            ended.set()
        return f"slow {len(calls.made)}"

    def leave() -> None:
        begun.wait(5)
        if is_leaving:
            raise Crash

    def work(run: Run, input: None) -> list[Any]:
        return run.parallel([slow, leave])

    is_leaving = True
    execution_id = engine.start(engine.agent(work))
    with pytest.raises(Crash):
        engine.execute(execution_id)
    is_leaving = False
    outcome = engine.execute(execution_id)
    released.set()
    assert ended.wait(5)

    assert outcome is not None
    assert outcome.output == ["slow 2", None]
    assert [step.attempt for step in engine.context(execution_id).steps if step.name == "slow"] == [2]


class Overtime(Exception):
    """Stands for Celery's soft time limit, which is an Exception."""


def test_an_interrupt_that_surfaces_in_a_branch_is_no_result(engine: Engine) -> None:
    engine.interrupts = (Overtime,)

    def overtime() -> None:
        raise Overtime

    def work(run: Run, input: None) -> Any:
        return [str(one) for one in run.parallel([overtime, lambda: 1], return_exceptions=True)]

    execution_id = engine.start(engine.agent(work))
    with pytest.raises(Overtime):
        engine.execute(execution_id)
    assert "overtime" not in [step.name for step in engine.context(execution_id).steps]


# -- retries -----------------------------------------------------------------------------------------------------------


class Flaky:
    """Fails a number of times, each by its key, then works."""

    def __init__(self, calls: Calls, failures: int) -> None:
        self._calls = calls
        self._failures = failures

    def __call__(self, key: str) -> str:
        self._calls(key)
        if self._calls.made.count(key) <= self._failures:
            raise OSError(key)
        return key


def test_branches_are_tried_again_by_themselves(engine: Engine, calls: Calls) -> None:
    flaky = Flaky(calls, 2)

    def work(run: Run, input: None) -> Any:
        patient = run.options(retry=Retry(retries=2, first_delay=timedelta(milliseconds=1)))
        return patient.parallel({key: partial(flaky, key) for key in "abc"} | {"d": partial(square, 2)})

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == {"a": "a", "b": "b", "c": "c", "d": 4}
    tries = {step.name: step.tries for step in engine.context(execution_id).steps}
    assert tries == {"a": 3, "b": 3, "c": 3, "d": 1}


@pytest.mark.parametrize("is_async", [False, True])
def test_branches_that_want_to_wait_long_wait_together_until_the_last_may_go_on(
    engine: Engine, calls: Calls, is_async: bool
) -> None:
    flaky = Flaky(calls, 1)
    delays = {"short": timedelta(hours=1), "long": timedelta(hours=4), "middle": timedelta(hours=2)}
    tools = {
        key: tool(registry=engine.registry, name=key, retries=1, first_delay=delay, max_delay=delay)(
            lambda key: flaky(key)
        )
        for key, delay in delays.items()
    }
    wanted = {key: partial(one, key) for key, one in tools.items()} | {"fine": partial(square, 3)}

    def work(run: Run, input: None) -> Any:
        return run.parallel(wanted)

    async def work_async(run: AsyncRun, input: None) -> Any:
        return await run.parallel(wanted)

    execution_id = engine.start(engine.agent(work_async if is_async else work))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.PAUSED
    context = engine.context(execution_id)
    assert context.state is AgentState.WAITING
    assert context.waiting is not None
    assert context.waiting.kind is WaitKind.TIMER
    assert context.waiting.wake_at is not None
    waits = context.waiting.wake_at - context.waiting.asked_at
    assert timedelta(hours=1, minutes=59) < waits < timedelta(hours=4, minutes=1)
    assert (context.owner, context.lease_expires_at) == (None, None)

    engine.clock.advance(timedelta(hours=4, seconds=1))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == {"short": "short", "long": "long", "middle": "middle", "fine": 9}
    assert sorted(calls.made) == sorted(["short", "long", "middle"] * 2)
    steps = engine.context(execution_id).steps
    assert {step.name: step.tries for step in steps} == {"short": 2, "long": 2, "middle": 2, "fine": 1}
    assert not any(step.in_flight for step in steps)


def test_a_wait_of_branches_ends_with_the_executions_own_time(engine: Engine, calls: Calls) -> None:
    both = threading.Barrier(2, timeout=60)

    def flaky(key: str) -> None:
        calls(key)
        both.wait()
        raise OSError(key)

    def work(run: Run, input: None) -> None:
        run.options(retry=Retry(retries=1, first_delay=timedelta(hours=5), max_delay=timedelta(hours=5))).parallel(
            [partial(flaky, "a"), partial(flaky, "b")]
        )

    execution_id = engine.start(engine.agent(work, deadline=timedelta(hours=1)))
    engine.execute(execution_id)
    context = engine.context(execution_id)
    assert context.waiting is not None
    assert context.waiting.wake_at is not None
    assert context.waiting.wake_at - context.created_at <= timedelta(hours=1)


def test_a_long_wait_waits_for_what_is_in_flight(engine: Engine, calls: Calls) -> None:
    failing = threading.Event()

    def flaky() -> None:
        calls("flaky")
        failing.set()
        if calls.made.count("flaky") == 1:
            raise OSError

    def slow() -> None:
        failing.wait(5)
        time.sleep(0.05)
        calls("slow")

    def work(run: Run, input: None) -> None:
        run.options(retry=Retry(retries=1, first_delay=timedelta(hours=1))).parallel([flaky, slow])

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    recorded = {step.name: step.result is not None for step in engine.context(execution_id).steps}
    assert recorded == {"flaky": False, "slow": True}

    engine.clock.advance(timedelta(hours=1))
    engine.execute(execution_id)
    assert engine.context(execution_id).state is AgentState.COMPLETED
    assert sorted(calls.made) == ["flaky", "flaky", "slow"]


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_crash", ["retry", "ask"])
@pytest.mark.parametrize("is_async", [False, True])
def test_as_many_steps_are_taken_as_there_may_be(engine: Engine, calls: Calls, on_crash: str, is_async: bool) -> None:
    wanted = {f"step {number}": partial(calls, number) for number in range(8)}

    def work(run: Run, input: None) -> list[str]:
        run.step("first", calls, "first")
        results = run.options(on_crash=on_crash).parallel(wanted, return_exceptions=True)
        return [type(one).__name__ for one in results.values()]

    async def work_async(run: AsyncRun, input: None) -> list[str]:
        await run.step("first", calls, "first")
        results = await run.options(on_crash=on_crash).parallel(wanted, return_exceptions=True)
        return [type(one).__name__ for one in results.values()]

    execution_id = engine.start(engine.agent(work_async if is_async else work, max_steps=4))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert sorted(outcome.output) == ["MaxStepsExceeded"] * 5 + ["int"] * 3
    assert len(calls.made) == 4
    assert engine.context(execution_id).step_count == 4


def test_the_last_permitted_steps_count(engine: Engine, calls: Calls) -> None:
    def work(run: Run, input: int) -> list[int]:
        return run.options(on_crash="fail").parallel([partial(calls, number) for number in range(input)])

    agent = engine.agent(work, max_steps=8)
    for _ in range(5):
        allowed = engine.execute(engine.start(agent, 8))
        assert allowed is not None
        assert allowed.output == list(range(8))
    refused = engine.execute(engine.start(agent, 9))
    assert refused is not None
    assert isinstance(refused.error, MaxStepsExceeded)


def test_a_person_may_permit_more_steps_in_the_middle(engine: Engine, calls: Calls) -> None:
    def work(run: Run, input: None) -> list[int]:
        return run.parallel([partial(calls, number) for number in range(5)])

    execution_id = engine.start(engine.agent(work, max_steps=3, on_limit="ask"))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.PAUSED
    waiting = engine.context(execution_id).waiting
    assert waiting is not None
    engine.answer(execution_id, 2, waiting.key)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [0, 1, 2, 3, 4]
    assert sorted(calls.made) == [0, 1, 2, 3, 4]


# -- what cannot be done inside ----------------------------------------------------------------------------------------


def in_a_thread(function: Callable[[], Any]) -> Any:
    raised: list[Exception] = []

    def run() -> None:
        try:
            function()
        except Exception as error:  # noqa: BLE001 - raised again below
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in raised:
        raise error


@pytest.mark.parametrize("through", [lambda function: function(), in_a_thread])
def test_branches_take_no_steps_and_leave_the_memory_alone(engine: Engine, calls: Calls, through: Any) -> None:
    def work(run: Run, input: None) -> list[str]:
        def write() -> None:
            run.memory["x"] = 1

        forbidden: list[Callable[[], Any]] = [
            write,
            lambda: run.say("agent", "hello"),
            lambda: run.remember("a fact"),
            lambda: run.step("inner", calls, 1),
            lambda: run.ask("?"),
            lambda: run.sleep(0),
            lambda: run.parallel([partial(calls, 1)]),
        ]
        results = run.parallel([partial(through, one) for one in forbidden], return_exceptions=True)
        return [type(one).__name__ for one in results]

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    of_a_step = StepInThread if through is in_a_thread else NestedStep
    assert outcome.output == [MemoryInParallel.__name__] * 3 + [of_a_step.__name__] * 4
    assert calls.made == []
    memory = engine.context(execution_id).memory
    assert (memory.working_memory, memory.conversation_history, memory.facts) == ({}, (), ())


def test_the_memory_is_written_again_after_and_read_inside(engine: Engine) -> None:
    def work(run: Run, input: None) -> list[Any]:
        run.memory["before"] = "ü"
        read = run.parallel([lambda: run.memory["before"], lambda: len(run.messages)])
        run.memory["after"] = read
        run.step("inner", lambda: run.memory.update(inside=1))
        return list(read)

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == ["ü", 0]
    assert engine.context(execution_id).memory.working_memory == {"before": "ü", "after": ["ü", 0], "inside": 1}


def test_code_that_asks_for_other_calls_than_are_recorded_fails_clearly(engine: Engine) -> None:
    deployed = 1

    def work(run: Run, input: None) -> None:
        names = ["a", "b", "c"] if deployed == 1 else ["a", "c"]
        run.parallel({name: partial(square, 2) for name in names})
        if deployed == 1:
            raise Crash

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    deployed = 2
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert isinstance(outcome.error, JournalMismatch)
    assert outcome.error.key == "b"
