"""A new execution of a session takes the place of those before it."""

from typing import Any

import pytest

from agent_statestore import AgentState, StoreUnavailable
from celery_agents import Agent, Run, agent, enqueue, enqueue_many
from celery_agents.engine.outcome import Ending
from celery_agents.host.runtime import Runtime
from celery_agents.lifecycle.turns import displacing
from tests.celery_agents.driving import Crash
from tests.celery_agents.lifecycle.turns.lining import Line
from tests.celery_agents.lifecycle.turns.test_turns import asking, ends

POLICIES = ("interrupt", "rollback")
every_policy = pytest.mark.parametrize("policy", POLICIES)


@pytest.fixture
def line() -> Line:
    return Line()


def said(line: Line, session_id: str = "s") -> list[Any]:
    return [message.content for message in line.store.session(session_id).messages()]


def chatting(run: Run, input: str) -> list[Any]:
    """Tell the session what came, and what it answers; then ask."""
    before = [message.content for message in run.session.messages]
    run.session.say("user", input)
    run.step("model", lambda: None)
    run.session.say("assistant", f"{input}!")
    run.step("after", lambda: None)
    if input.startswith("ask"):
        run.ask("?")
    return before


def displaced_by(line: Line, made: Agent, value: str, **fields: Any) -> str:
    """Create an execution as `enqueue` does, which cancels those before it."""
    execution_id = line.begin(made, value, session_id="s", **fields)
    displacing.displace(line.store, made.turns, line.context(execution_id), line._ring)
    return execution_id


@every_policy
def test_those_before_it_are_cancelled_and_it_begins_when_they_are_over(line: Line, policy: str) -> None:
    made = line.agent(chatting, session_policy=policy)
    done = line.begin(made, "first", session_id="s")
    line.execute(done)
    paused = line.begin(made, "ask second", session_id="s")
    assert ends(line.execute(paused)) is Ending.PAUSED
    elsewhere = line.begin(made, "ask", session_id="other")
    line.execute(elsewhere)
    newest = displaced_by(line, made, "third")
    line.rung.append(newest)
    line.answer_bells()
    assert line.context(paused).state is AgentState.CANCELLED
    assert line.context(elsewhere).state is AgentState.WAITING_FOR_INPUT
    context = line.context(newest)
    assert context.state is AgentState.COMPLETED
    stays = ["first", "first!", *(["ask second", "ask second!"] if policy == "interrupt" else [])]
    assert context.output == stays, "what the one before has recorded"
    assert said(line) == [*stays, "third", "third!"]
    (cancel,) = [entry for entry in line.store.get_audit(paused) if entry.event.value == "decided"]
    assert cancel.by == f"execution {newest}"


@every_policy
def test_one_that_works_ends_at_its_next_boundary_and_the_newest_of_several_is_left(line: Line, policy: str) -> None:
    newer: list[str] = []

    def works(run: Run, input: str) -> list[str]:
        run.session.say("user", input)
        if input == "one":
            run.step("meanwhile", lambda: newer.extend(displaced_by(line, made, name) for name in ("two", "three")))
        run.step("after", lambda: None)
        return [message.content for message in run.session.messages]

    made = line.agent(works, session_policy=policy)
    one = line.begin(made, "one", session_id="s")
    assert ends(line.execute(one)) is Ending.CANCELLED
    line.ends.tell_of(one)
    line.rung += newer
    line.answer_bells()
    states = [line.context(each).state for each in (one, *newer)]
    assert states == [AgentState.CANCELLED, AgentState.CANCELLED, AgentState.COMPLETED]
    assert said(line)[-1] == "three"
    assert ("one" in said(line)) == (policy == "interrupt")


@every_policy
def test_a_creator_that_died_before_it_asked_for_the_cancel_is_made_up_for(line: Line, policy: str) -> None:
    made = line.agent(chatting, session_policy=policy)
    paused = line.begin(made, "ask", session_id="s")
    line.execute(paused)
    newest = line.begin(made, "newest", session_id="s")
    assert ends(line.execute(newest)) is Ending.PAUSED, "it has asked for the cancel, and waits for it"
    line.answer_bells()
    assert [line.context(each).state for each in (paused, newest)] == [AgentState.CANCELLED, AgentState.COMPLETED]


def test_a_death_while_it_is_taken_back_leaves_nothing_of_it(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    made = line.agent(chatting, session_policy="rollback")
    first = line.begin(made, "first", session_id="s")
    line.execute(first)
    paused = line.begin(made, "ask", session_id="s")
    line.execute(paused)
    newest = displaced_by(line, made, "newest")
    line.answer_bells()
    with monkeypatch.context() as patch:
        patch.setattr(displacing.Session, "rewind", lambda *_: (_ for _ in ()).throw(Crash()))
        line.crash(newest)
    assert said(line)[-1] == "ask!"
    assert ends(line.execute(newest)) is Ending.COMPLETED
    assert said(line) == ["first", "first!", "newest", "newest!"]


def test_what_was_cancelled_for_another_reason_or_has_ended_stays_said(line: Line) -> None:
    made = line.agent(chatting, session_policy="rollback")
    cancelled = line.begin(made, "ask first", session_id="s")
    line.execute(cancelled)
    line.cancel(cancelled)
    line.execute(cancelled)
    newest = displaced_by(line, made, "newest")
    line.execute(newest)
    assert said(line) == ["ask first", "ask first!", "newest", "newest!"]


def test_a_long_tail_is_taken_back(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displacing, "_FIRST_LOOK", 3)

    def talks(run: Run, input: int) -> Any:
        for number in range(input):
            run.session.say("user", number)
        return run.ask("?")

    made = line.agent(talks, session_policy="rollback")
    for count in (2, 10):
        talking = line.begin(made, count, session_id="s")
        line.execute(talking)
        if count == 2:
            line.answer(talking, 1)
            line.execute(talking)
    newest = displaced_by(line, made, 0)  # type: ignore[arg-type]
    line.answer_bells()
    line.execute(newest)
    assert said(line) == [0, 1]


@every_policy
def test_children_in_the_session_are_not_displaced(line: Line, policy: str) -> None:
    def family(run: Run, input: str) -> Any:
        return run.gather(run.spawn(made, "child", session_id="s"))[0] if input == "parent" else input

    made = line.agent(family, session_policy=policy)
    parent = line.begin(made, "parent", session_id="s")
    line.rung.append(parent)
    line.answer_bells()
    for child in [item.execution_id for item in line.store.find().items if item.parent_execution_id]:
        line.execute(child)
        line.ends.tell_of(child)
    line.execute(parent)
    assert line.context(parent).output == "child"


@every_policy
def test_enqueue_asks_for_the_cancel(runtime: Runtime, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = agent(registry=runtime.registry, session_policy=policy, name="asks")(asking)
    old = enqueue(made, session_id="s", runtime=runtime)
    runtime.executor.execute(old.id, "host/1/0")
    first, last = enqueue_many(made, [1, 2], session_id="s", runtime=runtime)
    asked = [each.summary().cancel_requested for each in (old, first, last)]
    assert asked == [True, True, False]
    with monkeypatch.context() as patch:
        patch.setattr(runtime.store, "send", lambda *_: (_ for _ in ()).throw(StoreUnavailable("x", "away")))
        newest = enqueue(made, session_id="s", runtime=runtime)
    assert not last.summary().cancel_requested, "its worker asks"
    assert newest.summary().state is AgentState.IDLE
