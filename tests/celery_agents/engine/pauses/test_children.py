"""`run.spawn` and `run.gather`: executions that an execution starts, and what passes between the two."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, InvalidRecord, SignalKind
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from agent_statestore.errors import ValueTooLarge
from celery_agents import AsyncRun, Run
from celery_agents.engine.executor import Defaults
from celery_agents.errors import ChildFailed, InvalidInput, SpawnTooDeep, UnknownAgent
from tests.celery_agents.driving import LEASE, Crash
from tests.celery_agents.household import Household, dying_at_each_write

HOUR = timedelta(hours=1)


def double(run: Run, input: int) -> int:
    if input < 0:
        raise ValueError(f"{input} is negative")
    return run.step("double", lambda: 2 * input)


def parent_of(numbers: int, **options: Any) -> Any:
    def parent(run: Run, input: None) -> list[Any]:
        return run.gather(*[run.spawn("double", number, **options) for number in range(numbers)])

    return parent


def family(home: Household, parent: Any, *children: Any) -> str:
    for child in children or (double,):
        home.agent(child)
    return home.start(home.agent(parent))


# -- starting and joining ----------------------------------------------------------------------------------------------


def test_children_run_beside_each_other_and_their_outputs_come_in_the_order_asked_for() -> None:
    home = Household()

    def slow_first(run: Run, input: int) -> int:
        run.sleep(HOUR * (3 - input))
        return input

    def parent(run: Run, input: None) -> list[Any]:
        return run.gather(*[run.spawn("slow_first", number) for number in range(3)])

    execution_id = family(home, parent, slow_first)
    home.work(within=3 * HOUR + timedelta(minutes=1))

    assert home.context(execution_id).output == [0, 1, 2]
    steps = sorted(step.name for step in home.context(execution_id).steps)
    assert steps == ["join spawn", "join spawn 2", "join spawn 3", "spawn", "spawn#2", "spawn#3"]


def test_a_parent_that_waits_holds_nothing() -> None:
    home = Household()

    def asks(run: Run, input: None) -> Any:
        return run.ask("?")

    def parent(run: Run, input: None) -> list[Any]:
        return run.gather(run.spawn("asks"))

    execution_id = family(home, parent, asks)
    home.work()

    context = home.context(execution_id)
    assert (context.state, context.owner) == (AgentState.WAITING, None)
    (child,) = home.all(home.registry.agent("asks"))
    home.answer(child.execution_id, "yes")
    home.work()
    assert home.context(execution_id).output == ["yes"]


def test_a_child_belongs_to_its_parents_session_and_user_unless_it_is_told_otherwise() -> None:
    home = Household()

    def parent(run: Run, input: None) -> None:
        run.spawn("double", 1, queue="slow", priority=3, metadata={"team": "ü"})
        run.spawn("double", 1, session_id="own", user_id="grace", name="other")

    home.agent(double)
    execution_id = home.start(home.agent(parent), session_id="s", user_id="ada")
    home.work()

    first, other = home.all(home.registry.agent("double"))
    assert (first.session_id, first.user_id, first.queue, first.priority) == ("s", "ada", "slow", 3)
    assert (other.session_id, other.user_id, other.queue, other.metadata) == ("own", "grace", None, {})
    assert first.metadata == {"team": "ü"}
    assert first.parent_execution_id == other.parent_execution_id == execution_id


def test_a_child_is_rung_at_once_and_one_with_a_start_time_is_not() -> None:
    home = Household()

    def parent(run: Run, input: None) -> list[Any]:
        later = run.spawn("double", 2, start_at=run_at)
        return run.gather(run.spawn("double", 1), later)

    run_at = home.now() + HOUR
    execution_id = family(home, parent)
    home.execute(execution_id)
    later, now = home.all(home.registry.agent("double"))
    assert home.rung == [now.execution_id]
    home.work(within=2 * HOUR)

    assert home.context(execution_id).output == [2, 4]
    ended = home.summary(later.execution_id).ended_at
    assert ended is not None
    assert ended >= run_at


def test_a_child_joined_twice_gives_its_output_twice() -> None:
    home = Household()

    def parent(run: Run, input: None) -> list[Any]:
        child, other = run.spawn("double", 1), run.spawn("double", 2)
        return [run.gather(child, child, other), run.gather(other, child)]

    execution_id = family(home, parent)
    home.work()

    assert home.context(execution_id).output == [[2, 2, 4], [4, 2]]


def test_to_gather_nobody_is_not_to_wait() -> None:
    home = Household()
    execution_id = family(home, parent_of(0))
    home.work()

    assert home.context(execution_id).output == []


def test_a_child_that_nobody_joins_goes_on_beside_its_parents_end() -> None:
    home = Household()

    def parent(run: Run, input: None) -> str:
        run.spawn("double", 21)
        return "done"

    execution_id = family(home, parent)
    home.work()

    (child,) = home.all(home.registry.agent("double"))
    assert (home.context(execution_id).output, home.context(child.execution_id).output) == ("done", 42)


def test_an_async_parent_spawns_and_gathers_as_durably() -> None:
    home = Household()

    async def child(run: AsyncRun, input: int) -> int:
        result: int = await run.step("double", lambda: 2 * input)
        return result

    async def parent(run: AsyncRun, input: None) -> list[Any]:
        children = await asyncio.gather(*[run.spawn("child", number) for number in range(20)])
        return await run.gather(*children)

    execution_id = family(home, parent, child)
    home.work()

    assert home.context(execution_id).output == [2 * number for number in range(20)]
    assert len(home.all(home.registry.agent("child"))) == 20


def test_an_async_family_that_dies_at_any_write_has_each_child_once() -> None:
    def scenario(home: Household) -> str:
        async def child(run: AsyncRun, input: int) -> int:
            return input

        async def parent(run: AsyncRun, input: None) -> list[Any]:
            return await run.gather(await run.spawn("child", 1), await run.spawn("child", 2))

        execution_id = family(home, parent, child)
        home.work(within=2 * HOUR)
        return execution_id

    for home, execution_id in dying_at_each_write(scenario):
        assert home.context(execution_id).output == [1, 2], home.store.writes
        assert len(home.all(home.registry.agent("child"))) == 2


# -- failures ----------------------------------------------------------------------------------------------------------


def test_the_first_failure_in_the_order_asked_for_is_raised_when_all_are_over() -> None:
    home = Household()

    def parent(run: Run, input: None) -> list[Any]:
        return run.gather(*[run.spawn("double", number) for number in (1, -1, -2)])

    execution_id = family(home, parent)
    home.work()

    error = home.context(execution_id).error
    assert error is not None
    assert error.type == "celery_agents.errors:ChildFailed"
    assert "'double'" in error.message
    assert error.message.endswith("builtins:ValueError: -1 is negative")


def test_failures_stand_in_their_places_where_that_is_asked_for_on_every_attempt() -> None:
    home, seen = Household(), []

    def parent(run: Run, input: None) -> None:
        children = [run.spawn("double", number) for number in (1, -1, 2)]
        seen.append(run.gather(*children, return_exceptions=True))
        run.sleep(HOUR)

    family(home, parent)
    home.work(within=2 * HOUR)

    assert len(seen) == 2
    for results in seen:
        assert (results[0], results[2]) == (2, 4)
        failed = results[1]
        assert isinstance(failed, ChildFailed)
        assert (failed.agent_id, failed.type, failed.message) == ("double", "builtins:ValueError", "-1 is negative")


def test_a_failure_with_a_long_message_is_a_childs_failure_all_the_same() -> None:
    home, seen = Household(), []

    def fails(run: Run, input: None) -> None:
        raise ValueError('"\x01é' * 20_000)

    def parent(run: Run, input: None) -> None:
        seen.extend(run.gather(run.spawn("fails"), return_exceptions=True))

    family(home, parent, fails)
    home.work()

    (failed,) = seen
    assert isinstance(failed, ChildFailed)
    assert failed.type == "builtins:ValueError"


def test_a_child_that_is_cancelled_or_deleted_reaches_its_parent_as_a_failure() -> None:
    home = Household()

    def asks(run: Run, input: None) -> Any:
        return run.ask("?")

    def parent(run: Run, input: None) -> list[str]:
        children = [run.spawn("asks"), run.spawn("asks")]
        return [f"{one.type}" for one in run.gather(*children, return_exceptions=True)]

    execution_id = family(home, parent, asks)
    home.work()
    first, second = home.all(home.registry.agent("asks"))
    home.store.delete_context(first.execution_id)
    home.cancel(second.execution_id)
    # A store tells nobody of what it deletes: the parent looks now and then.
    home.work(within=HOUR + timedelta(minutes=1))

    assert home.context(execution_id).output == ["gone", "cancelled"]


@pytest.mark.parametrize(
    ("spawn", "error"),
    [
        (lambda run: run.spawn("nobody"), UnknownAgent),
        (lambda run: run.spawn("double", "two"), InvalidInput),
        (lambda run: run.spawn("double"), InvalidInput),
        (lambda run: run.spawn("double", 1, session_id="s" * 300), InvalidRecord),
        (lambda run: run.spawn("double", 1, metadata={"x": object()}), InvalidRecord),
        (lambda run: run.spawn("double", 1, metadata={"agents.deadline": "never"}), InvalidRecord),
        (lambda run: run.spawn("double", 1, priority="high"), InvalidRecord),
        (lambda run: run.spawn(double), TypeError),
        (lambda run: run.spawn(None), TypeError),
        (lambda run: run.gather([run.spawn("double", 1)]), TypeError),
        (lambda run: run.gather("01a20917-58ad-75b5-a8a3-b667c4fa7673"), TypeError),
    ],
)
def test_a_child_that_cannot_be_started_is_an_error_where_it_is_asked_for_on_every_attempt(
    spawn: Any, error: type[Exception]
) -> None:
    home, seen = Household(), []

    def parent(run: Run, input: None) -> str:
        with pytest.raises(error) as raised:
            spawn(run)
        seen.append(str(raised.value))
        run.sleep(HOUR)
        return "went on"

    execution_id = family(home, parent)
    home.work(within=2 * HOUR)

    assert home.context(execution_id).output == "went on"
    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_an_output_too_large_for_the_parents_journal_fails_that_child_alone() -> None:
    home, seen = Household(), []

    def gives(run: Run, input: int) -> str:
        return "x" * input

    def parent(run: Run, input: None) -> None:
        children = [run.spawn("gives", size) for size in (3, DEFAULT_MAX_VALUE_BYTES - 100, 4)]
        seen.append(run.gather(*children, return_exceptions=True))

    family(home, parent, gives)
    home.work()

    ((first, too_large, last),) = seen
    assert (first, last) == ("xxx", "xxxx")
    assert isinstance(too_large, ValueTooLarge)


def test_code_that_spawns_another_agent_contradicts_its_journal() -> None:
    home = Household()

    def parent(run: Run, input: None) -> None:
        run.spawn("double" if run.attempt == 1 else "parent", 1)
        run.sleep(HOUR)

    execution_id = family(home, parent)
    home.work(within=2 * HOUR)

    error = home.context(execution_id).error
    assert error is not None
    assert "JournalMismatch" in error.type


def test_a_cycle_of_spawns_ends_and_says_so() -> None:
    home = Household()
    home.limits = Defaults(lease=LEASE, announce_within=LEASE, max_depth=4)

    def circle(run: Run, input: None) -> list[Any]:
        return run.gather(run.spawn("circle"))

    agent = home.agent(circle)
    first = home.start(agent)
    home.work()

    generations = home.all(agent)
    assert len(generations) == 4
    assert {one.state for one in generations} == {AgentState.FAILED}
    last = generations[-1].error
    assert last is not None
    assert last.type.endswith(SpawnTooDeep.__name__)
    root = home.context(first).error
    assert root is not None
    assert "SpawnTooDeep" in root.message


# -- many --------------------------------------------------------------------------------------------------------------


def test_hundreds_of_children_each_run_once_and_are_not_looked_at_over_and_over() -> None:
    home, number = Household(), 300
    execution_id = family(home, parent_of(number))
    home.work()

    assert home.context(execution_id).output == [2 * place for place in range(number)]
    assert len(home.all(home.registry.agent("double"))) == number
    assert home.summary(execution_id).attempt < 20


def test_children_that_end_one_after_the_other_cost_a_parent_no_square_of_their_number() -> None:
    home, number = Household(), 60

    def sleeps(run: Run, input: int) -> int:
        run.sleep(timedelta(minutes=input))
        return input

    def parent(run: Run, input: None) -> list[Any]:
        return run.gather(*[run.spawn("sleeps", place) for place in range(1, number + 1)])

    execution_id = family(home, parent, sleeps)
    home.work()
    reads = 0
    while home.summary(execution_id).state is AgentState.WAITING:
        home.work(within=timedelta(seconds=50))
        before = len(home.store.reads)
        if home.summary(execution_id).due_at == home.now():
            home.execute(execution_id)
        reads += len(home.store.reads) - before

    assert home.context(execution_id).output == list(range(1, number + 1))
    assert len(home.store.reads) < 20 * number


def test_more_children_than_steps_are_allowed_fail_before_hours_of_waiting() -> None:
    home = Household()

    def asks(run: Run, input: int) -> Any:
        return run.ask("?")

    def parent(run: Run, input: None) -> list[Any]:
        return run.gather(*[run.spawn("asks", place) for place in range(6)])

    home.agent(asks)
    execution_id = home.start(home.agent(parent, max_steps=11))
    home.work()

    error = home.context(execution_id).error
    assert error is not None
    assert "MaxStepsExceeded" in error.type


def test_the_ends_of_children_leave_nothing_in_the_mailbox() -> None:
    home = Household()

    def parent(run: Run, input: None) -> Any:
        run.gather(*[run.spawn("double", number) for number in range(5)])
        return run.ask("?")

    execution_id = family(home, parent)
    home.work()

    assert home.context(execution_id).state is AgentState.WAITING_FOR_INPUT
    assert [one for one in home.context(execution_id).signals if one.kind is SignalKind.CHILD] == []


def test_a_parent_that_dies_in_its_code_after_it_has_joined_joins_no_second_time() -> None:
    home, attempts = Household(), []

    def parent(run: Run, input: None) -> list[Any]:
        outputs = run.gather(run.spawn("double", 1), run.spawn("double", 2))
        attempts.append(run.attempt)
        if len(attempts) < 3:
            raise Crash
        return outputs

    execution_id = family(home, parent)
    home.work(within=timedelta(minutes=5))

    assert home.context(execution_id).output == [2, 4]
    assert len(home.context(execution_id).steps) == 4
