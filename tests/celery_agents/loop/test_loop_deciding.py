"""What a loop agent decides: read, judged, paid for, limited, and told to the model where it cannot be used."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pydantic
import pytest

from celery_agents import (
    Complete,
    Decision,
    LoopContext,
    Respond,
    Think,
    ToolCall,
    UseTool,
    UseTools,
    action_from_chat,
    tool,
)
from celery_agents.engine.outcome import Ending
from celery_agents.errors import BudgetExceeded, InvalidDecision, MaxTurnsExceeded
from tests.celery_agents.driving import Calls, Crash, Engine
from tests.celery_agents.loop.looping import Model, conversation, done, start


@pytest.mark.parametrize(
    "decided",
    [
        '{"action": "complete", "output": 1}',
        b'{"action": "complete", "output": 1}',
        {"action": "complete", "output": 1},
        Complete(output=1),
        Decision('{"action": "complete", "output": 1}', tokens=1),
    ],
)
def test_an_action_may_come_as_json(engine: Engine, decided: Any) -> None:
    assert done(engine.execute(start(engine, lambda _: decided))) == 1


def test_an_async_function_decides_on_the_event_loop(engine: Engine) -> None:
    async def decide(context: LoopContext) -> Any:
        await asyncio.sleep(0)
        if context.turn == 1:
            return "nonsense" if len(context.messages) < 2 else UseTool(tool="slow")
        return Complete(output=context.results[0].output)

    @tool(registry=engine.registry)
    async def slow() -> str:
        await asyncio.sleep(0)
        return "slowly"

    assert done(engine.execute(start(engine, decide, "go", tools=[slow], timeout=timedelta(seconds=5)))) == "slowly"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@dataclass
class Deep:
    @staticmethod
    def value() -> Any:
        value: Any = 1
        for _ in range(100_000):
            value = [value]
        return value


NONSENSE: list[Any] = [
    None,
    42,
    "",
    "I think we should call add.",
    "[1, 2",
    '{"action": "complete", "output": "\ud800"}',
    {"action": "complete", "output": "\ud800"},
    {"action": "dance"},
    {"tool": "add"},
    {"action": "use_tool"},
    {"action": "use_tool", "tool": "delete_everything"},
    {"action": "use_tool", "tool": "\ud800"},
    {"action": "use_tool", "tool": "add", "arguments": {"a": "many"}},
    {"action": "use_tool", "tool": "add", "arguments": {}},
    {"action": "use_tool", "tool": "add", "arguments": {"a": 1, "c": 2}},
    {"action": "use_tool", "tool": "add", "arguments": "{"},
    {"action": "use_tool", "tool": "add", "arguments": "[1]"},
    {"action": "use_tool", "tool": "add", "arguments": "[" * 100_000},
    {"action": "use_tool", "tool": "add", "args": {"a": 1}},
    {"action": "use_tools", "calls": []},
    {"action": "use_tools", "calls": [{"tool": "add", "arguments": {"a": 1}}, {"tool": "nope"}]},
    {"action": "use_tools", "calls": [{"tool": "add", "arguments": {"a": 1}, "id": "x"}] * 2},
    {"action": "respond", "message": ""},
    {"action": "ask_user", "question": "?", "choices": []},
    {"action": "ask_user", "question": "?", "timeout_seconds": -1},
    {"action": "wait"},
    {"action": "wait", "seconds": 0},
    {"action": "wait", "seconds": float("inf")},
    {"action": "wait", "seconds": 1e30},
    {"action": "wait", "event": ""},
    {"action": "wait", "event": "a#2"},
    {"action": "wait", "event": "e" * 300},
    {"action": "wait", "event": "\x00"},
    {"action": "complete", "output": float("nan")},
    {"action": "complete", "output": "x" * 5_000_000},
    {"action": "complete", "output": Deep.value()},
    Complete(output=Unprintable()),
    Unprintable(),
    object,
]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_told_and_asked_again(engine: Engine, calls: Calls, nonsense: Any) -> None:
    @tool(registry=engine.registry)
    def add(a: int) -> int:
        calls(a)
        return a

    model = Model(nonsense, Complete(output="better"))
    execution_id = start(engine, model, tools=[add])
    assert done(engine.execute(execution_id)) == "better"
    ((role, content),) = conversation(engine.context(execution_id))
    assert role == "system"
    assert content.startswith("This decision cannot be used: ")
    assert calls.made == []
    assert [seen.turn for seen in model.seen] == [1, 1]


def test_nonsense_that_the_function_itself_runs_into_is_told(engine: Engine) -> None:
    def raising(error: Callable[[], Any]) -> Callable[[], Any]:
        return error

    def refuse() -> Any:
        raise InvalidDecision("model", ["it would rather not"])

    model = Model(raising(lambda: UseTool(tool="add", arguments="{")), raising(refuse), Complete(output=1))
    execution_id = start(engine, model)
    assert done(engine.execute(execution_id)) == 1
    told = [content for _, content in conversation(engine.context(execution_id))]
    assert "arguments" in told[0]
    assert "it would rather not" in told[1]


def test_a_fault_of_the_functions_own_fails_the_execution(engine: Engine) -> None:
    class Settings(pydantic.BaseModel):
        key: str

    execution_id = start(engine, lambda _: Settings.model_validate({}))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.FAILED
    assert "Settings" in str(outcome.error)


def test_too_much_nonsense_in_a_row_fails_clearly(engine: Engine) -> None:
    model = Model("a", "b", Think(thought="sense"), "c", "d", "e")
    execution_id = start(engine, model, max_invalid=2)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert isinstance(outcome.error, InvalidDecision)
    assert "Invalid JSON" in str(outcome.error)
    assert len(model.seen) == 6


def test_an_output_has_its_type_or_is_asked_for_again(engine: Engine) -> None:
    class Answer(pydantic.BaseModel):
        number: int
        day: date

    model = Model(
        {"action": "complete", "output": {"number": "many"}},
        Respond(message="42"),
        {"action": "complete", "output": {"number": 42, "day": "2026-01-02"}},
    )
    execution_id = start(engine, model, output=Answer)
    assert done(engine.execute(execution_id)) == {"number": 42, "day": "2026-01-02"}
    told = [content for _, content in conversation(engine.context(execution_id))]
    assert "output: number" in told[0]
    assert "end with complete" in told[1]


def test_usage_is_counted_and_nonsense_is_paid_for_too(engine: Engine) -> None:
    model = Model(
        Decision("nonsense", tokens=10, cost=0.5),
        Decision(Think(thought="x"), tokens=5),
        Decision(Complete(output=1), tokens=100),
    )
    execution_id = start(engine, model, max_tokens=20)
    assert done(engine.execute(execution_id)) == 1  # an answer that is paid for counts
    assert [seen.spent["tokens"] for seen in model.seen] == [0, 10, 15]
    assert model.seen[2].spent["cost"] == 0.5
    spent = [dict(step.spent) for step in engine.context(execution_id).steps if step.name.startswith("decide")]
    assert spent == [{"tokens": 10, "cost": 0.5}, {"tokens": 5}, {"tokens": 100}]


def test_the_usage_in_a_record_of_an_earlier_version_counts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_it_was(verdict: Any) -> Any:
        return {"decision": {"action": "think", "thought": "x"}, "usage": {"tokens": 10}}

    def decide(context: LoopContext) -> Decision:
        if context.turn == 1:
            return Decision(Think(thought="x"), tokens=10)
        if not died:
            died.append(1)
            raise Crash
        return Decision(Complete(output=context.spent["tokens"]), tokens=5)

    died: list[int] = []
    execution_id = start(engine, decide)
    with monkeypatch.context() as older:
        older.setattr("celery_agents.loop.verdicts.spend", lambda **_: None)
        older.setattr("celery_agents.loop.verdicts.Verdict.as_json", as_it_was)
        engine.crash(execution_id)
    assert done(engine.execute(execution_id)) == 10
    assert [dict(step.spent) for step in engine.context(execution_id).steps][-1] == {"tokens": 5}


def test_a_budget_ends_the_loop(engine: Engine) -> None:
    model = Model(*[Decision(Think(thought="x"), tokens=10)] * 5)
    execution_id = start(engine, model, max_tokens=25)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert isinstance(outcome.error, BudgetExceeded)
    assert len(model.seen) == 3


def test_an_answer_in_the_common_chat_format_is_decoded(engine: Engine) -> None:
    add = tool(registry=engine.registry, name="add")(sum_of)
    answers: list[dict[str, Any]] = [
        {"role": "assistant", "content": "", "tool_calls": ["no call"]},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "function": {"name": "add"}}]},
        {
            "role": "assistant",
            "content": "I add.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1,"b":2}'}},
                {"id": "c2", "type": "function", "function": {"name": "add", "arguments": '{"a":3,"b":4}'}},
            ],
        },
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": "3 and 7."},
    ]
    model = Model(*[action_from_chat(answer) for answer in answers])
    execution_id = start(engine, model, "Add!", tools=[add])
    assert done(engine.execute(execution_id)) == "3 and 7."
    assert [seen.turn for seen in model.seen] == [1, 1, 1, 2, 2]
    # What the model said is what it is shown again.
    shown = [message for message in model.seen[3].messages if message["role"] != "system"]
    assert shown == [
        {"role": "user", "content": "Add!"},
        answers[2],
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "tool", "tool_call_id": "c2", "content": "7"},
    ]


def sum_of(a: int, b: int) -> int:
    return a + b


# -- limits ------------------------------------------------------------------------------------------------------------


def test_an_answer_on_the_last_permitted_turn_counts(engine: Engine) -> None:
    model = Model(Think(thought="x"), Think(thought="y"), Complete(output=1))
    assert done(engine.execute(start(engine, model, max_turns=3))) == 1


def test_too_many_turns_fail(engine: Engine) -> None:
    outcome = engine.execute(start(engine, lambda _: Think(thought="x"), max_turns=3))
    assert outcome is not None
    assert isinstance(outcome.error, MaxTurnsExceeded)
    assert str(outcome.error) == "the execution has taken 3 turns, which is its limit (max_turns)"


@pytest.mark.parametrize("more", [2, 0])
def test_a_person_may_permit_more_turns(engine: Engine, more: int) -> None:
    model = Model(Think(thought="x"), Think(thought="y"), Complete(output=1))
    execution_id = start(engine, model, max_turns=1, on_limit="ask")
    engine.execute(execution_id)
    waiting = engine.context(execution_id).waiting
    assert waiting is not None
    assert waiting.prompt["limit"] == "turns"
    engine.answer(execution_id, more, waiting.key)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    if more:
        assert done(outcome) == 1
        assert [seen.max_turns for seen in model.seen] == [1, 3, 3]
    else:
        assert isinstance(outcome.error, MaxTurnsExceeded)


def test_steps_are_limited_too_and_leave_no_call_without_result(engine: Engine) -> None:
    look = tool(registry=engine.registry, name="look")(lambda: 1)
    calls = (ToolCall(tool="look"),) * 5
    execution_id = start(engine, Model(UseTools(calls=calls)), tools=[look], max_steps=3)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert type(outcome.error).__name__ == "MaxStepsExceeded"
    assert conversation(engine.context(execution_id)) == []
