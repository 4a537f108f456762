"""What people say to a loop agent: its model is told before it decides again, and no call is left without a result."""

from typing import Any

import pytest

from agent_statestore import AgentState, SignalKind
from agent_statestore.records import SayMode
from celery_agents import AskUser, Complete, Respond, Think, UseTool, UseTools, WaitFor, loop_agent, tool
from celery_agents.loop.actions import ToolCall
from tests.celery_agents.driving import Calls, Crash, Engine
from tests.celery_agents.loop.looping import Model, check_no_call_is_without_result, conversation, done, start


class Speaker:
    """Somebody who says something while the model decides, or a tool works."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.execution_id = ""

    def says(self, text: str, mode: SayMode, then: Any) -> Any:
        def decide() -> Any:
            self._engine.send(self.execution_id, SignalKind.SAY, mode, text)
            return then

        return decide


@pytest.fixture
def speaker(engine: Engine) -> Speaker:
    return Speaker(engine)


def test_what_was_decided_when_somebody_said_something_is_not_done(
    engine: Engine, speaker: Speaker, calls: Calls
) -> None:
    """Each action: what the model is told in its place, and that it decides again, with the message in view."""

    @tool(registry=engine.registry)
    def pay(to: str) -> None:
        """Pays."""
        calls(to)

    def call(name: str) -> dict[str, Any]:
        return {"id": name, "name": "pay", "arguments": {"to": name}}

    error = "PutOff: it was not called, as the user has said something first"
    expected: list[tuple[Any, list[tuple[str, Any]]]] = [
        (
            UseTool(tool="pay", arguments={"to": "a"}, id="a", text="Paying."),
            [
                ("assistant", {"content": "Paying.", "tool_calls": [call("a")]}),
                ("tool", {"tool_call_id": "a", "name": "pay", "error": error}),
            ],
        ),
        (
            UseTools(calls=[ToolCall(tool="pay", arguments={"to": each}, id=each) for each in "bc"]),
            [
                ("assistant", {"content": None, "tool_calls": [call("b"), call("c")]}),
                ("tool", {"tool_call_id": "b", "name": "pay", "error": error}),
                ("tool", {"tool_call_id": "c", "name": "pay", "error": error}),
            ],
        ),
        (
            AskUser(question="Which?"),
            [("system", "Your question was not asked: the user has said something first. It was: Which?")],
        ),
        (WaitFor(seconds=86_400), [("system", "You did not wait: the user has said something first.")]),
        (
            Complete(output="early", message="Done."),
            [
                ("assistant", "Done."),
                ("system", "You did not end here: the user has said something first."),
            ],
        ),
        (Respond(message="Bye."), [("assistant", "Bye.")]),
    ]
    for action, told in expected:
        model = Model(speaker.says("stop", SayMode.NEXT_BOUNDARY, action), Complete(output="late"))
        # What was put off does not count as a turn.
        agent = loop_agent(name=f"agent {action!r:.60}", registry=engine.registry, tools=[pay], max_turns=1)(model)
        speaker.execution_id = engine.start(agent, "go")
        assert done(engine.execute(speaker.execution_id)) == "late", action
        context = engine.context(speaker.execution_id)
        assert conversation(context) == [("user", "go"), *told, ("user", "stop")], action
        check_no_call_is_without_result(context)
        assert model.seen[1].messages[-1] == {"role": "user", "content": "stop"}, action
    assert calls.made == []


def test_what_is_said_for_the_next_turn_waits_for_the_tools(engine: Engine, speaker: Speaker, calls: Calls) -> None:
    @tool(registry=engine.registry)
    def pay(to: str) -> str:
        """Pays."""
        engine.send(speaker.execution_id, SignalKind.SAY, SayMode.NEXT_BOUNDARY, "in the tool")
        return str(calls(to))

    model = Model(
        speaker.says("too", SayMode.NEXT_TURN, UseTool(tool="pay", arguments={"to": "a"}, id="a")),
        Think(thought="Hm."),
        speaker.says("wait", SayMode.NEXT_TURN, Respond(message="Bye.")),
        Respond(message="Bye again."),
    )
    speaker.execution_id = start(engine, model, "go", tools=[pay])
    assert done(engine.execute(speaker.execution_id)) == "Bye again."
    context = engine.context(speaker.execution_id)
    assert conversation(context)[3:] == [
        ("user", "too"),
        ("user", "in the tool"),
        ("assistant", "Hm."),
        ("assistant", "Bye."),
        ("user", "wait"),
        ("assistant", "Bye again."),
    ]
    assert calls.made == ["a"]
    assert context.signals == ()


def test_a_message_answers_no_question_of_a_loop_agent_and_silences_none(engine: Engine) -> None:
    model = Model(AskUser(question="Which index?"), Complete(output="done"))
    execution_id = start(engine, model)
    engine.execute(execution_id)
    engine.send(execution_id, SignalKind.SAY, SayMode.INTERRUPT, "hurry up")
    assert engine.execute(execution_id) is None
    assert engine.context(execution_id).state is AgentState.WAITING_FOR_INPUT
    engine.answer(execution_id, "EU", "ask")
    assert done(engine.execute(execution_id)) == "done"
    assert conversation(engine.context(execution_id)) == [
        ("assistant", "Which index?"),
        ("user", "EU"),
        ("user", "hurry up"),
    ]


def test_an_approval_stays_open_and_the_message_is_told_after_its_call(engine: Engine, calls: Calls) -> None:
    @tool(registry=engine.registry, requires_approval=True)
    def pay(to: str) -> None:
        """Pays."""
        calls(to)

    model = Model(UseTool(tool="pay", arguments={"to": "a"}, id="a"), Complete(output="done"))
    execution_id = start(engine, model, tools=[pay])
    engine.execute(execution_id)
    engine.send(execution_id, SignalKind.SAY, SayMode.NEXT_BOUNDARY, "and be quick")
    assert engine.execute(execution_id) is None
    (wait,) = engine.context(execution_id).waits
    ruling = {"approved": True, "digest": wait.prompt["digest"], "arguments": None}
    engine.send(execution_id, SignalKind.APPROVAL, wait.key, ruling)
    assert done(engine.execute(execution_id)) == "done"
    assert [role for role, _ in conversation(engine.context(execution_id))] == ["assistant", "tool", "user"]
    assert calls.made == ["a"]


def test_a_replay_puts_off_what_was_put_off(engine: Engine, speaker: Speaker, calls: Calls) -> None:
    @tool(registry=engine.registry)
    def pay(to: str) -> None:
        """Pays."""
        calls(to)

    def dies() -> Any:
        raise Crash

    call = UseTool(tool="pay", arguments={"to": "a"}, id="a")
    model = Model(speaker.says("no", SayMode.NEXT_BOUNDARY, call), dies, Complete(output="done"))
    speaker.execution_id = start(engine, model, tools=[pay])
    engine.crash(speaker.execution_id)
    assert done(engine.execute(speaker.execution_id)) == "done"
    assert calls.made == []
    assert model.seen[1].messages == model.seen[2].messages
    assert [step.name for step in engine.context(speaker.execution_id).steps] == ["decide", "#said#2", "decide#2"]
