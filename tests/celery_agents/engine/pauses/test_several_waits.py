"""Several waits open at the same time: shown together, ended in any order; the first of them or all of them count."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentContext, AgentState, AlreadyAnswered, QuestionNotAsked, SignalKind, WaitKind
from agent_statestore.clock import from_us
from agent_statestore.testing.kit.matrix import cells
from celery_agents import AsyncRun, Finished, Registry, Run, tool, waits
from celery_agents import agent as make_agent
from celery_agents.engine.events import Event, EventKind
from celery_agents.engine.outcome import Ending
from celery_agents.errors import AnswerTimeout, ApprovalDenied
from celery_agents.testing import LocalAgents, replay
from tests.celery_agents.driving import Calls, Crash, Engine

HOUR = timedelta(hours=1)
# A claim takes some moments of its own, by which what it waits for comes later.
AN_HOUR = HOUR + timedelta(minutes=1)


def keys(context: AgentContext) -> list[str]:
    return [wait.key for wait in context.waits]


def decide(engine: Engine, execution_id: str, key: str, *, approved: bool = True) -> None:
    shown = next(wait for wait in engine.context(execution_id).waits if wait.key == key)
    payload = {"approved": approved, "digest": shown.prompt["digest"], "arguments": None}
    engine.send(execution_id, SignalKind.APPROVAL, key, payload)


def send_to(engine: Engine, execution_id: str, key: str) -> None:
    """What ends the wait of this key."""
    if key.startswith("approve"):
        decide(engine, execution_id, key)
    elif key == "e":
        engine.send(execution_id, SignalKind.EVENT, "e", {"n": 7})
    else:
        engine.answer(execution_id, f"to {key}", key)


def all_of(run: Run, input: None) -> Any:
    run.step("before", lambda: 1)
    return run.wait_all(
        waits.question("A?", name="a", schema=str),
        waits.approval("pay", {"amount": 1}),
        waits.event("e"),
        waits.question("B?", name="b"),
    )


async def all_of_async(run: AsyncRun, input: None) -> Any:
    await run.step("before", lambda: 1)
    return await run.wait_all(
        waits.question("A?", name="a", schema=str),
        waits.approval("pay", {"amount": 1}),
        waits.event("e"),
        waits.question("B?", name="b"),
    )


async def gathered(run: AsyncRun, input: None) -> Any:
    await run.step("before", lambda: 1)
    return await asyncio.gather(
        run.ask("A?", name="a", schema=str),
        run.approve("pay", {"amount": 1}),
        run.wait_for("e"),
        run.ask("B?", name="b"),
    )


async def in_a_group(run: AsyncRun, input: None) -> Any:
    await run.step("before", lambda: 1)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(one)
            for one in (
                run.ask("A?", name="a", schema=str),
                run.approve("pay", {"amount": 1}),
                run.wait_for("e"),
                run.ask("B?", name="b"),
            )
        ]
    return [task.result() for task in tasks]


OPEN = ["a", "approve pay", "e", "b"]
RESULTS = ["to a", {"amount": 1}, {"n": 7}, "to b"]


AGENTS = {each.__name__: each for each in (all_of, all_of_async, gathered, in_a_group)}
ORDERS = {", ".join(order): order for order in list(itertools.permutations(OPEN))[::11]}


@cells(function=AGENTS, order=ORDERS)
def test_all_are_open_together_and_end_in_any_order(function: Callable[..., Any], order: tuple[str, ...]) -> None:
    engine = Engine()
    agent = engine.agent(function)
    execution_id = engine.start(agent)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.PAUSED
    assert [wait.key for wait in outcome.waits] == keys(engine.context(execution_id)) == OPEN
    assert outcome.state is engine.context(execution_id).state is AgentState.WAITING_FOR_INPUT
    assert [wait.key for wait in engine.events[-1].waits] == OPEN
    left = list(OPEN)
    for number, key in enumerate(order, start=2):
        send_to(engine, execution_id, key)
        left.remove(key)
        outcome = engine.execute(execution_id)
        context = engine.context(execution_id)
        assert keys(context) == left
        assert context.attempt == number, "one claim for each"
        assert replay(agent, context).is_over is (not left)
    assert outcome is not None
    assert outcome.output == RESULTS
    assert context.signals == ()
    assert context.step_count == 5
    assert replay(agent, context).output == RESULTS


@cells(function=AGENTS)
def test_what_comes_while_it_works_on_another_counts_too(function: Callable[..., Any]) -> None:
    """Between the claim and the next pause the others stay open, and nobody is told that they are not asked."""
    engine = Engine()
    execution_id = engine.start(engine.agent(function))
    engine.execute(execution_id)
    engine.answer(execution_id, "to b", "b")
    sent: list[str] = []

    def beside(event: Event) -> None:
        if event.kind is EventKind.STEP_RECORDED and event.step is not None and event.step.name == "b" and not sent:
            sent.append("a")
            engine.answer(execution_id, "to a", "a")
            with pytest.raises(AlreadyAnswered):
                engine.answer(execution_id, "again", "b")

    engine.subscribers = (beside,)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert (outcome.ring, sent) == (True, ["a"]), "due at once"
    engine.execute(execution_id)
    assert keys(engine.context(execution_id)) == ["approve pay", "e"]


@cells(function=AGENTS, dying={"before": False, "after": True})
def test_one_that_came_stays_answered_across_a_death(function: Callable[..., Any], dying: bool) -> None:
    engine = Engine()
    execution_id = engine.start(engine.agent(function))
    engine.execute(execution_id)
    asked = {wait.key: wait.asked_at for wait in engine.context(execution_id).waits}
    engine.clock.advance(AN_HOUR)
    engine.answer(execution_id, "to b", "b")
    store, checkpoint = engine.store, engine.store.checkpoint

    def die(*args: Any, **kwargs: Any) -> Any:
        if dying:
            checkpoint(*args, **kwargs)
        raise Crash

    store.checkpoint = die  # type: ignore[method-assign]
    engine.crash(execution_id)
    store.checkpoint = checkpoint  # type: ignore[method-assign]
    assert [step.name for step in engine.context(execution_id).steps] == ["before", *(["b"] if dying else [])]
    with pytest.raises(AlreadyAnswered):
        engine.answer(execution_id, "again", "b")
    engine.execute(execution_id)
    left = engine.context(execution_id).waits
    assert {wait.key: wait.asked_at for wait in left} == {key: asked[key] for key in OPEN if key != "b"}
    for key in ("a", "e", "approve pay"):
        send_to(engine, execution_id, key)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == RESULTS


def test_a_single_wait_is_stored_as_ever(engine: Engine) -> None:
    """Whichever way it is waited for: the same wait, and as many writes."""

    def asks(run: Run, input: None) -> Any:
        return run.ask("A?", name="a")

    async def asks_async(run: AsyncRun, input: None) -> Any:
        return await run.ask("A?", name="a")

    def one_of_one(run: Run, input: None) -> Any:
        return run.wait_all(waits.question("A?", name="a"))[0]

    found = []
    for function in (asks, asks_async, one_of_one):
        execution_id = engine.start(engine.agent(function))
        engine.execute(execution_id)
        paused = engine.context(execution_id)
        engine.answer(execution_id, "x", "a")
        engine.execute(execution_id)
        ended = engine.context(execution_id)
        found.append(
            (
                [replace(wait, asked_at=paused.created_at) for wait in paused.waits],
                paused.version,
                ended.version,
                ended.output,
            )
        )
    assert found == [found[0]] * 3
    assert found[0][1:] == (1, 3, "x")


# -- the first of several ----------------------------------------------------------------------------------------------


def any_of(run: Run, input: str | None) -> Any:
    first, result = run.wait_any(
        waits.question("A?", name="a"),
        waits.approval("pay", {"amount": 1}),
        waits.event("e"),
        waits.timer(HOUR, name="t"),
    )
    again = run.wait_for("e", timeout=HOUR, default="none") if input == "again" else None
    return [type(first).__name__, result, again]


async def any_of_async(run: AsyncRun, input: str | None) -> Any:
    first, result = await run.wait_any(
        waits.question("A?", name="a"),
        waits.approval("pay", {"amount": 1}),
        waits.event("e"),
        waits.timer(HOUR, name="t"),
    )
    again = await run.wait_for("e", timeout=HOUR, default="none") if input == "again" else None
    return [type(first).__name__, result, again]


ANY_OF = {each.__name__: each for each in (any_of, any_of_async)}
COMES = {
    "a": ["Question", "to a"],
    "approve pay": ["AskedApproval", {"amount": 1}],
    "e": ["AwaitedEvent", {"n": 7}],
    "t": ["Sleep", None],
}


@cells(function=ANY_OF, first={key: key for key in COMES}, second={key: key for key in COMES})
def test_the_first_wins_and_the_others_are_withdrawn(function: Callable[..., Any], first: str, second: str) -> None:
    """Both have come before it runs again: the mailbox's order decides, and a timer counts by its time."""
    if first == second:
        return
    engine = Engine()
    agent = engine.agent(function)
    execution_id = engine.start(agent, "again")
    engine.execute(execution_id)
    assert keys(engine.context(execution_id)) == list(COMES)
    if first != "t":
        engine.clock.advance(timedelta(minutes=1))
        send_to(engine, execution_id, first)
    engine.clock.advance(AN_HOUR)
    if second != "t":
        engine.clock.advance(timedelta(minutes=1))
        send_to(engine, execution_id, second)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    context = engine.context(execution_id)
    kept = second == "e"  # an event that nobody waited for is there for the next one
    assert context.state is (AgentState.COMPLETED if kept else AgentState.WAITING)
    assert [step.name for step in context.steps][:2] == [first if first != "e" else "event e", "any"]
    if not kept:
        assert keys(context) == ["e"]
        for kind, key in ((SignalKind.ANSWER, "a"), (SignalKind.APPROVAL, "approve pay")):
            refused = AlreadyAnswered if key in (first, second) else QuestionNotAsked
            with pytest.raises(refused):
                engine.send(execution_id, kind, key, "late")
        engine.clock.advance(2 * AN_HOUR)
        outcome = engine.execute(execution_id)
        assert outcome is not None
    again = {"n": 7} if kept else "none"
    assert outcome.output == [*COMES[first], again]
    context = engine.context(execution_id)
    assert context.signals == ()
    assert replay(agent, context).output == outcome.output


@cells(function=ANY_OF)
def test_at_the_same_instant_what_was_sent_comes_before_what_time_brings(function: Callable[..., Any]) -> None:
    engine = Engine()
    execution_id = engine.start(engine.agent(function))
    engine.execute(execution_id)
    rings_at = engine.context(execution_id).waits[3].wake_at
    assert rings_at is not None
    engine.clock.advance(rings_at - from_us(engine.clock.now_us()))
    send_to(engine, execution_id, "a")
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output[:2] == ["Question", "to a"]


@cells(function=ANY_OF, first={key: key for key in COMES})
def test_the_same_one_wins_after_a_death_whatever_comes_later(function: Callable[..., Any], first: str) -> None:
    die = True

    def dying(run: Run, input: None) -> Any:
        result = any_of(run, input)
        if die:
            raise Crash
        return result

    async def dying_async(run: AsyncRun, input: None) -> Any:
        result = await any_of_async(run, input)
        if die:
            raise Crash
        return result

    engine = Engine()
    execution_id = engine.start(engine.agent(dying if function is any_of else dying_async))
    engine.execute(execution_id)
    if first == "t":
        engine.clock.advance(AN_HOUR)
    else:
        send_to(engine, execution_id, first)
    engine.crash(execution_id)
    assert engine.context(execution_id).waits == (), "the write that recorded it has closed the others"
    engine.clock.advance(AN_HOUR)
    if first != "e":
        engine.send(execution_id, SignalKind.EVENT, "e", "late")
    for kind, key in ((SignalKind.ANSWER, "a"), (SignalKind.APPROVAL, "approve pay")):
        with pytest.raises(AlreadyAnswered if key == first else QuestionNotAsked):
            engine.send(execution_id, kind, key, "late")
    die = False
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output[:2] == COMES[first]


def test_an_answer_of_no_use_wins_nothing_and_leaves_no_open_step(engine: Engine) -> None:
    def races(run: Run, input: None) -> Any:
        first, result = run.wait_any(
            waits.question("How many?", name="a", schema=int), waits.question("Who?", name="b", schema=str)
        )
        return [first.name, result]

    agent = engine.agent(races)
    execution_id = engine.start(agent)
    engine.execute(execution_id)
    engine.answer(execution_id, "no number", "a")
    engine.execute(execution_id)
    asked = engine.context(execution_id).waits
    assert [(wait.key, wait.round, bool(wait.refused)) for wait in asked] == [("a", 2, True), ("b", 1, False)]
    with pytest.raises(AlreadyAnswered):
        engine.answer(execution_id, 1, "a")
    engine.answer(execution_id, "ada", "b")
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == ["b", "ada"]
    context = engine.context(execution_id)
    assert all(step.result is not None for step in context.steps), "who follows it live is not held up"
    assert replay(agent, context).output == ["b", "ada"]


def test_what_comes_first_may_be_an_error(engine: Engine) -> None:
    def races(run: Run, input: None) -> Any:
        try:
            run.wait_any(waits.approval("pay", {"amount": 1}), waits.question("A?", timeout=HOUR))
        except (ApprovalDenied, AnswerTimeout) as error:
            return type(error).__name__

    agent = engine.agent(races)
    denied, late = engine.start(agent), engine.start(agent)
    engine.execute(denied)
    engine.execute(late)
    decide(engine, denied, "approve pay", approved=False)
    engine.clock.advance(AN_HOUR)
    found = [outcome.output for each in (denied, late) if (outcome := engine.execute(each)) is not None]
    assert found == ["ApprovalDenied", "AnswerTimeout"]


def test_who_waits_for_all_gets_the_first_error_when_all_have_ended(engine: Engine) -> None:
    def waits_for_all(run: Run, input: bool) -> Any:
        results = run.wait_all(
            waits.question("A?", name="a"),
            waits.approval("pay", {}),
            waits.question("B?", name="b", timeout=HOUR),
            waits.question("C?", name="c", timeout=2 * HOUR, default="nobody"),
            return_exceptions=input,
        )
        return [one if isinstance(one, str) else type(one).__name__ for one in results]

    agent = engine.agent(waits_for_all)
    for return_exceptions in (True, False):
        execution_id = engine.start(agent, return_exceptions)
        engine.execute(execution_id)
        decide(engine, execution_id, "approve pay", approved=False)
        engine.execute(execution_id)
        engine.clock.advance(AN_HOUR)
        engine.execute(execution_id)
        assert keys(engine.context(execution_id)) == ["a", "c"]
        engine.clock.advance(AN_HOUR)
        engine.execute(execution_id)
        engine.answer(execution_id, "x", "a")
        outcome = engine.execute(execution_id)
        assert outcome is not None
        if return_exceptions:
            assert outcome.output == ["x", "ApprovalDenied", "AnswerTimeout", "nobody"]
        else:
            assert isinstance(outcome.error, ApprovalDenied)


# -- tasks beside each other -------------------------------------------------------------------------------------------


def test_tasks_that_come_to_their_waits_by_different_ways_wait_together(engine: Engine) -> None:
    """Also on a replay, where some are led past more steps than others."""

    async def after_steps(run: AsyncRun, input: None) -> Any:
        async def one(number: int) -> Any:
            for step in range(number):
                await run.step(f"{number}.{step}", lambda: 1)
            first = await run.ask(f"{number}?", name=f"q{number}")
            return [first, await run.ask(f"{number}!", name=f"r{number}")]

        return await asyncio.gather(*(one(number) for number in range(5)))

    agent = engine.agent(after_steps)
    execution_id = engine.start(agent)
    engine.execute(execution_id)
    assert keys(engine.context(execution_id))[:2] == ["q0", "q1"], "of a step that was in flight, too"
    while len(keys(engine.context(execution_id))) < 5:
        engine.clock.advance(AN_HOUR)
        key = keys(engine.context(execution_id))[0]
        engine.answer(execution_id, "x", key)
        engine.execute(execution_id)
        assert key not in keys(engine.context(execution_id))
        assert len(keys(engine.context(execution_id))) > 1
    for _ in range(10):
        engine.clock.advance(AN_HOUR)
        for key in keys(engine.context(execution_id)):
            engine.answer(execution_id, "x", key)
        engine.execute(execution_id)
    final = engine.context(execution_id)
    assert final.output == [["x", "x"]] * 5
    assert replay(agent, final).output == [["x", "x"]] * 5


def test_steps_in_flight_are_recorded_and_the_pause_holds_all_that_wait(engine: Engine) -> None:
    began, may_end = threading.Event(), threading.Event()

    def slow() -> int:
        began.set()
        assert may_end.wait(20)
        return 1

    async def beside(run: AsyncRun, input: None) -> Any:
        async def two() -> Any:
            await run.step("slow", slow)
            return await run.ask("Two?", name="two")

        async def three() -> Any:
            while not began.is_set():
                await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.1, may_end.set)
            return await run.ask("Three?", name="three")

        return await asyncio.gather(run.ask("One?", name="one"), two(), three())

    execution_id = engine.start(engine.agent(beside))
    engine.execute(execution_id)
    context = engine.context(execution_id)
    assert [step.name for step in context.steps] == ["slow"]
    assert keys(context) == ["one", "three", "two"]


def test_a_task_that_gives_up_closes_its_question(engine: Engine) -> None:
    async def first_of(run: AsyncRun, input: None) -> Any:
        asking = asyncio.create_task(run.ask("A?", name="a"))
        other = asyncio.create_task(run.ask("B?", name="b"))
        waiting = asyncio.create_task(run.wait_for("e"))
        done, pending = await asyncio.wait({asking, other, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await run.step("after", lambda: engine.context(execution_id).waits == ())
        return [done.pop().result(), await run.step("closed", lambda: engine.context(execution_id).waits == ())]

    execution_id = engine.start(engine.agent(first_of))
    engine.execute(execution_id)
    assert keys(engine.context(execution_id)) == ["a", "b", "e"]
    engine.answer(execution_id, "to b", "b")
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == ["to b", True]


def test_all_kinds_of_waits_beside_each_other(engine: Engine) -> None:
    looked: list[str] = []

    async def every_kind(run: AsyncRun, input: None) -> Any:
        def poll(job: str) -> Finished | None:
            looked.append(job)
            return Finished("done") if looked.count(job) > 2 else None

        return await asyncio.gather(
            run.ask("A?", name="a"),
            run.sleep(HOUR),
            run.wait_job("job", lambda: "j", poll=poll, every=3 * HOUR),
            run.wait_job("told", lambda: "k", poll=poll, every=30 * HOUR, event="done"),
            run.wait_for("e", timeout=5 * HOUR, default="none"),
        )

    execution_id = engine.start(engine.agent(every_kind))
    engine.execute(execution_id)
    assert sorted(keys(engine.context(execution_id))) == ["a", "done", "e", "job job", "sleep"]
    assert looked == ["j", "k"] or looked == ["k", "j"]
    engine.send(execution_id, SignalKind.EVENT, "done", None)
    engine.execute(execution_id)
    assert looked.count("k") == 2
    assert engine.context(execution_id).signals == (), "one look answers it"
    assert engine.execute(execution_id) is None, "nothing is due"
    for kind, key in ((SignalKind.EVENT, "done"), (SignalKind.ANSWER, "a")):
        engine.send(execution_id, kind, key, "x")
    for _ in range(8):
        engine.clock.advance(AN_HOUR)
        engine.execute(execution_id)
    assert engine.context(execution_id).output == ["x", None, "done", "done", "none"]
    assert (looked.count("j"), looked.count("k")) == (3, 3)


def test_two_tasks_wait_for_events_of_one_name_each_for_its_own(engine: Engine) -> None:
    async def twice(run: AsyncRun, input: None) -> Any:
        return await asyncio.gather(
            run.wait_for("e", timeout=HOUR, default="none"),
            run.wait_for("e", schema=int, timeout=2 * HOUR, default="none"),
            run.ask("A?", name="a"),
        )

    agent = engine.agent(twice)
    execution_id = engine.start(agent)
    engine.execute(execution_id)
    shown = engine.context(execution_id).waits
    assert [wait.key for wait in shown] == ["e", "a"]
    assert shown[0].wake_at == shown[0].asked_at + HOUR
    engine.clock.advance(AN_HOUR)
    engine.execute(execution_id)
    shown = engine.context(execution_id).waits
    assert shown[0].wake_at == shown[0].asked_at + 2 * HOUR, "since it was first waited for"
    engine.send(execution_id, SignalKind.EVENT, "e", 5)
    engine.answer(execution_id, "x", "a")
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == ["none", 5, "x"]


def test_a_race_beside_another_question(engine: Engine) -> None:
    async def beside(run: AsyncRun, input: None) -> Any:
        async def race() -> Any:
            first, result = await run.wait_any(waits.question("A?", name="a"), waits.question("B?", name="b"))
            return [first.name, result, await run.wait_for("e")]

        return await asyncio.gather(race(), run.ask("C?", name="c"))

    execution_id = engine.start(engine.agent(beside))
    engine.execute(execution_id)
    asked = {wait.key: wait.asked_at for wait in engine.context(execution_id).waits}
    assert list(asked) == ["a", "b", "c"]
    engine.clock.advance(AN_HOUR)
    engine.answer(execution_id, "x", "b")
    engine.execute(execution_id)
    left = engine.context(execution_id).waits
    assert [wait.key for wait in left] == ["c", "e"]
    assert left[0].asked_at == asked["c"]
    with pytest.raises(QuestionNotAsked):
        engine.answer(execution_id, "late", "a")
    engine.answer(execution_id, "y", "c")
    engine.execute(execution_id)
    engine.send(execution_id, SignalKind.EVENT, "e", 1)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == [["b", "x", 1], "y"]


def test_interrupted_calls_of_tasks_are_asked_about_beside_what_else_is_open(engine: Engine) -> None:
    calls = Calls()

    @tool(registry=engine.registry, on_crash="ask")
    async def pay(amount: int) -> int:
        calls(amount)
        while len(calls.made) < 2:
            await asyncio.sleep(0)
        if len(calls.made) == 2:
            raise Crash
        return amount

    async def work(run: AsyncRun, input: None) -> Any:
        return await asyncio.gather(run.ask("A?", name="a"), run.step("one", pay, 1), run.step("two", pay, 2))

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.execute(execution_id)
    for _ in range(4):
        for key in keys(engine.context(execution_id)):
            engine.answer(execution_id, {"output": 7} if "interrupted" in key else "x", key)
        engine.execute(execution_id)
    assert engine.context(execution_id).output == ["x", 7, 7]
    assert engine.context(execution_id).attempt <= 5, "one for each at most"


# -- children ----------------------------------------------------------------------------------------------------------


def test_children_are_waited_for_beside_people() -> None:
    registry = Registry()

    @make_agent(registry=registry)
    def child(run: Run, input: str) -> str:
        if input == "slow":
            run.sleep(HOUR)
        return f"{input} child"

    @make_agent(registry=registry)
    def parent(run: Run, input: str) -> Any:
        slow, quick = run.spawn(child, "slow"), run.spawn(child, "quick", name="second")
        if input == "all":
            return run.wait_all(waits.question("A?", name="a"), waits.child(slow), waits.child(quick))
        _, result = run.wait_any(waits.question("A?", name="a"), waits.child(slow), waits.child(quick))
        return [result, run.gather(slow, quick)]

    agents = LocalAgents(registry=registry)
    execution = agents.start(parent, "all").run()
    assert [wait.kind for wait in execution.waits] == [WaitKind.INPUT, WaitKind.CHILD]
    execution.resume("to a")
    execution.run()
    assert [wait.kind for wait in execution.waits] == [WaitKind.CHILD]
    agents.advance(AN_HOUR)
    assert execution.wait() == ["to a", "slow child", "quick child"]
    raced = agents.start(parent, "any").run()
    agents.advance(AN_HOUR)
    assert raced.wait() == ["quick child", ["slow child", "quick child"]]


# -- limits, escalation, many ------------------------------------------------------------------------------------------


def test_a_limits_question_between_keeps_since_when_all_wait(engine: Engine) -> None:
    def waits_for_all(run: Run, input: None) -> Any:
        return run.wait_all(
            waits.question("A?", name="a"),
            waits.question("B?", name="b", timeout=4 * HOUR, default="nobody"),
            waits.event("e", timeout=5 * HOUR, default="none"),
        )

    execution_id = engine.start(engine.agent(waits_for_all, deadline=2 * HOUR, on_limit="ask"))
    engine.execute(execution_id)
    began = {wait.key: wait.asked_at for wait in engine.context(execution_id).waits}
    engine.clock.advance(2 * AN_HOUR)
    engine.execute(execution_id)
    assert keys(engine.context(execution_id)) == ["limit seconds 1"]
    engine.clock.advance(AN_HOUR)
    engine.answer(execution_id, 36_000, "limit seconds 1")
    engine.execute(execution_id)
    assert {wait.key: wait.asked_at for wait in engine.context(execution_id).waits} == began
    engine.clock.advance(AN_HOUR)
    engine.execute(execution_id)
    assert keys(engine.context(execution_id)) == ["a", "e"]


def test_tasks_that_all_come_to_a_limit_ask_once(engine: Engine) -> None:
    async def gathers(run: AsyncRun, input: None) -> Any:
        return await asyncio.gather(
            run.ask("A?", name="a", timeout=4 * HOUR, default="nobody"), run.wait_for("e"), run.ask("B?", name="b")
        )

    execution_id = engine.start(engine.agent(gathers, deadline=2 * HOUR, on_limit="ask"))
    engine.execute(execution_id)
    began = {wait.key: wait.asked_at for wait in engine.context(execution_id).waits}
    engine.clock.advance(2 * AN_HOUR)
    engine.execute(execution_id)
    assert keys(engine.context(execution_id)) == ["limit seconds 1"]
    engine.answer(execution_id, 36_000, "limit seconds 1")
    engine.execute(execution_id)
    assert {wait.key: wait.asked_at for wait in engine.context(execution_id).waits} == began


def test_one_escalates_and_the_others_keep_their_time(engine: Engine) -> None:
    escalated: list[Any] = []

    async def gathers(run: AsyncRun, input: None) -> Any:
        return await asyncio.gather(
            run.ask("A?", name="a", timeout=HOUR, escalate=escalated.append, default="nobody"),
            run.ask("B?", name="b", timeout=3 * HOUR, default="nobody"),
        )

    execution_id = engine.start(engine.agent(gathers))
    engine.execute(execution_id)
    began = {wait.key: wait.asked_at for wait in engine.context(execution_id).waits}
    engine.clock.advance(AN_HOUR)
    engine.execute(execution_id)
    assert escalated == ["A?"]
    assert {wait.key: wait.asked_at - began[wait.key] for wait in engine.context(execution_id).waits} == {
        "a": pytest.approx(AN_HOUR, abs=timedelta(seconds=1)),
        "b": timedelta(0),
    }
    engine.clock.advance(AN_HOUR)
    engine.execute(execution_id)
    assert keys(engine.context(execution_id)) == ["b"]


@cells(function={"sync": "sync", "async": "async"})
def test_a_hundred_at_once(function: str) -> None:
    names = [f"q{number}" for number in range(100)]

    def hundred(run: Run, input: None) -> Any:
        return run.wait_all(*(waits.question(name, name=name) for name in names))

    async def hundred_async(run: AsyncRun, input: None) -> Any:
        return await asyncio.gather(*(run.ask(name, name=name) for name in names))

    engine = Engine()
    execution_id = engine.start(engine.agent(hundred if function == "sync" else hundred_async))
    engine.execute(execution_id)
    assert keys(engine.context(execution_id)) == names
    for name in reversed(names[50:]):
        engine.answer(execution_id, name.upper(), name)
    engine.execute(execution_id)
    assert keys(engine.context(execution_id)) == names[:50]
    for name in names[:50]:
        engine.answer(execution_id, name.upper(), name)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == [name.upper() for name in names]
    assert engine.context(execution_id).attempt == 3


def test_what_is_no_wait_is_refused_at_once(engine: Engine) -> None:
    def wrong(run: Run, input: int) -> Any:
        if input == 0:
            return run.wait_any()
        if input == 1:
            return run.wait_all("a question")  # type: ignore[arg-type]
        return run.wait_all([waits.event("e")])  # type: ignore[arg-type]

    agent = engine.agent(wrong)
    found = []
    for number in range(3):
        outcome = engine.execute(engine.start(agent, number))
        assert outcome is not None
        found.append(type(outcome.error))
    assert found == [ValueError, TypeError, TypeError]
    with pytest.raises(TypeError, match="spawn has returned"):
        waits.child("child")  # type: ignore[arg-type]


# -- forks and rewinds -------------------------------------------------------------------------------------------------


def test_a_fork_takes_the_same_winner_or_asks_all_again() -> None:
    registry = Registry()

    @make_agent(registry=registry)
    def racing(run: Run, input: None) -> Any:
        run.step("before", lambda: 1)
        first, result = run.wait_any(
            waits.question("A?", name="a"), waits.question("B?", name="b"), waits.timer(HOUR, name="t")
        )
        return [first.name, result, run.step("after", lambda: 2)]

    agents = LocalAgents(registry=registry)
    execution = agents.start(racing).run()
    execution.resume("to b", key="b")
    assert execution.wait() == ["b", "to b", 2]
    assert [step.name for step in execution.steps()] == ["before", "b", "any", "after"]
    agents.advance(AN_HOUR)
    for cut in (3, 2):  # after the record of which was first, and between that and its result
        forked = execution.fork(cut).run()
        assert forked.wait() == ["b", "to b", 2], cut
        assert [step.name for step in forked.steps()] == ["before", "b", "any", "after"]
    for again in (execution.fork(1).run(), execution.rewind(1).run()):
        assert [wait.key for wait in again.waits] == ["a", "b", "t"]
        again.resume("to a", key="a")
        assert again.wait() == ["a", "to a", 2]


def test_a_fork_of_who_waits_for_all_asks_for_what_it_lacks() -> None:
    registry = Registry()

    @make_agent(registry=registry)
    async def gathering(run: AsyncRun, input: None) -> Any:
        return await asyncio.gather(run.ask("A?", name="a"), run.ask("B?", name="b"), run.ask("C?", name="c"))

    agents = LocalAgents(registry=registry)
    execution = agents.start(gathering).run()
    for key in ("c", "a", "b"):
        execution.resume(key.upper(), key=key)
        execution.run()
    assert execution.wait() == ["A", "B", "C"]
    forked = execution.fork(1).run()
    assert [wait.key for wait in forked.waits] == ["a", "b"]
    forked.resume("other", key="a")
    forked.resume("B", key="b")
    assert forked.wait() == ["other", "B", "C"]
