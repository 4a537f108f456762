"""What passes between an execution and its children when something dies or is cancelled: ends, cancels, deadlines."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, ManualClock, MemoryStore, open_store
from agent_statestore.errors import FormatTooNew
from agent_statestore.query import Query
from celery_agents import Run, agent, enqueue
from celery_agents.host.recovery.sweeper import Sweeper
from celery_agents.host.runtime import Runtime
from tests.celery_agents.driving import LEASE, Calls
from tests.celery_agents.household import Household, dying_at_each_write

HOUR = timedelta(hours=1)


def double(run: Run, input: int) -> int:
    if input < 0:
        raise ValueError(f"{input} is negative")
    return run.step("double", lambda: 2 * input)


def family(home: Household, parent: Any, *children: Any) -> str:
    for child in children or (double,):
        home.agent(child)
    return home.start(home.agent(parent))


# -- crashes -----------------------------------------------------------------------------------------------------------


def test_a_family_that_dies_at_any_write_has_each_child_once_and_completes() -> None:
    def scenario(home: Household) -> tuple[str, Calls]:
        calls = Calls()

        def child(run: Run, input: int) -> int:
            doubled: int = run.step("double", calls, 2 * input)
            return doubled

        def parent(run: Run, input: None) -> list[Any]:
            return run.gather(*[run.spawn("child", number) for number in range(3)])

        execution_id = family(home, parent, child)
        # Less than the hour after which a parent looks although nobody told it anything.
        home.work(within=timedelta(minutes=30))
        return execution_id, calls

    for home, (execution_id, calls) in dying_at_each_write(scenario):
        assert home.context(execution_id).output == [0, 2, 4], home.store.writes
        assert len(home.all(home.registry.agent("child"))) == 3
        # One death repeats at most the step in flight.
        assert 3 <= len(calls.made) <= 4
        assert all(one.due_at is None for one in home.all(home.registry.agent("child")))


def test_a_death_between_a_childs_end_and_the_telling_only_delays_the_parent() -> None:
    home = Household()

    def parent(run: Run, input: None) -> list[Any]:
        return run.gather(run.spawn("double", 1))

    execution_id = family(home, parent)
    home.execute(execution_id)
    (child,) = home.all(home.registry.agent("double"))
    home.executor.execute(child.execution_id, "host/2/0")  # and dies before it tells anybody

    ended = home.summary(child.execution_id)
    assert (ended.state, ended.due_at is not None) == (AgentState.COMPLETED, True)
    assert home.summary(execution_id).state is AgentState.WAITING
    home.work(within=timedelta(minutes=1))

    assert home.context(execution_id).output == [2]
    assert home.summary(child.execution_id).due_at is None


def test_a_store_that_refuses_one_relative_does_not_keep_the_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Household()

    def asks(run: Run, input: int) -> Any:
        return run.ask("?")

    def parent(run: Run, input: None) -> None:
        run.gather(*[run.spawn("asks", number) for number in range(3)])

    execution_id = family(home, parent, asks)
    home.work()
    first, *others = home.all(home.registry.agent("asks"))
    send = MemoryStore.send

    def sends(store: MemoryStore, to: str, signal: Any) -> Any:
        if to == first.execution_id:
            raise FormatTooNew("execution", 99, 1)
        return send(store, to, signal)

    home.cancel(execution_id)
    monkeypatch.setattr(MemoryStore, "send", sends)
    with pytest.raises(FormatTooNew):
        home.execute(execution_id)

    states = [home.summary(one.execution_id).state for one in others]
    assert states == [AgentState.CANCELLED] * 2
    assert home.summary(execution_id).due_at is not None
    monkeypatch.undo()
    home.work(within=timedelta(minutes=1))
    assert home.summary(first.execution_id).state is AgentState.CANCELLED


def test_relatives_are_told_by_the_sweeper_where_no_worker_ever_does(runtime: Runtime) -> None:
    clock = ManualClock(datetime.now(UTC))
    runtime._store = open_store(runtime.settings.store_url, clock=clock)
    agent(registry=runtime.registry)(double)

    @agent(registry=runtime.registry)
    def parent(run: Run, input: None) -> list[Any]:
        return run.gather(run.spawn("double", 21))

    execution = enqueue(parent, runtime=runtime)
    runtime.executor.execute(execution.id, "host/1/0")
    (child,) = runtime.store.find(Query(agent_id="double")).items
    runtime.executor.execute(child.execution_id, "host/1/0")  # and dies before it tells anybody
    sweeper = Sweeper(runtime)
    for _ in range(20):
        clock.advance(timedelta(hours=2))
        sweeper.sweep()  # no worker takes its bells

    assert execution.summary().due_at is not None
    assert [signal.key for signal in execution.context().signals] == [child.execution_id]
    runtime.executor.execute(execution.id, "host/1/0")
    assert execution.context().output == [42]


def test_a_cancel_by_a_client_reaches_the_children_though_no_worker_is_free(runtime: Runtime) -> None:
    asks = agent(registry=runtime.registry)(asks_deeper)
    execution = enqueue(asks, 2, runtime=runtime)
    for _ in range(3):
        for one in runtime.store.find(Query(states=[AgentState.IDLE])).items:
            runtime.executor.execute(one.execution_id, "host/1/0")
    family = runtime.store.find().items
    assert len(family) == 3
    assert {one.state.is_paused for one in family} == {True}
    assert execution.cancel() is True

    assert {one.state for one in runtime.store.find().items} == {AgentState.CANCELLED}


# -- cancel and deadline -----------------------------------------------------------------------------------------------


def asks_deeper(run: Run, input: int) -> Any:
    return run.ask("?") if input == 0 else run.gather(run.spawn("asks_deeper", input - 1))


def test_a_cancel_reaches_children_and_grandchildren() -> None:
    home = Household()
    agent = home.agent(asks_deeper)
    first = home.start(agent, 3)
    home.work()
    assert len(home.all(agent)) == 4
    home.cancel(first)
    home.work(within=timedelta(minutes=1))

    assert {one.state for one in home.all(agent)} == {AgentState.CANCELLED}
    assert all(one.due_at is None for one in home.all(agent))


def test_a_cancel_reaches_all_generations_even_if_a_worker_dies_at_any_write() -> None:
    def scenario(home: Household) -> Any:
        agent = home.agent(asks_deeper)
        first = home.start(agent, 2)
        home.work(within=timedelta(minutes=10))
        home.cancel(first)
        home.work(within=timedelta(minutes=10))
        return agent

    for home, deeper in dying_at_each_write(scenario):
        assert [one.state for one in home.all(deeper)] == [AgentState.CANCELLED] * 3, home.store.writes


@pytest.mark.parametrize("child_is", ["waiting to run", "waiting for a person"])
def test_a_cancel_reaches_a_child_whose_spawn_was_never_recorded(child_is: str) -> None:
    """The parent died between the child's creation and its own checkpoint, and was cancelled before it came back."""
    home = Household()

    def asks(run: Run, input: None) -> Any:
        return run.ask("?")

    def parent(run: Run, input: None) -> None:
        run.gather(run.spawn("asks"))

    execution_id = family(home, parent, asks)
    home.store.dies_at = len(home.store.writes) + 3  # claim, intent, create
    home.store.dies_after = True
    home.bell(execution_id)
    assert home.deaths == 1
    (child,) = home.all(home.registry.agent("asks"))
    (intent,) = home.context(execution_id).steps
    assert intent.result is None
    if child_is == "waiting for a person":
        home.execute(child.execution_id)
    home.clock.advance(LEASE)
    home.cancel(execution_id)
    home.work(within=timedelta(minutes=1))

    assert home.summary(execution_id).state is AgentState.CANCELLED
    assert home.summary(child.execution_id).state is AgentState.CANCELLED


def test_a_zombie_starts_no_child(calls: Calls) -> None:
    home = Household()

    def child(run: Run, input: None) -> None:
        run.step("work", calls, 1)

    def parent(run: Run, input: None) -> None:
        home.clock.advance(LEASE)  # frozen, until its lease has run out and it is cancelled
        home.cancel(execution_id)
        home.work(within=timedelta(seconds=1))
        run.spawn("child")

    execution_id = family(home, parent, child)
    home.execute(execution_id)
    home.work(within=timedelta(minutes=1))

    assert home.summary(execution_id).state is AgentState.CANCELLED
    assert home.all(home.registry.agent("child")) == []


def test_a_child_that_a_zombie_was_just_starting_runs_nothing(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Household()

    def child(run: Run, input: None) -> None:
        run.step("work", calls, 1)

    def parent(run: Run, input: None) -> None:
        run.spawn("child")

    def creates(store: MemoryStore, new: Any) -> Any:
        home.clock.advance(LEASE)  # frozen, until its lease has run out and it is cancelled
        home.cancel(execution_id)
        home.store._inside = False
        home.work(within=timedelta(seconds=1))
        return create(store, new)

    execution_id = family(home, parent, child)
    create = MemoryStore.create
    monkeypatch.setattr(MemoryStore, "create", creates)
    home.execute(execution_id)
    home.work(within=timedelta(minutes=1))

    assert home.summary(execution_id).state is AgentState.CANCELLED
    assert [one.state for one in home.all(home.registry.agent("child"))] == [AgentState.CANCELLED]
    assert calls.made == []


def test_a_cancelled_child_is_left_to_whoever_works_on_it() -> None:
    home, ids = Household(), []

    def child(run: Run, input: None) -> str:
        def work() -> None:
            home.cancel(ids[0])
            home.execute(ids[0])

        run.step("one", work)
        return run.step("two", lambda: "not any more")

    def parent(run: Run, input: None) -> None:
        run.gather(run.spawn("child"))

    ids.append(family(home, parent, child))
    home.work(within=timedelta(minutes=1))

    (one,) = home.all(home.registry.agent("child"))
    assert (one.state, one.step_count) == (AgentState.CANCELLED, 1)
    assert home.summary(ids[0]).state is AgentState.CANCELLED


def test_a_deadline_passes_down_and_the_earlier_one_counts() -> None:
    home = Household()

    def asks(run: Run, input: int) -> Any:
        return run.ask("?")

    def parent(run: Run, input: None) -> list[str]:
        children = [run.spawn("asks", 1), run.spawn("hurries", 1)]
        return [one.type for one in run.gather(*children, return_exceptions=True)]

    home.agent(asks)
    home.agent(asks, name="hurries", deadline=HOUR)
    execution_id = home.start(home.agent(parent, deadline=2 * HOUR))
    home.work(within=3 * HOUR)

    for name, after in (("asks", 2 * HOUR), ("hurries", HOUR)):
        (child,) = home.all(home.registry.agent(name))
        assert child.error is not None
        assert "DeadlineExceeded" in child.error.type
        assert child.ended_at is not None
        assert timedelta(0) <= child.ended_at - child.created_at - after < timedelta(minutes=1)
    error = home.context(execution_id).error
    assert error is not None
    assert "DeadlineExceeded" in error.type
