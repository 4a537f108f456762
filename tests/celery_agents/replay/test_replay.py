"""`celery_agents.replay`: executions that begin with the recorded steps of another one, and how two of them differ."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_statestore import (
    Action,
    AgentState,
    AuditEvent,
    Checkpoint,
    ExecutionNotFound,
    InvalidRecord,
    ManualClock,
    MemoryStore,
    Message,
    SignalKind,
    Store,
    open_store,
)
from agent_statestore.hybrid import HybridStore
from agent_statestore.records import AgentStep, Result
from agent_statestore.sql import SQLStore
from celery_agents import AsyncRun, ExecutionCancelled, ExecutionFailed, InvalidInput, Registry, Run, agent, tool
from celery_agents.replay import StepChange, diff
from celery_agents.testing import LocalAgents, LocalExecution, When
from tests.celery_agents.driving import Calls

BACKENDS = ["memory", "sqlite", "hybrid", "redis", "postgresql"]


def make_store(name: str, clock: ManualClock, tmp_path: Path, request: pytest.FixtureRequest) -> Store:
    if name == "memory":
        return MemoryStore(clock=clock)
    if name == "sqlite":
        return SQLStore(f"sqlite:///{tmp_path}/a.db", clock=clock)
    if name == "hybrid":
        return HybridStore(MemoryStore(clock=clock), SQLStore(f"sqlite:///{tmp_path}/cold.db", clock=clock))
    if name == "redis":
        url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")
        return open_store(f"{url}?key_prefix={prefix}", clock=clock)
    return open_store(request.getfixturevalue("postgresql_migrated_url"), clock=clock)


@pytest.fixture(params=BACKENDS)
def anywhere(
    request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path, registry: Registry
) -> Iterator[LocalAgents]:
    """Agents on each backend."""
    with make_store(request.param, clock, tmp_path, request) as store:
        yield LocalAgents(registry=registry, store=store, clock=clock)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def agents(registry: Registry) -> LocalAgents:
    return LocalAgents(registry=registry)


@pytest.fixture
def story(registry: Registry, calls: Calls) -> Any:
    """An agent that takes five steps, and writes of everything between and inside of them."""

    @agent(registry=registry)
    def story(run: Run, name: str) -> str:
        run.say("user", f"für {name}")
        run.memory["begun"] = True
        for n in range(1, 6):

            def work(n: int = n) -> str:
                run.memory[f"inside {n}"] = n
                run.say("tool", f"inside {n}")
                run.remember(f"inside {n}")
                return f"{n}: {calls(n)}"

            result = run.step(f"työ {n}", work)
            run.memory["last"] = result
            run.say("assistant", f"after {result} ☃")
            run.remember({"after": result})
        del run.memory["inside 1"]
        return str(run.memory["last"])

    return story


def told(execution: LocalExecution) -> Any:
    """All that an outside viewer sees of the contents."""
    context = execution.context()
    memory = context.memory
    return (
        [(message.role, message.content) for message in memory.conversation_history],
        memory.working_memory,
        memory.facts,
        context.output,
        [(step.step_number, step.name, step.result) for step in context.steps],
    )


# -- fork --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_step", range(6))
def test_a_fork_reuses_the_shared_steps_runs_the_others_and_ends_with_the_same_contents(
    anywhere: LocalAgents, story: Any, calls: Calls, at_step: int
) -> None:
    source = anywhere.start(story, "Ädä", session_id="s", user_id="u", metadata={"a": 1, "b": 2}, idempotency_key="k")
    source.run()
    before, audit = source.context(), anywhere.store.get_audit(source.id)
    calls.made.clear()
    anywhere.advance(timedelta(days=1))

    fork = source.fork(at_step, metadata={"b": 3}, sender="ada", reason="try again")
    new = fork.context()
    assert (new.state, new.attempt, new.version, new.idempotency_key, new.owner) == (AgentState.IDLE, 0, 0, None, None)
    assert (new.session_id, new.user_id, new.input) == ("s", "u", "Ädä")
    assert new.metadata == {"a": 1, "b": 3, "agents.forked_from": source.id, "agents.at_step": at_step}
    assert new.created_at == new.updated_at == anywhere.now
    assert [replace(step, attempt=1) for step in new.steps] == list(before.steps[:at_step])
    assert {step.attempt for step in new.steps} <= {0}
    (created,) = anywhere.store.get_audit(fork.id)
    assert (created.event, created.to_state, created.by, created.at) == (
        AuditEvent.CREATED,
        AgentState.IDLE,
        "ada",
        anywhere.now,
    )
    assert created.reason == f"forked from {source.id} at step {at_step}: try again"

    assert fork.wait() == "5: 5"
    assert calls.made == [1, 2, 3, 4, 5][at_step:]
    assert told(fork) == told(source)
    assert [step.attempt for step in fork.steps()] == [0] * at_step + [1] * (5 - at_step)
    assert source.context() == before
    assert anywhere.store.get_audit(source.id) == audit
    assert not diff(before, fork.context())


def test_what_comes_after_the_cut_may_come_out_differently_and_nothing_stale_is_left(
    agents: LocalAgents, story: Any, calls: Calls
) -> None:
    source = agents.start(story, "a").run()
    agents.replace("työ 3", lambda: "third")
    fork = source.fork(2).run()
    messages = [message.content for message in fork.context().memory.conversation_history]
    assert messages == [
        "für a",
        *("inside 1", "after 1: 1 ☃", "inside 2", "after 2: 2 ☃", "after third ☃"),
        *("inside 4", "after 4: 4 ☃", "inside 5", "after 5: 5 ☃"),
    ]
    assert {"after": "third"} in fork.context().memory.facts
    assert "inside 3" not in fork.context().memory.working_memory
    found = diff(source.context(), fork.context())
    assert [(step.key, step.change) for step in found.steps] == [("työ 3", StepChange.RESULT)]


def test_a_viewer_of_a_fork_that_died_or_paused_at_once_sees_its_whole_memory(
    agents: LocalAgents, registry: Registry
) -> None:
    @agent(registry=registry)
    def work(run: Run, _: None) -> str:
        run.memory["a"] = 1
        run.step("one", run.memory.__setitem__, "b", 2)
        run.memory["c"] = 3
        answer = run.ask("Go on?")
        run.memory["d"] = answer
        run.step("two", lambda: None)
        return str(dict(run.memory))

    source = agents.start(work).run()
    source.resume("yes")
    source.run()
    fork = source.fork(1)
    assert fork.context().memory.working_memory == {}
    agents.crash_at("ask", When.BEFORE_INTENT, execution=fork)
    fork.run()
    assert fork.context().memory.working_memory == {}
    fork.run()
    assert fork.context().memory.working_memory == {"a": 1, "b": 2, "c": 3}
    fork.resume("no")
    assert fork.wait() == "{'a': 1, 'b': 2, 'c': 3, 'd': 'no'}"
    assert fork.context().memory.working_memory == {"a": 1, "b": 2, "c": 3, "d": "no"}


def test_messages_and_values_of_others_stay(agents: LocalAgents, story: Any) -> None:
    source = agents.start(story, "a")
    message = Message(role="system", content="from outside", timestamp=agents.now)
    agents.store.checkpoint(
        source.id, Checkpoint(messages=(message,), facts=("fact",), entities={"e": 1}, working_memory={"w": 1})
    )
    source.run()
    memory = source.fork(0).run().context().memory
    assert message in memory.conversation_history
    assert "fact" in memory.facts
    assert memory.entities == {"e": 1}


def test_a_fork_with_another_input_is_counted_under_the_key_of_that(agents: LocalAgents, registry: Registry) -> None:
    @agent(registry=registry, concurrency=1, concurrency_key=lambda value: value if value != "nobody" else None)
    def work(run: Run, input: str) -> str:
        return input

    source = agents.start(work, "ada").run()
    forks = source.fork(0), source.fork(0, input="bob"), source.rewind(0, input="nobody")
    assert [fork.summary().metadata["agents.key"] for fork in forks] == ["ada", "bob", None]
    for given in ({}, {"input": "bob"}):
        with pytest.raises(InvalidRecord, match="concurrency_key makes it"):
            source.fork(0, metadata={"agents.key": "mallory"}, **given)


@pytest.mark.parametrize("at_step", [-1, 6, 10**9, True, 1.0, None])
def test_a_fork_at_a_step_that_is_not_recorded_is_refused(agents: LocalAgents, story: Any, at_step: Any) -> None:
    source = agents.start(story, "a").run()
    with pytest.raises(InvalidRecord, match="has 5 steps"):
        source.fork(at_step)
    assert len(agents.store.find().items) == 1


def test_a_fork_of_what_is_not_there_or_deleted_is_refused(anywhere: LocalAgents, story: Any) -> None:
    source = anywhere.start(story, "a").run()
    anywhere.store.delete_context(source.id)
    for step in (0, 1):
        with pytest.raises(ExecutionNotFound):
            source.fork(step)
    with pytest.raises(ExecutionNotFound):
        source.rewind(0)


def test_an_archived_execution_is_forked_into_the_hot_store(clock: ManualClock, tmp_path: Path, story: Any) -> None:
    hot, cold = MemoryStore(clock=clock), SQLStore(f"sqlite:///{tmp_path}/cold.db", clock=clock)
    with HybridStore(hot, cold) as store:
        agents = LocalAgents(store=store, clock=clock)
        source = agents.start(story, "a").run()
        assert hot.get_summary(source.id) is None
        fork = source.fork(3)
        assert hot.get_summary(fork.id) is not None
        assert fork.wait() == "5: 5"
        assert not diff(source.context(), fork.context())


def test_another_input_is_held_against_the_agents_schema(agents: LocalAgents, registry: Registry) -> None:
    @agent(registry=registry)
    def double(run: Run, n: int) -> int:
        return run.step("first", lambda: n) + n

    source = agents.start(double, 1).run()
    with pytest.raises(InvalidInput):
        source.fork(1, input="much")
    assert source.fork(1, input=10).wait() == 11
    assert source.fork(0, input=10).wait() == 20
    assert source.fork(0, input=10).context().input == 10


def test_a_deadline_is_not_taken_along_and_may_be_given(agents: LocalAgents, registry: Registry) -> None:
    @agent(registry=registry)
    def waits(run: Run, _: None) -> Any:
        run.step("one", lambda: None)
        return run.wait_for("go")

    source = agents.start(waits, deadline=timedelta(days=1))
    agents.advance(timedelta(days=2))
    assert source.state is AgentState.FAILED
    fork = source.fork(1).run()
    assert fork.state is AgentState.WAITING
    hurried = source.fork(1, deadline=agents.now + timedelta(hours=1)).run()
    agents.advance(timedelta(days=1))
    assert (fork.state, hurried.state) == (AgentState.WAITING, AgentState.FAILED)


def test_a_fork_of_one_that_waits_asks_again_and_each_gets_its_own_answer(
    anywhere: LocalAgents, registry: Registry
) -> None:
    @agent(registry=registry)
    def asks(run: Run, _: None) -> Any:
        run.step("one", lambda: None)
        run.sleep(timedelta(days=1))
        return [run.ask("Go on?"), run.wait_for("go")]

    source = anywhere.start(asks)
    anywhere.advance(timedelta(days=1))
    source.send_event("go", "source")
    fork = source.fork(2).run()
    asleep = source.fork(1).run()
    assert (fork.state, asleep.state) == (AgentState.WAITING_FOR_INPUT, AgentState.WAITING)
    assert fork.context().signals == ()
    fork.resume("no")
    source.resume("yes")
    assert source.wait() == ["yes", "source"]
    fork.run().send_event("go", "fork")
    assert fork.wait() == ["no", "fork"]
    anywhere.advance(timedelta(days=1))
    assert asleep.state is AgentState.WAITING_FOR_INPUT


def test_a_fork_of_a_fork_names_the_one_it_came_from(agents: LocalAgents, story: Any, calls: Calls) -> None:
    source = agents.start(story, "a").run()
    second = source.fork(3).run()
    third = second.fork(4)
    assert third.context().metadata == {"agents.forked_from": second.id, "agents.at_step": 4}
    calls.made.clear()
    assert third.wait() == "5: 5"
    assert calls.made == [5]
    assert told(third) == told(source)


def test_a_thousand_steps_are_shared(anywhere: LocalAgents, registry: Registry, calls: Calls) -> None:
    @agent(registry=registry, max_steps=2000)
    def long(run: Run, steps: int) -> int:
        for n in range(steps):
            run.say("assistant", f"{n}")
            run.step("tick", calls, n)
        return steps

    source = anywhere.start(long, 20)
    source.run()
    given = tuple(
        AgentStep(
            step_number=n,
            name="tick" if n == 1 else f"tick#{n}",
            action=Action(kind="step"),
            result=Result(success=True, output="é" * 10),
            timestamp=anywhere.now,
        )
        for n in range(1, 1001)
    )
    big = anywhere.store.create_context("long", 1000).execution_id
    anywhere.store.checkpoint(big, Checkpoint(steps=given))
    calls.made.clear()
    fork = anywhere.get(big).fork(999)
    assert fork.wait() == 1000
    assert calls.made == [999]
    assert len(fork.steps()) == 1000
    assert [message.content for message in fork.context().memory.conversation_history] == [str(n) for n in range(1000)]


# -- effects at the cut ------------------------------------------------------------------------------------------------


def test_a_call_in_flight_at_the_cut_is_settled_by_its_policy(agents: LocalAgents, calls: Calls) -> None:
    @tool(registry=Registry(), on_crash="ask")
    def pay(amount: int) -> str:
        return f"paid {calls(amount)}"

    @agent(registry=Registry())
    def buy(run: Run, amount: int) -> str:
        return run.tool(pay, amount)

    agents.crash_at("pay", When.BEFORE_CHECKPOINT)
    source = agents.start(buy, 30).run()
    fork = source.fork(1)
    assert fork.steps()[0].in_flight
    fork.cancel()
    agents.run()
    assert calls.made == [30]
    again = source.fork(1).run()
    assert again.state is AgentState.WAITING_FOR_INPUT
    again.resume({"output": "paid before"})
    assert again.wait() == "paid before"
    assert calls.made == [30]


def test_a_call_that_a_living_process_makes_at_this_moment_is_not_forked_into_another(
    agents: LocalAgents, calls: Calls
) -> None:
    refused: list[str] = []

    @tool(registry=Registry(), on_crash="fail")
    def pay(amount: int) -> str:
        for step in (1, 2):
            with pytest.raises(InvalidRecord, match=r"fork at step 0|has 1 steps") as refusal:
                agents.get(source.id).fork(step)
            refused.append(str(refusal.value))
        agents.get(source.id).fork(0)
        return f"paid {calls(amount)}"

    @agent(registry=Registry())
    def buy(run: Run, amount: int) -> str:
        if run.execution_id == source.id:
            return run.tool(pay, amount)
        return "fork"

    source = agents.start(buy, 30)
    assert source.wait() == "paid 30"
    assert "is being executed" in refused[0]
    assert sorted(str(one.context().output) for one in map(agents.get, ids(agents))) == ["fork", "paid 30"]


def ids(agents: LocalAgents) -> list[str]:
    return [item.execution_id for item in agents.store.find().items]


def test_an_approval_does_not_allow_a_second_call(agents: LocalAgents, calls: Calls) -> None:
    @tool(registry=Registry(), requires_approval=True)
    def pay(amount: int) -> str:
        return f"paid {calls(amount)}"

    @agent(registry=Registry())
    def buy(run: Run, amount: int) -> list[str]:
        return [run.tool(pay, amount), run.tool(pay, amount)]

    source = agents.start(buy, 30).run()
    for _ in range(2):
        source.approve()
        source.run()
    assert [step.name for step in source.steps()] == ["approve pay", "pay", "approve pay#2", "pay#2"]
    for step in (1, 3):
        with pytest.raises(InvalidRecord, match=f"fork at step {step - 1}"):
            source.fork(step)
    fork = source.fork(2).run()
    assert fork.state is AgentState.WAITING_FOR_APPROVAL
    fork.reject()
    with pytest.raises(ExecutionFailed, match="ApprovalDenied"):
        fork.wait()
    # A refusal allows nothing: it may be reused.
    with pytest.raises(ExecutionFailed, match="ApprovalDenied"):
        fork.fork(3).wait()
    assert calls.made == [30, 30]


def test_steps_beside_each_other_whose_numbers_interleave(agents: LocalAgents, calls: Calls) -> None:
    """The call whose intent has the lower number ends last."""

    def until(*, done: int) -> list[AgentStep]:
        while True:
            steps = [step for step in source.steps() if step.name in ("left", "right")]
            if len(steps) == 2 and sum(1 for step in steps if step.result is not None) >= done:
                return steps
            threading.Event().wait(0.005)

    def work(name: str) -> str:
        if not source.state.is_over and until(done=0)[0].name == name:
            until(done=1)
        return str(calls(name))

    @tool(registry=Registry(), on_crash="fail")
    def left() -> str:
        return work("left")

    @tool(registry=Registry(), on_crash="fail")
    def right() -> str:
        return work("right")

    @agent(registry=Registry())
    def both(run: Run, _: None) -> Any:
        run.say("user", "before")
        done = run.parallel([left, right])
        run.say("assistant", f"after {done}")
        return [done, run.step("third", calls, "third")]

    source = agents.start(both)
    source.wait()
    low, high, third = [step.name for step in source.steps()]
    assert calls.made == [high, low, third]
    for at_step, made in ((1, [high, "third"]), (2, ["third"]), (3, [])):
        calls.made.clear()
        fork = source.fork(at_step)
        assert fork.wait() == [["left", "right"], "third"]
        assert calls.made == made
        messages = [message.content for message in fork.context().memory.conversation_history]
        assert messages == ["before", "after ['left', 'right']"]


def test_what_an_async_agent_said_upon_a_result_beyond_the_cut_is_said_anew(agents: LocalAgents, calls: Calls) -> None:
    second_is_said = threading.Event()

    @agent(registry=Registry())
    async def both(run: AsyncRun, _: None) -> Any:
        async def and_say(name: str, function: Any) -> None:
            while name == "second" and not source.state.is_over and not source.steps():
                await asyncio.sleep(0.005)
            run.say("assistant", f"{name}: {await run.options(on_crash='fail').step(name, function)}")
            if name == "second":
                second_is_said.set()

        await asyncio.gather(and_say("first", first), and_say("second", second))

    def first() -> str:
        assert second_is_said.wait(10)
        return "1"

    def second() -> str:
        return "2"

    source = agents.start(both)
    source.wait()
    assert [step.name for step in source.steps()] == ["first", "second"]
    agents.replace("second", lambda: "anew")
    fork = source.fork(1).run()
    messages = [message.content for message in fork.context().memory.conversation_history]
    assert sorted(messages) == ["first: 1", "second: anew"]


def test_steps_that_did_not_count_are_cut_by_time(agents: LocalAgents, registry: Registry) -> None:
    """Executions of before there were counts."""

    @agent(registry=registry)
    def talks(run: Run, _: None) -> None:
        for n in range(3):
            agents.clock.advance(timedelta(seconds=1))
            run.say("assistant", f"before {n}")
            run.step("tick", agents.clock.advance, timedelta(seconds=1))
        agents.clock.advance(timedelta(seconds=1))
        run.say("assistant", "after")

    source = agents.start(talks).run()
    context = source.context()
    old = agents.store.create_context("talks").execution_id
    steps = tuple(replace(step, said=None, remembered=None) for step in context.steps)
    agents.store.checkpoint(old, Checkpoint(steps=steps, messages=context.memory.conversation_history))
    messages = agents.get(old).fork(2).context().memory.conversation_history
    assert [message.content for message in messages] == ["before 0", "before 1"]


# -- children ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def family(registry: Registry, calls: Calls) -> Any:
    @agent(registry=registry)
    def child(run: Run, n: int) -> int:
        run.step("work", calls, n)
        run.ask("Go on?", name=f"child {n}")
        return n

    @agent(registry=registry)
    def parent(run: Run, n: int) -> Any:
        children = [run.spawn(child, k) for k in range(n)]
        run.step("between", calls, "between")
        return run.gather(*children)

    return parent


def test_children_are_shared_and_a_cancel_of_the_fork_does_not_reach_them(
    agents: LocalAgents, family: Any, calls: Calls
) -> None:
    source = agents.start(family, 2).run()
    children = source.children
    fork, other = source.fork(2), source.fork(1)
    agents.run()
    assert calls.made == ["between", 0, 1, "between", "between", 1]
    assert [child.id for child in fork.children] == [child.id for child in children]
    assert (other.children[0].id, other.children[1].id) != (children[0].id, children[1].id)
    fork.fork(2).cancel()
    other.cancel()
    agents.run()
    assert [child.state for child in children] == [AgentState.WAITING_FOR_INPUT] * 2
    assert other.children[1].state is AgentState.CANCELLED
    for child in children:
        child.resume("yes")
    assert source.wait() == [0, 1]
    assert fork.state is AgentState.WAITING
    agents.advance(timedelta(hours=1))
    assert fork.wait() == [0, 1]


def test_a_fork_of_a_child_is_nobodys_child(agents: LocalAgents, family: Any) -> None:
    source = agents.start(family, 1).run()
    (child,) = source.children
    fork = child.fork(1)
    assert fork.context().parent_execution_id is None
    source.cancel()
    agents.run()
    assert (child.state, fork.run().state) == (AgentState.CANCELLED, AgentState.WAITING_FOR_INPUT)


def test_a_rewind_that_would_cancel_a_child_that_it_shares_does_nothing(agents: LocalAgents, family: Any) -> None:
    source = agents.start(family, 2).run()
    with pytest.raises(InvalidRecord, match="rewind to step 0"):
        source.rewind(1)
    assert not source.summary().cancel_requested
    fork = source.rewind(0).run()
    assert source.state is AgentState.CANCELLED
    assert [child.state for child in source.children] == [AgentState.CANCELLED] * 2
    assert [child.state for child in fork.children] == [AgentState.WAITING_FOR_INPUT] * 2


# -- rewind ------------------------------------------------------------------------------------------------------------


def test_a_rewind_cancels_what_waits_and_goes_on_from_the_step(
    anywhere: LocalAgents, registry: Registry, calls: Calls
) -> None:
    @agent(registry=registry)
    def asks(run: Run, _: None) -> Any:
        run.step("one", calls, 1)
        run.step("two", calls, 2)
        return run.ask("Go on?")

    source = anywhere.start(asks).run()
    fork = source.rewind(1, sender="ada")
    assert source.state is AgentState.CANCELLED
    cancels = [
        one for one in anywhere.store.get_audit(source.id) if one.signal and one.signal.kind is SignalKind.CANCEL
    ]
    assert [(one.signal.sender, one.signal.reason) for one in cancels if one.signal] == [("ada", "rewound to step 1")]
    fork.run().resume("yes")
    assert fork.wait() == "yes"
    assert calls.made == [1, 2, 2]
    with pytest.raises(ExecutionCancelled):
        source.wait()
    # What is over is only forked.
    assert fork.rewind(3).wait() == "yes"
    assert fork.state is AgentState.COMPLETED


def test_a_rewind_that_cannot_be_forked_cancels_nothing(agents: LocalAgents, registry: Registry) -> None:
    @agent(registry=registry)
    def asks(run: Run, n: int) -> Any:
        return run.ask("Go on?")

    source = agents.start(asks, 1).run()
    for wrong in ({"to_step": 5}, {"to_step": 0, "input": "x"}, {"to_step": 0, "metadata": {"a": object()}}):
        with pytest.raises(ValueError, match=r".+"):
            source.rewind(**wrong)
    assert source.state is AgentState.WAITING_FOR_INPUT
    assert not source.summary().cancel_requested


def test_a_rewind_waits_until_what_is_executed_has_stopped(agents: LocalAgents, registry: Registry) -> None:
    began, may_end = threading.Event(), threading.Event()

    @agent(registry=registry)
    def slow(run: Run, _: None) -> str:
        run.step("one", lambda: 1)
        run.step("two", wait)
        return "done"

    def wait() -> bool:
        began.set()
        return may_end.wait(10)

    source = agents.start(slow)
    worker = threading.Thread(target=agents.run)
    worker.start()
    assert began.wait(10)
    with pytest.raises(TimeoutError, match="its cancel is asked for"):
        source.rewind(1, timeout=0.05)
    assert ids(agents) == [source.id]
    timer = threading.Timer(0.1, may_end.set)
    timer.start()
    fork = source.rewind(1, timeout=10)
    assert source.state is AgentState.CANCELLED
    worker.join()
    agents.run()
    assert fork.wait() == "done"
    assert [step.attempt for step in fork.steps()] == [0, 1]


# -- diff --------------------------------------------------------------------------------------------------------------


def test_diff_finds_each_kind_of_difference_and_where_the_first_is(agents: LocalAgents) -> None:
    @tool(registry=Registry())
    def pay(amount: float) -> str:
        return f"paid {amount}"

    def work(run: Run, input: Any) -> Any:
        run.step("same", lambda: 1)
        run.step("result", lambda: {"value": input})
        run.tool(pay, input)
        run.step(f"only {input}", lambda: None)
        run.step("last", list)
        if input == 2:
            raise ValueError("two")
        return input

    made = agent(registry=Registry())(work)
    a, b = agents.start(made, 1).run().context(), agents.start(made, 2).run().context()
    found = diff(a, b)
    assert found
    assert (found.a, found.b, found.alike) == (a.execution_id, b.execution_id, 2)
    assert [(step.key, step.change) for step in found.steps] == [
        ("result", StepChange.RESULT),
        ("pay", StepChange.ACTION),
        ("only 1", StepChange.ONLY_IN_A),
        ("only 2", StepChange.ONLY_IN_B),
    ]
    assert found.first is found.steps[0]
    assert {field.field: (field.a, field.b) for field in found.fields} == {
        "input": (1, 2),
        "state": ("completed", "failed"),
        "output": (1, None),
        "error": (None, {"type": "builtins:ValueError", "message": "two"}),
    }
    back = diff(b, a)
    assert [step.change for step in back.steps if step.key.startswith("only")] == [
        StepChange.ONLY_IN_A,
        StepChange.ONLY_IN_B,
    ]
    assert not diff(a, a)
    assert diff(a, a).first is None


def test_diff_tells_what_json_tells_apart_and_no_more(agents: LocalAgents) -> None:
    def context(output: Any) -> Any:
        @agent(registry=Registry())
        def work(run: Run, _: None) -> None:
            run.step("one", lambda: output)

        return agents.start(work).run().context()

    assert diff(context(1), context(True)).first
    assert diff(context(None), context(0)).first
    assert not diff(context({"a": 1, "b": [2]}), context({"b": [2], "a": 1}))
    assert not diff(context("ü"), context("ü"))


def test_diff_of_two_families_does_not_mind_the_ids_of_children(agents: LocalAgents, family: Any) -> None:
    contexts = []
    for _ in range(2):
        execution = agents.start(family, 2).run()
        for child in execution.children:
            child.resume("yes")
        execution.run()
        contexts.append(execution.context())
    assert not diff(*contexts)
