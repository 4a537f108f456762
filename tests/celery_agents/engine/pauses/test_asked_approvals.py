"""`run.approve`: an approval of a call that is no tool of ours, with all that a tool's has."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from agent_statestore import AgentState, Signal, SignalKind
from celery_agents import ApprovalDenied, ApprovalExpired, AsyncRun, Run
from celery_agents.engine.outcome import Ending
from celery_agents.engine.pauses.approval import digest_of
from tests.celery_agents.approving import asked, decide, send
from tests.celery_agents.driving import Crash, Engine

SCHEMA = {"type": "object", "properties": {"amount": {"type": "integer", "maximum": 100}}, "required": ["amount"]}


def approving(engine: Engine, is_async: bool = False, **options: Any) -> str:
    def work(run: Run, input: None) -> Any:
        return run.approve("refund", {"amount": 20}, description="Pays money back.", schema=SCHEMA, **options)

    async def async_work(run: AsyncRun, input: None) -> Any:
        return await run.approve("refund", {"amount": 20}, description="Pays money back.", schema=SCHEMA, **options)

    name = f"agent-{len(engine.registry.agents)}"
    return engine.start(engine.agent(async_work if is_async else work, name=name))


@pytest.mark.parametrize("is_async", [False, True])
def test_exactly_what_was_shown_is_approved(engine: Engine, is_async: bool) -> None:
    execution_id = approving(engine, is_async)
    waiting = asked(engine, execution_id)
    assert engine.context(execution_id).state is AgentState.WAITING_FOR_APPROVAL
    assert (waiting.key, waiting.schema) == ("approve refund", SCHEMA)
    assert waiting.prompt == {
        "tool": "refund",
        "description": "Pays money back.",
        "arguments": {"amount": 20},
        "digest": digest_of(execution_id, "approve refund", "refund", {"amount": 20}),
    }
    decide(engine, execution_id, waiting)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == {"amount": 20}


def test_edited_arguments_are_returned_and_must_fit_the_schema(engine: Engine) -> None:
    execution_id = approving(engine)
    decide(engine, execution_id, asked(engine, execution_id), arguments={"amount": 1000})
    again = asked(engine, execution_id)
    assert again.round == 2
    assert "1000" in str(again.refused)
    payload = {"approved": True, "digest": again.prompt["digest"], "arguments": {"amount": 5}}
    engine.store.send(
        execution_id,
        Signal(signal_id=uuid4().hex, kind=SignalKind.APPROVAL, key=again.key, payload=payload, round=2),
    )
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == {"amount": 5}


def test_a_refusal_and_a_timeout_are_errors_that_say_what_was_refused(engine: Engine) -> None:
    execution_id = approving(engine)
    decide(engine, execution_id, asked(engine, execution_id), approved=False)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert isinstance(outcome.error, ApprovalDenied)
    assert "refund" in str(outcome.error)

    execution_id = approving(engine, timeout=timedelta(hours=1))
    asked(engine, execution_id)
    engine.clock.advance(timedelta(hours=2))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert isinstance(outcome.error, ApprovalExpired)


def test_an_approval_of_another_call_approves_nothing(engine: Engine) -> None:
    execution_id = approving(engine)
    waiting = asked(engine, execution_id)
    other = digest_of(execution_id, waiting.key, "refund", {"amount": 21})
    send(engine, execution_id, waiting.key, {"approved": True, "digest": other})
    again = asked(engine, execution_id)
    assert again.round == 2


def test_two_of_one_name_are_two_and_a_crash_asks_none_again(engine: Engine) -> None:
    crashes = [True]

    def work(run: Run, input: None) -> Any:
        first = run.approve("refund", {"amount": 1})
        second = run.approve("refund", {"amount": 2})
        if crashes.pop():
            raise Crash
        return [first, second]

    execution_id = engine.start(engine.agent(work))
    first = asked(engine, execution_id)
    decide(engine, execution_id, first)
    second = asked(engine, execution_id)
    assert (first.key, second.key) == ("approve refund", "approve refund#2")
    decide(engine, execution_id, second)
    engine.crash(execution_id)
    crashes.append(False)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.COMPLETED
    assert outcome.output == [{"amount": 1}, {"amount": 2}]


def test_the_name_and_the_tool_may_be_any_text(engine: Engine) -> None:
    def work(run: Run, input: None) -> Any:
        return run.approve("mcp#server: delete " + "x" * 300, {"path": "/"})

    waiting = asked(engine, engine.start(engine.agent(work)))
    assert waiting.key.startswith("approve mcp_server: delete xxx")
    assert waiting.prompt["tool"] == "mcp#server: delete " + "x" * 300


def test_what_cannot_be_shown_is_not_asked(engine: Engine) -> None:
    wrong: dict[str, tuple[Any, Any]] = {
        "no JSON": ("refund", {"amount": object()}),
        "no names": ("refund", [20]),
        "no tool": ("", {"amount": 1}),
        "too large": ("refund", {"text": "x" * 20_000_000}),
    }
    for what, (name, arguments) in wrong.items():

        def work(run: Run, input: None) -> None:
            run.approve(name, arguments)  # noqa: B023 - executed in this turn of the loop

        outcome = engine.execute(engine.start(engine.agent(work, name=what)))
        assert outcome is not None, what
        assert outcome.ending is Ending.FAILED, what
