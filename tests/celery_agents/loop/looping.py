"""Scripted models for loop agents, and what they leave in the store."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agent_statestore import AgentContext
from celery_agents import LoopContext, loop_agent
from celery_agents.engine.outcome import Ending, Outcome
from tests.celery_agents.driving import Engine


class Model:
    """Decides what its script says, one entry per call; an entry that is a function is called for its decision."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.seen: list[LoopContext] = []

    def __call__(self, context: LoopContext) -> Any:
        # What the memory holds at this moment, not later.
        self.seen.append(replace(context, memory=dict(context.memory)))
        decided = self.script[len(self.seen) - 1]
        return decided() if callable(decided) and not isinstance(decided, type) else decided


def start(engine: Engine, decide: Callable[[LoopContext], Any], value: Any = None, **options: Any) -> str:
    """Stores an execution of a loop agent that decides by this function; returns its id."""
    agent = loop_agent(name="looper", registry=engine.registry, **options)(decide)
    return engine.start(agent, value)


def conversation(context: AgentContext) -> list[tuple[str, Any]]:
    """The stored messages."""
    return [(message.role, message.content) for message in context.memory.conversation_history]


def done(outcome: Outcome | None) -> Any:
    """The output of an execution that has completed."""
    assert outcome is not None
    assert outcome.ending is Ending.COMPLETED, outcome.error
    return outcome.output


def check_no_call_is_without_result(context: AgentContext) -> None:
    """Every call of an assistant's message is followed by its results, in order, and nothing stands between."""
    open_calls: list[str] = []
    for role, content in conversation(context):
        if role == "tool":
            assert open_calls, f"a result without a call: {content}"
            assert content["tool_call_id"] == open_calls.pop(0)
            continue
        assert not open_calls, f"{role} comes before the results of {open_calls}"
        if role == "assistant" and isinstance(content, dict):
            open_calls = [call["id"] for call in content["tool_calls"]]
    assert not open_calls, f"calls without results: {open_calls}"
