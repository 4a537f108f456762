"""The loop agent: each action does what it says, and what came of it is told."""

import threading
from datetime import timedelta
from typing import Any

import pydantic
import pytest

from agent_statestore import AgentState, SignalKind, WaitKind
from celery_agents import (
    AskUser,
    Complete,
    LoopContext,
    Respond,
    Think,
    ToolCall,
    UseTool,
    UseTools,
    WaitFor,
    loop_agent,
    tool,
)
from celery_agents.engine.outcome import Ending
from tests.celery_agents.driving import Engine
from tests.celery_agents.loop.looping import Model, conversation, done, start


def test_a_model_thinks_uses_a_tool_and_completes(engine: Engine) -> None:
    @tool(registry=engine.registry)
    def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    model = Model(Think(thought="Let me see."), UseTool(tool="add", arguments={"a": 1}, id="x"), Complete(output=3))
    execution_id = start(engine, model, "1 and 2?", tools=[add])
    assert done(engine.execute(execution_id)) == 3

    context = engine.context(execution_id)
    assert context.state is AgentState.COMPLETED
    assert [step.name for step in context.steps] == ["decide", "decide#2", "add", "decide#3"]
    assert conversation(context) == [
        ("user", "1 and 2?"),
        ("assistant", "Let me see."),
        ("assistant", {"content": None, "tool_calls": [{"id": "x", "name": "add", "arguments": {"a": 1}}]}),
        ("tool", {"tool_call_id": "x", "name": "add", "content": 3}),
    ]
    assert model.seen[2].messages == (
        {"role": "user", "content": "1 and 2?"},
        {"role": "assistant", "content": "Let me see."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "x", "content": "3"},
    )
    (result,) = model.seen[2].results
    assert (result.name, result.success, result.output, result.arguments) == ("add", True, 3, {"a": 1})


def test_the_context_tells_what_a_model_needs(engine: Engine) -> None:
    @tool(registry=engine.registry)
    def find(text: str, limit: int = 3) -> list[str]:
        """Finds texts."""
        return [text] * limit

    model = Model(UseTool(tool="find", arguments='{"text": "x"}'), Complete())
    agent = loop_agent(name="finder", tools=["find"], max_turns=7, registry=engine.registry)(model)
    execution_id = engine.store.create_context(
        agent.name, {"q": 1}, session_id="s", user_id="u", metadata={"m": 1}
    ).execution_id
    done(engine.execute(execution_id))

    first, second = model.seen
    assert (first.input, first.turn, first.max_turns, second.turn) == ({"q": 1}, 1, 7, 2)
    assert (first.execution_id, first.agent_id) == (execution_id, "finder")
    assert (first.session_id, first.user_id, dict(first.metadata)) == ("s", "u", {"m": 1})
    assert first.messages == ({"role": "user", "content": '{"q":1}'},)
    (description,) = first.tools
    function = description.as_function()["function"]
    assert (function["name"], function["description"]) == ("find", "Finds texts.")
    assert function["parameters"]["required"] == ["text"]
    assert function["parameters"]["properties"]["limit"]["default"] == 3


def test_the_schema_of_actions_names_the_tools_and_the_output(engine: Engine) -> None:
    class Answer(pydantic.BaseModel):
        number: int

    find = tool(registry=engine.registry, name="find")(lambda: None)
    model = Model(Complete(output=Answer(number=1)))
    done(engine.execute(start(engine, model, tools=[find], output=Answer)))

    definitions = model.seen[0].action_schema["$defs"]
    assert definitions["UseTool"]["properties"]["tool"] == {"const": "find", "title": "Tool", "type": "string"}
    assert definitions["UseTool"]["required"] == ["action", "tool"]
    assert definitions["Answer"]["required"] == ["number"]


def test_tools_of_one_decision_run_at_once_and_one_failure_spoils_no_other(engine: Engine) -> None:
    together = threading.Barrier(3, timeout=60)

    @tool(registry=engine.registry)
    def meet(name: str) -> str:
        together.wait()
        if name == "b":
            raise KeyError(name)
        return name.upper()

    calls = tuple(ToolCall(tool="meet", arguments={"name": name}) for name in "abc")
    model = Model(UseTools(calls=calls, text="All three."), Complete())
    execution_id = start(engine, model, tools=[meet])
    done(engine.execute(execution_id))

    assistant, *results = conversation(engine.context(execution_id))
    assert assistant[1]["content"] == "All three."
    assert [call["id"] for call in assistant[1]["tool_calls"]] == ["call_1_1", "call_1_2", "call_1_3"]
    assert results == [
        ("tool", {"tool_call_id": "call_1_1", "name": "meet", "content": "A"}),
        ("tool", {"tool_call_id": "call_1_2", "name": "meet", "error": "KeyError: 'b'"}),
        ("tool", {"tool_call_id": "call_1_3", "name": "meet", "content": "C"}),
    ]
    assert model.seen[1].messages[2]["content"] == "Error: KeyError: 'b'"
    assert [result.success for result in model.seen[1].results] == [True, False, True]
    assert model.seen[1].results[1].error_type == "KeyError"


def test_a_result_that_is_no_json_is_told_as_a_failure(engine: Engine) -> None:
    @tool(registry=engine.registry)
    def odd() -> object:
        return threading.Lock()

    model = Model(UseTool(tool="odd"), Complete())
    execution_id = start(engine, model, tools=[odd])
    done(engine.execute(execution_id))
    (result,) = model.seen[1].results
    assert (result.success, result.error_type) == (False, "InvalidResult")


def test_asking_the_user_pauses_with_the_question_in_the_conversation(engine: Engine) -> None:
    model = Model(AskUser(question="Which?", choices=["red", "blue"]), Respond(message="Blue it is."))
    execution_id = start(engine, model)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.PAUSED
    context = engine.context(execution_id)
    assert context.state is AgentState.WAITING_FOR_INPUT
    assert context.waiting is not None
    assert context.waiting.schema == {"enum": ["red", "blue"]}
    assert conversation(context) == [("assistant", "Which?")]

    engine.answer(execution_id, "blue")
    assert done(engine.execute(execution_id)) == "Blue it is."
    assert conversation(engine.context(execution_id)) == [
        ("assistant", "Which?"),
        ("user", "blue"),
        ("assistant", "Blue it is."),
    ]
    assert model.seen[1].results[0].output == "blue"
    assert len(model.seen) == 2


@pytest.mark.parametrize("answered", [False, True], ids=["nobody answers", "an answer that is no choice"])
def test_a_missing_answer_is_told(engine: Engine, answered: bool) -> None:
    model = Model(AskUser(question="Which?", choices=["red", "blue"], timeout_seconds=60), Complete(output="x"))
    execution_id = start(engine, model)
    engine.execute(execution_id)
    if answered:
        engine.answer(execution_id, "green")
        engine.execute(execution_id)  # the person is asked anew
    engine.clock.advance(timedelta(seconds=61))
    assert done(engine.execute(execution_id)) == "x"
    role, content = conversation(engine.context(execution_id))[-1]
    assert role == "system"
    assert "AnswerTimeout" in content
    assert model.seen[1].results[0].error_type == "AnswerTimeout"


def test_a_timer_pauses_and_its_end_is_told(engine: Engine) -> None:
    model = Model(WaitFor(seconds=3600), Complete(output=1))
    execution_id = start(engine, model)
    engine.execute(execution_id)
    context = engine.context(execution_id)
    assert context.state is AgentState.WAITING
    assert context.waiting is not None
    assert context.waiting.kind is WaitKind.TIMER
    engine.clock.advance(timedelta(hours=1, seconds=1))
    assert done(engine.execute(execution_id)) == 1
    assert conversation(engine.context(execution_id)) == [("system", "3600 seconds have passed.")]


@pytest.mark.parametrize("comes", [True, False])
def test_an_event_that_comes_or_not_is_told(engine: Engine, comes: bool) -> None:
    model = Model(WaitFor(event="paid", seconds=60), Complete(output=1))
    execution_id = start(engine, model)
    engine.execute(execution_id)
    if comes:
        engine.send(execution_id, SignalKind.EVENT, "paid", {"amount": 5})
    else:
        engine.clock.advance(timedelta(seconds=61))
    assert done(engine.execute(execution_id)) == 1
    ((_, content),) = conversation(engine.context(execution_id))
    if comes:
        assert content == "Event 'paid' came, with: {\"amount\":5}"
        assert model.seen[1].results[0].output == {"amount": 5}
    else:
        assert content == "Event 'paid' did not come in 60 seconds."


def test_a_note_on_the_way_is_stored_before_the_next_turn(engine: Engine) -> None:
    stored: list[Any] = []

    def decide(context: LoopContext) -> Any:
        stored.append(conversation(engine.context(execution_id)))
        return Respond(message="Working on it.", goes_on=True) if context.turn == 1 else Respond(message="Done.")

    execution_id = start(engine, decide)
    assert done(engine.execute(execution_id)) == "Done."
    assert stored == [[], [("assistant", "Working on it.")]]


def test_a_message_with_the_output_ends_the_conversation(engine: Engine) -> None:
    execution_id = start(engine, Model(Complete(output={"a": 1}, message="There you are.")))
    assert done(engine.execute(execution_id)) == {"a": 1}
    assert conversation(engine.context(execution_id)) == [("assistant", "There you are.")]
