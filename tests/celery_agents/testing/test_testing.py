"""`celery_agents.testing`: what a user's own tests stand on. Each test here is one that a user might write."""

import asyncio
import json
import threading
import unittest
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from agent_statestore import AgentState, AlreadyAnswered, ManualClock
from agent_statestore.query import Query
from agent_statestore.sql import SQLStore
from celery_agents import (
    AsyncRun,
    ExecutionCancelled,
    ExecutionFailed,
    Happened,
    InvalidAnswer,
    InvalidArguments,
    JournalMismatch,
    Registry,
    Run,
    UnknownAgent,
    agent,
    tool,
)
from celery_agents.cli.output import as_json
from celery_agents.testing import Crash, LocalAgents, When, replay
from tests.celery_agents.driving import Calls

# -- people and time ---------------------------------------------------------------------------------------------------


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def agents(registry: Registry) -> LocalAgents:
    return LocalAgents(registry=registry)


def test_an_agent_runs_to_its_end(agents: LocalAgents) -> None:
    @agent(registry=Registry())
    def greet(run: Run, name: str) -> str:
        run.say("assistant", "hello")
        return run.step("upper", str.upper, name)

    execution = agents.start(greet, "ada", session_id="s", metadata={"a": 1})
    assert execution.state is AgentState.IDLE
    assert execution.run().state is AgentState.COMPLETED
    assert execution.wait() == "ADA"
    context = execution.context()
    assert (context.session_id, context.metadata, context.attempt, context.due_at) == ("s", {"a": 1}, 1, None)
    assert [step.name for step in execution] == ["upper"]
    assert context.memory.conversation_history[0].timestamp == agents.now == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_question_is_answered_after_three_weeks(agents: LocalAgents) -> None:
    @agent(registry=Registry())
    def ask(run: Run, _: None) -> list[Any]:
        colour = run.ask("Colour?", choices=["red", "blue"])
        return [colour, run.ask("Sure?", schema=bool, timeout=timedelta(days=1), default=None, name="sure")]

    execution = agents.start(ask)
    question = execution.wait_for_question()
    assert question is not None
    assert question.prompt == "Colour?"
    with pytest.raises(TimeoutError, match='waits for the answer to "ask"'):
        execution.wait()
    agents.advance(timedelta(weeks=3))
    with pytest.raises(InvalidAnswer):
        execution.resume("green")
    execution.resume("blue", sender="ada")
    with pytest.raises(AlreadyAnswered):
        execution.resume("red", key="ask")
    agents.run()
    assert execution.state is AgentState.WAITING_FOR_INPUT
    agents.advance(timedelta(hours=23, minutes=59, seconds=59))
    assert execution.state is AgentState.WAITING_FOR_INPUT
    agents.advance(timedelta(seconds=1))
    assert execution.wait() == ["blue", None]
    answers = [entry.signal for entry in agents.store.get_audit(execution.id) if entry.signal is not None]
    assert [(one.sender, one.sent_at) for one in answers] == [("ada", datetime(2026, 1, 22, tzinfo=UTC))]


def test_an_approval_is_given_with_other_arguments(agents: LocalAgents, calls: Calls) -> None:
    @tool(registry=Registry(), requires_approval=lambda arguments: arguments["amount"] > 10)
    def refund(amount: int) -> str:
        return f"refunded {calls(amount)}"

    @agent(registry=Registry())
    def support(run: Run, amount: int) -> str:
        return run.tool(refund, amount)

    assert agents.start(support, 5).wait() == "refunded 5"
    execution = agents.start(support, 30).run()
    assert execution.state is AgentState.WAITING_FOR_APPROVAL
    with pytest.raises(InvalidArguments):
        execution.approve(arguments={"amount": "much"})
    agents.advance(timedelta(days=3))
    execution.approve(arguments={"amount": 20}, sender="ada", reason="half")
    assert execution.wait() == "refunded 20"
    result = execution.steps()[0].result
    assert result is not None
    assert (result.output["by"], result.output["at"]) == ("ada", "2026-01-04T00:00:00+00:00")

    refused = agents.start(support, 40).run()
    refused.reject(reason="no")
    with pytest.raises(ExecutionFailed, match="no"):
        refused.wait()
    assert calls.made == [5, 20]


def test_events_and_timers_and_later_starts(agents: LocalAgents) -> None:
    @agent(registry=Registry())
    def waits(run: Run, _: None) -> list[Any]:
        run.sleep(timedelta(days=2))
        paid = run.wait_for("paid", timeout=timedelta(days=7), default="never")
        return [paid, run.wait_for("paid", timeout=timedelta(days=7), default="never")]

    execution = agents.start(waits, start_at=agents.now + timedelta(days=1))
    agents.run()
    assert execution.steps() == ()
    agents.advance(timedelta(days=1))
    assert execution.state is AgentState.WAITING
    execution.send_event("paid", 30)
    agents.advance(timedelta(days=2) - timedelta(microseconds=1))
    assert execution.steps() == ()
    agents.advance(timedelta(microseconds=1))
    assert len(execution.steps()) == 2
    agents.advance(timedelta(days=7))
    assert execution.wait() == [30, "never"]


def test_what_falls_due_on_the_way_happens_at_its_time_and_in_order(agents: LocalAgents) -> None:
    happened: list[tuple[str, datetime]] = []

    def note(name: str) -> None:
        happened.append((name, agents.now))

    @agent(registry=Registry())
    def ticks(run: Run, days: int) -> None:
        for n in range(3):
            run.sleep(timedelta(days=days))
            run.step("tick", note, f"{days}:{n}")

    agents.start(ticks, 2)
    agents.start(ticks, 3)
    begin = agents.now
    agents.advance(timedelta(weeks=3))
    assert [(name, (at - begin).days) for name, at in happened] == [
        ("2:0", 2),
        ("3:0", 3),
        ("2:1", 4),
        ("2:2", 6),
        ("3:1", 6),
        ("3:2", 9),
    ]
    assert agents.now == begin + timedelta(weeks=3)


def test_short_waits_pass_by_themselves_and_long_retries_do_not(agents: LocalAgents) -> None:
    tries: list[datetime] = []

    @tool(registry=Registry(), retries=9, first_delay=timedelta(seconds=1), max_delay=timedelta(minutes=1))
    def flaky() -> int:
        tries.append(agents.now)
        if len(tries) < 6:
            raise OSError("busy")
        return len(tries)

    @agent(registry=Registry())
    def work(run: Run, _: None) -> int:
        run.sleep(5)
        return run.tool(flaky)

    execution = agents.start(work).run()
    assert execution.state is AgentState.WAITING
    assert tries[0] - datetime(2026, 1, 1, tzinfo=UTC) == timedelta(seconds=5)
    assert 1 < len(tries) < 6
    agents.advance(timedelta(minutes=5))
    assert execution.wait() == 6


def test_a_deadline_passes(agents: LocalAgents) -> None:
    @agent(registry=Registry())
    def slow(run: Run, _: None) -> None:
        run.wait_for("never")

    execution = agents.start(slow, deadline=timedelta(days=1))
    agents.advance(timedelta(days=1) - timedelta(seconds=1))
    assert execution.state is AgentState.WAITING
    agents.advance(timedelta(seconds=1))
    with pytest.raises(ExecutionFailed, match="DeadlineExceeded"):
        execution.wait()


# -- children, cancel --------------------------------------------------------------------------------------------------


def test_children_run_in_order_and_cancel_reaches_them(agents: LocalAgents, registry: Registry) -> None:
    order: list[int] = []

    @agent(registry=registry)
    def child(run: Run, n: int) -> int:
        run.step("work", order.append, n)
        if n == 2:
            run.ask("Go on?")
        return n * n

    @agent(registry=registry)
    def parent(run: Run, n: int) -> list[int]:
        return run.gather(*[run.spawn("child", k) for k in range(n)])

    execution = agents.start(parent, 2)
    assert execution.wait() == [0, 1]
    assert [child.state for child in execution.children] == [AgentState.COMPLETED] * 2

    stuck = agents.start("parent", 4).run()
    assert order == [0, 1, 0, 1, 2, 3]
    assert stuck.state is AgentState.WAITING
    assert stuck.cancel(reason="enough")
    agents.run()
    assert [child.state for child in stuck.children] == [
        AgentState.COMPLETED,
        AgentState.COMPLETED,
        AgentState.CANCELLED,
        AgentState.COMPLETED,
    ]
    with pytest.raises(ExecutionCancelled):
        stuck.wait()


def test_a_cancel_from_inside_a_step_ends_the_execution_at_the_next_one(agents: LocalAgents, calls: Calls) -> None:
    @agent(registry=Registry())
    def work(run: Run, _: None) -> None:
        run.step("one", lambda: agents.get(run.execution_id).cancel())
        run.step("two", calls, 2)

    execution = agents.start(work).run()
    assert execution.state is AgentState.CANCELLED
    assert calls.made == []


def test_an_agent_that_nobody_registered_is_named(agents: LocalAgents) -> None:
    @agent(registry=Registry())
    def lost(run: Run, _: None) -> None: ...

    @agent(registry=Registry())
    def parent(run: Run, _: None) -> None:
        run.spawn(lost)

    agents.start(parent)
    with pytest.raises(UnknownAgent, match="lost"):
        agents.run()
    with pytest.raises(UnknownAgent, match="nobody"):
        agents.start("nobody")


# -- crashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["retry", "ask", "fail", "reconcile"])
@pytest.mark.parametrize("when", list(When))
def test_a_crash_at_each_moment_of_a_call_does_what_its_policy_promises(
    agents: LocalAgents, calls: Calls, policy: Any, when: When
) -> None:
    @tool(
        registry=Registry(),
        on_crash=(lambda amount: Happened("found") if calls.made and amount else None)
        if policy == "reconcile"
        else policy,
    )
    def pay(amount: int) -> str:
        calls(amount)
        return "paid"

    @agent(registry=Registry())
    def buy(run: Run, amount: int) -> str:
        return run.tool(pay, amount)

    crash = agents.crash_at("pay", when)
    execution = agents.start(buy, 30).run()
    assert crash.happened == 1
    assert not execution.state.is_over
    before = len(calls.made)
    assert before == (1 if when in (When.BEFORE_CHECKPOINT, When.AFTER_CHECKPOINT) else 0)
    assert execution.context().owner is None
    execution.run()
    assert execution.context().attempt == 2

    is_open = policy != "retry" and when in (When.AFTER_INTENT, When.BEFORE_CHECKPOINT)
    if is_open and policy == "ask":
        assert execution.state is AgentState.WAITING_FOR_INPUT
        execution.resume({"output": "said"})
        assert execution.wait() == "said"
        assert len(calls.made) == before
    elif is_open and policy == "fail":
        with pytest.raises(ExecutionFailed, match="StepInterrupted"):
            execution.wait()
        assert len(calls.made) == before
    elif policy == "reconcile" and when is When.BEFORE_CHECKPOINT:
        assert execution.wait() == "found"
        assert len(calls.made) == 1
    else:
        assert execution.wait() == "paid"
        assert len(calls.made) == (2 if (policy, when) == ("retry", When.BEFORE_CHECKPOINT) else 1)


def test_a_function_may_die_inside_its_effect_and_the_dead_do_nothing_more(agents: LocalAgents, calls: Calls) -> None:
    @agent(registry=Registry())
    def work(run: Run, _: None) -> str:
        run.step("one", calls, 1)
        try:
            run.step("two", dies)
        except BaseException:  # noqa: BLE001 - a careless agent
            run.step("cleanup", calls, "cleanup")
        return "end"

    def dies() -> str:
        if len(calls(2) and calls.made) < 3:
            raise Crash
        return "two"

    execution = agents.start(work).run()
    assert not execution.state.is_over
    assert [step.name for step in execution.steps()] == ["one"]
    assert execution.wait() == "end"
    assert calls.made == [1, 2, 2]


def test_what_dies_at_every_attempt_becomes_a_dead_letter(agents: LocalAgents) -> None:
    @agent(registry=Registry(), max_attempts=3)
    def work(run: Run, _: None) -> None:
        run.step("bad", lambda: None)

    crash = agents.crash_at("bad", When.BEFORE_CHECKPOINT, times=99)
    execution = agents.start(work)
    for _ in range(3):
        with pytest.raises(TimeoutError, match="has died"):
            execution.wait()
    with pytest.raises(ExecutionFailed, match="DeadLetter"):
        execution.wait()
    assert crash.happened == 3


@pytest.mark.parametrize("when", list(When))
def test_a_crash_around_a_spawn_starts_one_child(agents: LocalAgents, registry: Registry, when: When) -> None:
    @agent(registry=registry)
    def child(run: Run, n: int) -> int:
        return n

    @agent(registry=registry)
    def parent(run: Run, _: None) -> list[int]:
        return run.gather(run.spawn(child, 1, name="a/b"), run.spawn(child, 2, name="a/b"))

    crash = agents.crash_at("a/b#2", when)
    execution = agents.start(parent).run()
    assert crash.happened == 1
    assert execution.wait() == [1, 2]
    assert len(agents.store.find(Query(agent_id="child")).items) == 2


@pytest.mark.parametrize("when", list(When))
def test_a_crash_around_a_question_does_not_lose_the_answer(agents: LocalAgents, when: When) -> None:
    @agent(registry=Registry())
    def ask(run: Run, _: None) -> str:
        return str(run.ask("Name?"))

    crash = agents.crash_at("ask", when)
    execution = agents.start(ask)
    for _ in range(2):
        execution.run()
    execution.resume("Ada")
    for _ in range(2):
        execution.run()
    assert crash.happened == 1
    assert execution.wait() == "Ada"


def test_a_crash_of_one_execution_leaves_the_others_alone(agents: LocalAgents, calls: Calls) -> None:
    @agent(registry=Registry())
    def work(run: Run, n: int) -> None:
        run.step("one", calls, n)

    first, second = agents.start(work, 1), agents.start(work, 2)
    agents.crash_at("one", When.AFTER_CHECKPOINT, execution=second)
    agents.run()
    assert (first.state, second.state) == (AgentState.COMPLETED, AgentState.THINKING)
    agents.advance(timedelta(0))
    assert second.state is AgentState.COMPLETED
    assert calls.made == [1, 2]


@pytest.mark.parametrize("is_async", [False, True])
def test_of_parallel_steps_those_that_were_recorded_before_the_crash_are_not_repeated(
    agents: LocalAgents, calls: Calls, is_async: bool
) -> None:
    recorded = threading.Event()

    def slow() -> str:
        assert recorded.wait(10)
        return str(calls("slow"))

    def quick() -> str:
        return str(calls("quick"))

    @agent(registry=Registry())
    def work(run: Run, _: None) -> Any:
        return run.parallel({"slow": slow, "quick": quick})

    async def work_async(run: AsyncRun, _: None) -> Any:
        return await run.parallel({"slow": slow, "quick": quick})

    def tell() -> None:
        while True:
            if any(step.name == "quick" for step in execution.steps()):
                recorded.set()
                return
            threading.Event().wait(0.005)

    crash = agents.crash_at("slow", When.BEFORE_CHECKPOINT)
    execution = agents.start(agent(registry=Registry(), name="work")(work_async) if is_async else work)
    watcher = threading.Thread(target=tell)
    watcher.start()
    execution.run()
    watcher.join()
    assert crash.happened == 1
    assert [step.name for step in execution.steps()] == ["quick"]
    assert execution.wait() == {"slow": "slow", "quick": "quick"}
    assert sorted(calls.made) == ["quick", "slow", "slow"]


@pytest.mark.parametrize("is_async", [False, True])
def test_what_runs_beside_a_step_that_dies_has_its_effect_and_records_nothing(
    agents: LocalAgents, calls: Calls, is_async: bool
) -> None:
    begun = threading.Event()

    def dies() -> None:
        assert begun.wait(10)

    def late() -> None:
        begun.set()
        while not crash.happened:
            threading.Event().wait(0.005)
        threading.Event().wait(0.05)  # by now the agent's code is being unwound
        calls("late")

    @agent(registry=Registry())
    def work(run: Run, _: None) -> Any:
        return run.parallel({"dies": dies, "late": late})

    async def work_async(run: AsyncRun, _: None) -> Any:
        return await run.parallel({"dies": dies, "late": late})

    crash = agents.crash_at("dies", When.BEFORE_CHECKPOINT)
    execution = agents.start(agent(registry=Registry(), name="work")(work_async) if is_async else work).run()
    assert calls.made == ["late"]
    assert execution.steps() == ()
    assert execution.wait() == {"dies": None, "late": None}
    assert calls.made == ["late", "late"]


# -- async, replacing, stores ------------------------------------------------------------------------------------------


def test_async_agents_run_the_same_way(agents: LocalAgents, registry: Registry, calls: Calls) -> None:
    @agent(registry=registry)
    async def child(run: AsyncRun, n: int) -> int:
        await run.sleep(timedelta(days=1))
        return n

    @agent(registry=registry)
    async def work(run: AsyncRun, _: None) -> Any:
        both = await asyncio.gather(run.step("a", fetch, 1), run.step("b", fetch, 2))
        children = await run.gather(await run.spawn(child, 3))
        return [*both, *children, await run.ask("Go on?")]

    async def fetch(n: int) -> int:
        await asyncio.sleep(0)
        return int(calls(n))

    crash = agents.crash_at("join spawn", When.BEFORE_CHECKPOINT)
    execution = agents.start(work)
    agents.advance(timedelta(days=1))
    assert crash.happened == 1
    execution.resume("yes")
    assert execution.wait() == [1, 2, 3, "yes"]
    assert sorted(calls.made) == [1, 2]


@dataclass
class Quote:
    text: str
    price: int


def fetch_quote(name: str) -> Quote:
    raise AssertionError("the real one is not to be called")


def test_functions_and_tools_are_replaced_and_keep_their_types_and_checks(agents: LocalAgents) -> None:
    @tool(registry=Registry(), retries=1, first_delay=timedelta(seconds=1))
    async def price(quote: str, days: int = 1) -> int:
        raise AssertionError("the real one is not to be called")

    @agent(registry=Registry())
    def work(run: Run, name: str) -> Any:
        quote = run.step("quote", fetch_quote, name)
        return [quote.text, quote.price, run.tool(price, quote=quote.text), run.step("again", price, "b", days=2)]

    tries: list[tuple[str, int]] = []

    def fake_price(quote: str, days: int) -> int:
        tries.append((quote, days))
        if len(tries) == 1:
            raise OSError("busy")
        return 5 * days

    agents.replace("quote", lambda name: Quote(name.upper(), 3))
    agents.replace(price, fake_price)
    assert agents.start(work, "a").wait() == ["A", 3, 5, 10]
    assert tries == [("A", 1), ("A", 1), ("b", 2)]

    agents.replace("quote", lambda _: "not a quote")
    with pytest.raises(ExecutionFailed, match="quote"):
        agents.start(work, "a").wait()


def test_transactions_work_on_a_store_that_has_them(tmp_path: Path) -> None:
    clock = ManualClock()
    with SQLStore(f"sqlite:///{tmp_path}/t.db", clock=clock) as store:
        agents = LocalAgents(store=store, clock=clock)

        @agent(registry=Registry())
        def book(run: Run, seat: str) -> int:
            run.sleep(timedelta(days=1))
            return run.transaction("book", insert, seat)

        def insert(connection: Connection, seat: str) -> int:
            connection.execute(text("CREATE TABLE IF NOT EXISTS seats (seat TEXT)"))
            connection.execute(text("INSERT INTO seats VALUES (:seat)"), {"seat": seat})
            return int(connection.execute(text("SELECT count(*) FROM seats")).scalar_one())

        crashes = [agents.crash_at("book", when) for when in When]
        execution = agents.start(book, "1A")
        agents.advance(timedelta(days=1))
        assert [crash.happened for crash in crashes] == [1, 1, 1, 1]
        assert execution.wait() == 1
    with pytest.raises(ValueError, match="clock"):
        LocalAgents(store=store)


def test_a_step_cannot_run_executions(agents: LocalAgents) -> None:
    @agent(registry=Registry())
    def work(run: Run, _: None) -> None:
        agents.start(work)
        run.step("wrong", agents.run)

    with pytest.raises(ExecutionFailed, match="running already"):
        agents.start(work).wait()


def test_two_instances_share_nothing() -> None:
    @agent(registry=Registry())
    def work(run: Run, _: None) -> str:
        return "done"

    one, other = LocalAgents(), LocalAgents()
    one.crash_at("x", When.BEFORE_INTENT)
    execution = one.start(work)
    other.run()
    other.advance(timedelta(days=1))
    assert execution.state is AgentState.IDLE
    assert (one.now, other.now - one.now) == (datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1))
    with pytest.raises(ValueError, match="back"):
        other.advance(timedelta(seconds=-1))


class UnderUnittest(unittest.TestCase):
    def test_an_answer(self) -> None:
        @agent(registry=Registry())
        def work(run: Run, _: None) -> str:
            return str(run.ask("Name?"))

        execution = LocalAgents().start(work).run()
        execution.resume("Ada")
        self.assertEqual(execution.wait(), "Ada")  # noqa: PT009 - this is what it is about


def test_it_works_under_unittest() -> None:
    result = unittest.TestResult()
    UnderUnittest("test_an_answer").run(result)
    assert result.wasSuccessful()
    assert result.testsRun == 1


# -- replaying what was recorded ---------------------------------------------------------------------------------------


@pytest.fixture
def old(calls: Calls) -> Any:
    @tool(registry=Registry(), requires_approval=True)
    def pay(amount: int) -> str:
        return f"paid {calls(amount)}"

    @agent(registry=Registry(), name="buy")
    def buy(run: Run, amount: int) -> str:
        run.step("look", calls, "look")
        run.say("assistant", "grüß Gott")
        who = run.ask("Who?")
        run.sleep(timedelta(days=1))
        return f"{who}: {run.tool(pay, amount)}"

    buy.pay = pay  # type: ignore[attr-defined]
    return buy


@pytest.fixture
def recorded(agents: LocalAgents, old: Any) -> Any:
    """An execution of `old` that is over."""
    execution = agents.start(old, 30).run()
    execution.resume("Ädä")
    agents.advance(timedelta(days=1))
    execution.approve()
    execution.run()
    return execution.context()


def test_code_that_has_not_changed_is_led_to_its_end_and_does_nothing(old: Any, recorded: Any, calls: Calls) -> None:
    calls.made.clear()
    replayed = replay(old, recorded)
    assert (replayed.steps, replayed.is_over, replayed.output) == (5, True, "Ädä: paid 30")
    assert calls.made == []


def test_a_replay_reads_what_agents_show_prints(old: Any, recorded: Any) -> None:
    document = json.loads(json.dumps(as_json.of_context(recorded)))
    assert replay(old, document) == replay(old, json.dumps(document)) == replay(old, recorded)
    with pytest.raises(ValueError, match="export it whole"):
        replay(old, as_json.of_context(recorded, steps_limit=2))
    with pytest.raises(ValueError, match="execution_id"):
        replay(old, {"a": 1})
    with pytest.raises(ValueError, match="Expecting value"):
        replay(old, "no JSON")


@pytest.mark.parametrize("steps", range(6))
def test_a_replay_stops_before_the_first_step_that_is_not_recorded(
    old: Any, recorded: Any, calls: Calls, steps: int
) -> None:
    calls.made.clear()
    cut = replace(recorded, steps=recorded.steps[:steps], step_count=steps, state=AgentState.THINKING, output=None)
    replayed = replay(old, cut)
    assert replayed.steps == steps
    assert replayed.stopped_at == ["look", "ask", "sleep", "approve pay", "pay", None][steps]
    assert calls.made == []


def test_a_replay_names_the_step_where_changed_code_contradicts_the_record(old: Any, recorded: Any) -> None:
    pay = old.pay

    def replayed(function: Any) -> Any:
        return replay(agent(registry=Registry(), name="buy")(function), recorded)

    def renamed(run: Run, amount: int) -> str:
        run.step("look closely", lambda: None)
        return "never comes so far"

    # A new step may be added: it is where the replay ends.
    assert replayed(renamed).stopped_at == "look closely"

    def other_kind(run: Run, amount: int) -> str:
        run.step("look", lambda: None)
        run.step("ask", lambda: None)
        return ""

    with pytest.raises(JournalMismatch, match="ask"):
        replayed(other_kind)

    def other_arguments(run: Run, amount: int) -> str:
        run.step("look", lambda: None)
        run.ask("Who?")
        run.sleep(timedelta(days=1))
        return str(run.tool(pay, amount + 1))

    with pytest.raises(JournalMismatch, match="approve pay"):
        replayed(other_arguments)

    def left_out(run: Run, amount: int) -> str:
        run.step("look", lambda: None)
        return "short"

    with pytest.raises(JournalMismatch, match="never came to it"):
        replayed(left_out)

    def other_type(run: Run, amount: int) -> str:
        def look() -> int:
            return 1

        run.step("look", look)
        return ""

    with pytest.raises(JournalMismatch, match="look"):
        replayed(other_type)

    def swallows(run: Run, amount: int) -> str:
        run.step("look", lambda: None)
        try:
            run.sleep(1, name="ask")
        except Exception:  # noqa: BLE001 - a careless agent
            run.step("something else", lambda: None)
        return ""

    with pytest.raises(JournalMismatch, match="ask"):
        replayed(swallows)

    def swallows_and_fails(run: Run, amount: int) -> str:
        run.step("look", lambda: None)
        try:
            run.sleep(1, name="ask")
        finally:
            raise KeyError("oops")

    with pytest.raises(JournalMismatch, match="ask"):
        replayed(swallows_and_fails)

    def broken(run: Run, amount: int) -> str:
        raise KeyError("oops")

    with pytest.raises(KeyError):
        replayed(broken)


def test_an_execution_that_waits_for_an_approval_is_held_against_what_was_shown(
    agents: LocalAgents, old: Any, calls: Calls
) -> None:
    execution = agents.start(old, 30).run()
    execution.resume("Ada")
    agents.advance(timedelta(days=1))
    context = execution.context()
    assert context.waiting is not None
    assert replay(old, context).stopped_at == "approve pay"

    @agent(registry=Registry(), name="buy")
    def changed(run: Run, amount: int) -> str:
        run.step("look", calls, "look")
        run.ask("Who?")
        run.sleep(timedelta(days=1))
        return str(run.tool(old.pay, amount * 2))

    with pytest.raises(JournalMismatch, match="was shown"):
        replay(changed, context)


def test_an_answer_that_is_still_in_the_mailbox_is_not_taken(agents: LocalAgents, old: Any) -> None:
    execution = agents.start(old, 30).run()
    execution.resume("Ada")
    assert replay(old, execution.context()).stopped_at == "ask"


def test_a_recorded_failure_is_expected_and_another_one_is_not(agents: LocalAgents) -> None:
    @agent(registry=Registry(), name="work")
    def fails(run: Run, _: None) -> None:
        run.step("bad", lambda: [][1])

    execution = agents.start(fails).run()
    assert isinstance(replay(fails, execution.context()).error, IndexError)

    @agent(registry=Registry(), name="work")
    def fails_otherwise(run: Run, _: None) -> None:
        try:
            run.step("bad", lambda: [][1])
        except IndexError:
            raise KeyError("x") from None

    with pytest.raises(KeyError):
        replay(fails_otherwise, execution.context())


def test_async_agents_children_events_and_parallel_steps_are_replayed(
    agents: LocalAgents, registry: Registry, calls: Calls
) -> None:
    @agent(registry=registry)
    def child(run: Run, n: int) -> int:
        return n

    @agent(registry=registry)
    async def work(run: AsyncRun, _: None) -> Any:
        both = await asyncio.gather(run.step("a", calls, 1), run.step("b", calls, 2))
        first = await run.spawn(child, 3)
        event = await run.wait_for("go", timeout=timedelta(days=1), default="late")
        return [*both, event, *await run.gather(first)]

    execution = agents.start(work).run()
    assert replay(work, execution.context()).stopped_at == "event go"
    agents.advance(timedelta(days=2))
    calls.made.clear()
    assert replay(work, execution.context()).output == execution.wait() == [1, 2, "late", 3]
    for count in range(6):
        context = execution.context()
        cut = replace(context, steps=context.steps[:count], step_count=count, output=None, state=AgentState.THINKING)
        assert not replay(work, cut).is_over or count == 5
    assert calls.made == []
