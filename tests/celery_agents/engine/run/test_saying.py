"""What people say to an execution: it is read once, at a place where every replay finds it again."""

from typing import Any
from uuid import uuid4

import pytest

from agent_statestore import AgentState, Signal, SignalKind
from agent_statestore.errors import ExecutionOver
from agent_statestore.records import SayMode
from celery_agents import AsyncRun, Run
from celery_agents.engine.outcome import Ending
from celery_agents.misuse import NestedStep
from tests.celery_agents.driving import Calls, Crash, Engine
from tests.celery_agents.loop.looping import done


def say(engine: Engine, execution_id: str, text: str, mode: SayMode = SayMode.NEXT_BOUNDARY) -> Signal:
    signal = Signal(signal_id=uuid4().hex, kind=SignalKind.SAY, key=mode, payload=text, sender="ada")
    engine.store.send(execution_id, signal)
    return signal


def texts(run: Run, **options: Any) -> list[str]:
    return [saying.text for saying in run.said(**options)]


def test_each_look_finds_what_came_since_and_a_replay_finds_the_same(engine: Engine) -> None:
    seen: list[list[list[str]]] = []

    def listens(run: Run, input: Any) -> list[Any]:
        found = [texts(run)]
        seen.append(found)
        run.step("one", lambda: say(engine, run.execution_id, "a") and None)
        run.step("two", lambda: say(engine, run.execution_id, "b") and None)
        found.append(texts(run))
        found.append(texts(run))
        run.step("three", lambda: say(engine, run.execution_id, "later", SayMode.NEXT_TURN) and None)
        found.append(texts(run, turn_is_over=False))
        run.ask("?")
        found.append(texts(run))
        (said,) = run.said() or (None,)
        assert said is None
        return found

    execution_id = engine.start(engine.agent(listens))
    engine.execute(execution_id)
    say(engine, execution_id, "while it asks", SayMode.INTERRUPT)
    assert [step.name for step in engine.context(execution_id).steps] == ["one", "two", "#said#2", "three"]
    assert engine.execute(execution_id) is None, "it is asleep: the question is open"
    assert engine.context(execution_id).waits[0].key == "ask"
    engine.answer(execution_id, "yes")
    assert done(engine.execute(execution_id)) == [[], ["a", "b"], [], [], ["later", "while it asks"]]
    assert seen[0] == [[], ["a", "b"], [], []], "the attempt before the answer"
    context = engine.context(execution_id)
    assert [step.name for step in context.steps][4:] == ["ask", "#said#5"]
    assert context.signals == ()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_death_between_the_arrival_and_the_record_neither_loses_nor_doubles_it(
    engine: Engine, calls: Calls, is_async: bool
) -> None:
    dies = [True]

    def once() -> None:
        if dies.pop() if dies else False:
            raise Crash

    def tells(run: Run, input: Any) -> Any:
        run.step("before", calls, "before")
        found = texts(run)
        run.step("dies", once)
        return [found, texts(run)]

    async def tells_too(run: AsyncRun, input: Any) -> Any:
        await run.step("before", calls, "before")
        found = [saying.text for saying in await run.said()]
        await run.step("dies", once)
        return [found, [saying.text for saying in await run.said()]]

    execution_id = engine.start(engine.agent(tells_too if is_async else tells))
    say(engine, execution_id, "a")
    engine.crash(execution_id)
    assert [step.name for step in engine.context(execution_id).steps] == ["before", "#said"]
    say(engine, execution_id, "b")
    assert done(engine.execute(execution_id)) == [["a"], ["b"]]
    assert calls.made == ["before"]


def test_a_death_before_the_record_leaves_it_in_the_mailbox(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def tells(run: Run, input: Any) -> Any:
        return texts(run)

    execution_id = engine.start(engine.agent(tells))
    sent = say(engine, execution_id, "a")
    with monkeypatch.context() as patch:
        patch.setattr(engine.store, "checkpoint", lambda *_: (_ for _ in ()).throw(Crash()))
        engine.crash(execution_id)
    assert [signal.signal_id for signal in engine.context(execution_id).signals] == [sent.signal_id]
    assert done(engine.execute(execution_id)) == ["a"]
    with pytest.raises(ExecutionOver):
        say(engine, execution_id, "too late")


def test_what_came_meanwhile_does_not_lead_the_code_past_what_is_recorded(engine: Engine, calls: Calls) -> None:
    """Were it found at the first look of the next attempt, the code would not come to its first step again."""
    dies = [True]

    def turns(run: Run, input: Any) -> Any:
        if texts(run):
            return "another way"
        run.step("one", calls, 1)
        if dies:
            dies.pop()
            raise Crash
        return texts(run)

    execution_id = engine.start(engine.agent(turns))
    engine.crash(execution_id)
    say(engine, execution_id, "a")
    assert done(engine.execute(execution_id)) == ["a"]
    assert calls.made == [1]


def test_a_look_takes_no_more_than_one_step_can_hold(engine: Engine) -> None:
    engine.store.max_value_bytes = 2000

    def counts(run: Run, input: Any) -> Any:
        looks = [len(run.said())]
        while looks[-1]:
            looks.append(len(run.said()))
        return looks

    execution_id = engine.start(engine.agent(counts))
    for _ in range(7):
        say(engine, execution_id, "x" * 400)
    assert done(engine.execute(execution_id)) == [2, 2, 2, 1, 0]


def test_nobody_looks_inside_of_a_step(engine: Engine) -> None:
    def nested(run: Run, input: Any) -> Any:
        return run.step("one", lambda: len(run.said()))

    outcome = engine.execute(engine.start(engine.agent(nested)))
    assert outcome is not None
    assert outcome.ending is Ending.FAILED
    assert isinstance(outcome.error, NestedStep)


def test_what_nobody_reads_stays(engine: Engine) -> None:
    execution_id = engine.start(engine.agent(lambda run, _: run.step("one", int), name="deaf"))
    say(engine, execution_id, "hello?")
    done(engine.execute(execution_id))
    context = engine.context(execution_id)
    assert (context.state, [signal.payload for signal in context.signals]) == (AgentState.COMPLETED, ["hello?"])
