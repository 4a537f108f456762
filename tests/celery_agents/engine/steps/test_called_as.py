"""A step that calls a framework's tool or model is recorded, shown and compared as that."""

from typing import Any

import pytest

from agent_statestore import AgentState
from celery_agents import AsyncRun, CalledAs, JournalMismatch, RegistrationError, Run, tool
from celery_agents.engine.events import EventKind
from tests.celery_agents.driving import Calls, Crash, Engine

REFUND = CalledAs(kind="tool", name="refund", arguments={"order": 7, "amount": 20.5}, title="refund 20.50 EUR")


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_is_recorded_as_the_tool_with_its_arguments(engine: Engine, is_async: bool) -> None:
    def work(run: Run, input: None) -> str:
        run.options(called_as=CalledAs(kind="model", name="gpt-9")).step("ask the model", lambda: "a")
        return run.options(called_as=REFUND).step("framework.call_tool:1", lambda: "done")

    async def async_work(run: AsyncRun, input: None) -> str:
        await run.options(called_as=CalledAs(kind="model", name="gpt-9")).step("ask the model", lambda: "a")
        return await run.options(called_as=REFUND).step("framework.call_tool:1", lambda: "done")

    execution_id = engine.start(engine.agent(async_work if is_async else work))
    engine.execute(execution_id)
    model, refund = engine.context(execution_id).steps
    assert (model.action.kind, model.action.tool, model.action.input) == ("model", "gpt-9", None)
    assert (refund.name, refund.action.kind, refund.action.tool) == ("framework.call_tool:1", "tool", "refund")
    assert (refund.action.input, refund.action.title) == ({"order": 7, "amount": 20.5}, "refund 20.50 EUR")
    told = [(event.state, event.tool) for event in engine.events if event.kind is EventKind.STATE]
    assert told == [(AgentState.THINKING, "gpt-9"), (AgentState.USING_TOOL, "refund")]


def test_a_person_is_asked_about_the_tool_and_not_about_the_step(engine: Engine, calls: Calls) -> None:
    def work(run: Run, input: None) -> Any:
        def call() -> str:
            calls("refunded")
            raise Crash

        return run.options(called_as=REFUND, on_crash="ask").step("framework.call_tool:1", call)

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.execute(execution_id)
    waiting = engine.context(execution_id).waiting
    assert waiting is not None
    assert "refund 20.50 EUR" in waiting.prompt["question"]
    assert (waiting.prompt["tool"], waiting.prompt["input"]) == ("refund", {"order": 7, "amount": 20.5})
    engine.answer(execution_id, {"output": "refunded already"}, waiting.key)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == "refunded already"
    assert calls.made == ["refunded"]


def test_arguments_are_compared_on_a_replay(engine: Engine) -> None:
    calls = {
        "other arguments": CalledAs(kind="tool", name="refund", arguments={"order": 7, "amount": 21}),
        "another tool": CalledAs(kind="tool", name="charge", arguments={"order": 7, "amount": 20.5}),
        "another kind": CalledAs(kind="model", name="refund", arguments={"order": 7, "amount": 20.5}),
        "a plain step": None,
    }
    for what, now in calls.items():
        given: list[CalledAs | None] = [REFUND, now]

        def work(run: Run, input: None) -> None:
            run.options(called_as=given.pop(0)).step("call", int)  # noqa: B023 - executed in this turn of the loop
            if given:  # noqa: B023
                raise Crash

        execution_id = engine.start(engine.agent(work, name=what))
        engine.crash(execution_id)
        outcome = engine.execute(execution_id)
        assert outcome is not None, what
        assert isinstance(outcome.error, JournalMismatch), what


def test_nothing_is_compared_where_nothing_is_recorded(engine: Engine) -> None:
    given = [CalledAs(kind="model", name="m"), CalledAs(kind="model", name="m", arguments={"messages": 2})]

    def work(run: Run, input: None) -> str:
        run.options(called_as=given.pop(0)).step("call", int)
        if given:
            raise Crash
        return "done"

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == "done"


def test_what_cannot_be_recorded_is_not_done(engine: Engine, calls: Calls) -> None:
    wrong: dict[str, Any] = {
        "no JSON": {"arguments": {"a": object()}},
        "no text": {"arguments": {1: 2}},
        "too large": {"arguments": {"a": "x" * 20_000_000}},
    }
    for what, fields in wrong.items():

        def work(run: Run, input: None) -> None:
            called = CalledAs(kind="tool", name="t", **fields)  # noqa: B023 - executed in this turn of the loop
            run.options(called_as=called).step("call", calls, 1)

        outcome = engine.execute(engine.start(engine.agent(work, name=what)))
        assert outcome is not None, what
        assert outcome.error is not None, what
        assert "arguments" in str(outcome.error), what
    assert calls.made == []
    for bad in ({"kind": "ask", "name": "t"}, {"kind": "tool", "name": ""}, {"kind": "tool", "name": None}):
        with pytest.raises(RegistrationError, match="called_as"):
            CalledAs(**bad)  # type: ignore[arg-type]


def test_a_tool_is_recorded_as_what_it_is(engine: Engine) -> None:
    @tool(registry=engine.registry)
    def hammer(nail: int) -> int:
        return nail

    def work(run: Run, input: None) -> None:
        run.options(called_as=REFUND).tool(hammer, 1)

    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    assert isinstance(outcome.error, TypeError)
    assert "'hammer'" in str(outcome.error)
