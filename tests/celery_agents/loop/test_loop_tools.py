"""The tools of a loop agent: approvals, failures, sizes, and which of them it may use."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, SignalKind
from celery_agents import (
    Agent,
    ApprovalDenied,
    Complete,
    Decision,
    LoopContext,
    Retry,
    Think,
    ToolCall,
    ToolContext,
    UseTool,
    UseTools,
    loop_agent,
    tool,
)
from celery_agents.engine.executor import Defaults
from celery_agents.errors import RegistrationError, UnknownTool
from tests.celery_agents.driving import Calls, Engine
from tests.celery_agents.loop.looping import Model, conversation, done, start


def refunding(engine: Engine, calls: Calls, **options: Any) -> tuple[Model, str]:
    @tool(registry=engine.registry, requires_approval=lambda arguments: arguments["amount"] > 10, **options)
    def refund(amount: int) -> str:
        calls(amount)
        return f"refunded {amount}"

    model = Model(
        UseTools(calls=tuple(ToolCall(tool="refund", arguments={"amount": amount}) for amount in (5, 50, 70))),
        Complete(),
    )
    return model, start(engine, model, tools=[refund])


def decide(engine: Engine, execution_id: str, *, approved: bool, arguments: Any = None) -> None:
    waiting = engine.context(execution_id).waiting
    assert waiting is not None
    payload = {"approved": approved, "digest": waiting.prompt["digest"], "arguments": arguments}
    engine.send(execution_id, SignalKind.APPROVAL, waiting.key, payload)


def test_approvals_come_first_and_may_deny_or_change(engine: Engine, calls: Calls) -> None:
    model, execution_id = refunding(engine, calls)
    engine.execute(execution_id)
    assert engine.context(execution_id).state is AgentState.WAITING_FOR_APPROVAL
    assert conversation(engine.context(execution_id)) == []
    assert calls.made == []
    decide(engine, execution_id, approved=False)
    engine.execute(execution_id)
    assert calls.made == []
    decide(engine, execution_id, approved=True, arguments={"amount": 20})
    done(engine.execute(execution_id))

    assert sorted(calls.made) == [5, 20]
    assert model.seen[1].messages[1:] == (
        {"role": "tool", "tool_call_id": "call_1_1", "content": "refunded 5"},
        {
            "role": "tool",
            "tool_call_id": "call_1_2",
            "content": f"Error: {ApprovalDenied.__name__}: refund was refused",
        },
        {
            "role": "tool",
            "tool_call_id": "call_1_3",
            "content": '(A person changed the arguments to {"amount":20}.) refunded 20',
        },
    )
    assert [result.arguments for result in model.seen[1].results] == [{"amount": 5}, {"amount": 50}, {"amount": 20}]
    assert len(model.seen) == 2


def test_an_approval_that_nobody_gives_in_time_is_told(engine: Engine, calls: Calls) -> None:
    model, execution_id = refunding(engine, calls, approval_timeout=timedelta(hours=1))
    engine.execute(execution_id)
    assert [wait.key for wait in engine.context(execution_id).waits] == ["approve refund#2", "approve refund#3"]
    engine.clock.advance(timedelta(hours=1, seconds=1))  # for both: they were asked for at once
    done(engine.execute(execution_id))
    assert calls.made == [5]
    assert [result.error_type for result in model.seen[1].results] == [None, "ApprovalExpired", "ApprovalExpired"]


def test_a_timeout_of_a_tool_is_told(engine: Engine) -> None:
    @tool(registry=engine.registry, timeout=timedelta(milliseconds=50))
    async def hang() -> None:
        await asyncio.sleep(60)

    model = Model(UseTool(tool="hang"), Complete())
    done(engine.execute(start(engine, model, tools=[hang])))
    assert model.seen[1].results[0].error_type == "StepTimeout"


def test_a_tool_has_its_context_and_only_the_agents_own_tools_may_be_used(engine: Engine) -> None:
    @tool(registry=engine.registry)
    def who(context: ToolContext, greeting: str) -> str:
        return f"{greeting} {context.agent_id}"

    tool(registry=engine.registry, name="forbidden")(lambda: 1)
    model = Model(UseTool(tool="forbidden"), UseTool(tool="who", arguments={"greeting": "Hello"}), Complete())
    execution_id = start(engine, model, tools=["who"])
    done(engine.execute(execution_id))
    assert "there is no tool 'forbidden'; the tools are: who" in conversation(engine.context(execution_id))[0][1]
    assert model.seen[2].results[0].output == "Hello looper"


@pytest.mark.parametrize("size", [4_000_000, 4_193_900])
def test_a_result_that_the_conversation_has_no_room_for_is_told_as_such(engine: Engine, size: int) -> None:
    large = tool(registry=engine.registry, name="large")(lambda: "x" * size)
    model = Model(UseTool(tool="large", id="i" * 500), Complete())
    execution_id = start(engine, model, tools=[large])
    done(engine.execute(execution_id))
    (_, (_, content)) = conversation(engine.context(execution_id))
    assert ("content" in content) == (size == 4_000_000)
    if "error" in content:
        assert "cannot be told" in content["error"]
    assert model.seen[1].results[0].output == "x" * size


def test_unknown_tools_and_wrong_options_are_refused_early(engine: Engine) -> None:
    outcome = engine.execute(start(engine, Model(Complete()), tools=["nope"]))
    assert outcome is not None
    assert isinstance(outcome.error, UnknownTool)
    wrong: Sequence[dict[str, Any]] = (
        {"tools": ["a", "a"]},
        {"max_turns": 0},
        {"max_invalid": -1},
        {"timeout": timedelta(0)},
        {"max_steps": 0},
    )
    for options in wrong:
        with pytest.raises(RegistrationError):
            loop_agent(name="wrong", registry=engine.registry, **options)(lambda _: Complete())
    with pytest.raises(TypeError, match="colour"):
        loop_agent(name="wrong", registry=engine.registry, colour="red")(lambda _: Complete())


def test_it_is_an_agent_with_types(engine: Engine) -> None:
    @loop_agent(input=date, output=datetime, registry=engine.registry, queue="slow", max_steps=10)
    def midnight(context: LoopContext) -> Any:
        """Midnight of a day."""
        return Complete(output=datetime(context.input.year, context.input.month, context.input.day, tzinfo=UTC))

    assert isinstance(midnight, Agent)
    assert (midnight.name, midnight.description) == ("midnight", "Midnight of a day.")
    assert midnight.origin.endswith("test_it_is_an_agent_with_types.<locals>.midnight")
    assert (midnight.queue, midnight.max_steps) == ("slow", 10)
    assert midnight.input_schema == {"format": "date", "type": "string"}
    execution_id = engine.start(midnight, date(2026, 1, 2))
    assert done(engine.execute(execution_id)) == "2026-01-02T00:00:00Z"
    assert conversation(engine.context(execution_id)) == [("user", "2026-01-02")]


def test_working_memory_is_read_and_not_written(engine: Engine) -> None:
    @tool(registry=engine.registry)
    def note(context: ToolContext, text: str) -> None:
        context.memory["note"] = text  # type: ignore[index]

    def decide(context: LoopContext) -> Any:
        if context.turn == 1:
            with pytest.raises(TypeError):
                context.memory["x"] = 1  # type: ignore[index]
            return UseTool(tool="note", arguments={"text": "noted"})
        return Complete(output=dict(context.memory))

    assert done(engine.execute(start(engine, decide, tools=[note]))) == {"note": "noted"}


def test_states_follow_what_is_done(engine: Engine) -> None:
    look = tool(registry=engine.registry, name="look")(lambda: 1)
    model = Model(UseTool(tool="look"), Think(thought="x"), Complete())
    done(engine.execute(start(engine, model, tools=[look])))
    states = [event.state for event in engine.events if event.kind.value == "state"]
    thinking, using = AgentState.THINKING, AgentState.USING_TOOL
    assert states == [thinking, using, thinking, thinking]
    assert engine.events[-1].state is AgentState.COMPLETED


def test_a_failed_model_call_is_tried_again_as_its_policy_says(engine: Engine) -> None:
    failures = iter([OSError("down"), None])

    def decide(context: LoopContext) -> Any:
        failure = next(failures)
        if failure:
            raise failure
        return Complete(output=1)

    engine.limits = Defaults(inline_wait_seconds=1)
    retry = Retry(retries=1, first_delay=timedelta(milliseconds=1))
    execution_id = start(engine, decide, retry=retry)
    assert done(engine.execute(execution_id)) == 1
    assert engine.context(execution_id).steps[0].tries == 2


def test_stored_decisions_read_well(engine: Engine) -> None:
    execution_id = start(engine, Model(Decision(Complete(output=[1]), tokens=3)))
    done(engine.execute(execution_id))
    (step,) = engine.context(execution_id).steps
    assert step.result is not None
    assert json.dumps(step.result.output) == json.dumps({"decision": {"action": "complete", "output": [1]}})
    assert step.spent == {"tokens": 3}
