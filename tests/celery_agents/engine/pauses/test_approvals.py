"""Approvals: bound to the exact arguments, given once, recorded; nothing is called that was not shown."""

from datetime import timedelta
from typing import Any

import pydantic
import pytest

from agent_statestore import AgentState, AlreadyAnswered, QuestionNotAsked
from celery_agents import ApprovalDenied, ApprovalExpired, AsyncRun, Run, Tool, tool
from celery_agents.decorators import Agent
from celery_agents.engine.outcome import Ending
from celery_agents.engine.pauses.approval import digest_of
from tests.celery_agents.approving import asked, decide, send
from tests.celery_agents.driving import Calls, Crash, Engine


class Account(pydantic.BaseModel):
    iban: str
    owner: str = "?"


@pytest.fixture
def pay(engine: Engine, calls: Calls) -> Tool[..., str]:
    @tool(registry=engine.registry, requires_approval=True, approval_timeout=timedelta(days=3))
    def pay(to: Account, amount: int = 1) -> str:
        """Moves money."""
        calls((to.iban, to.owner, amount))
        return f"{amount} to {to.owner}"

    return pay


@pytest.fixture
def paying(engine: Engine, pay: Tool[..., str]) -> Agent:
    def work(run: Run, input: None) -> str:
        return run.tool(pay, {"iban": "PL61", "owner": "Łukasz 🦊"}, amount=5)

    return engine.agent(work)


def test_a_call_waits_for_an_approval_of_exactly_what_is_shown(
    engine: Engine, paying: Agent, pay: Tool[..., str], calls: Calls
) -> None:
    execution_id = engine.start(paying)
    waiting = asked(engine, execution_id)
    context = engine.context(execution_id)
    assert context.state is AgentState.WAITING_FOR_APPROVAL
    assert (context.owner, context.lease_expires_at) == (None, None)
    arguments = {"to": {"iban": "PL61", "owner": "Łukasz 🦊"}, "amount": 5}
    assert waiting.key == "approve pay"
    assert waiting.prompt == {
        "tool": "pay",
        "description": "Moves money.",
        "arguments": arguments,
        "digest": digest_of(execution_id, "approve pay", "pay", arguments),
    }
    assert waiting.schema == pay.json_schema
    assert calls.made == []

    decide(engine, execution_id, waiting)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.output == "5 to Łukasz 🦊"
    assert calls.made == [("PL61", "Łukasz 🦊", 5)]
    approval, call = engine.context(execution_id).steps
    assert (approval.name, approval.action.kind, call.name) == ("approve pay", "approval", "pay")
    assert approval.result is not None
    assert approval.result.output == {
        "by": "ada",
        "reason": "looks fine",
        "at": "2026-01-01T00:00:00+00:00",
        "digest": waiting.prompt["digest"],
        "arguments": None,
        "channel": None,
        "os_user": None,
    }


def test_three_weeks_and_a_crash_later_the_approved_call_is_made_once(engine: Engine, calls: Calls) -> None:
    @tool(registry=engine.registry, requires_approval=True)
    def pay(amount: int) -> int:
        calls(amount)
        return amount

    def work(run: Run, input: None) -> int:
        paid = run.tool(pay, 5)
        if run.attempt < 4:
            raise Crash
        return paid

    execution_id = engine.start(engine.agent(work))
    waiting = asked(engine, execution_id)
    engine.clock.advance(timedelta(weeks=3))
    assert engine.execute(execution_id) is None
    decide(engine, execution_id, waiting)
    engine.crash(execution_id)
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == 5
    assert calls.made == [5]


def test_a_crash_between_approval_and_call_asks_nobody_again(engine: Engine, paying: Agent, calls: Calls) -> None:
    execution_id = engine.start(paying)
    decide(engine, execution_id, asked(engine, execution_id))
    checkpoint = engine.store.checkpoint

    def die_after(*args: Any, **kwargs: Any) -> Any:
        checkpoint(*args, **kwargs)
        engine.store.checkpoint = checkpoint  # type: ignore[method-assign]
        raise Crash

    engine.store.checkpoint = die_after  # type: ignore[method-assign]
    engine.crash(execution_id)
    assert calls.made == []
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.COMPLETED
    assert len(calls.made) == 1


def test_edited_arguments_are_what_is_called_and_recorded(engine: Engine, paying: Agent, calls: Calls) -> None:
    execution_id = engine.start(paying)
    waiting = asked(engine, execution_id)
    edited = {"to": {"iban": "DE02", "owner": "Zoë"}, "amount": 3}
    decide(engine, execution_id, waiting, arguments=edited)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "3 to Zoë"
    assert calls.made == [("DE02", "Zoë", 3)]
    approval, call = engine.context(execution_id).steps
    assert approval.result is not None
    assert approval.result.output["arguments"] == edited
    assert call.action.input == edited


def test_edited_arguments_leave_out_what_has_a_default(engine: Engine, paying: Agent, calls: Calls) -> None:
    execution_id = engine.start(paying)
    decide(engine, execution_id, asked(engine, execution_id), arguments={"to": {"iban": "DE02"}})
    engine.execute(execution_id)

    assert calls.made == [("DE02", "?", 1)]


@pytest.mark.parametrize(
    ("edited", "field"),
    [
        ({"to": {"iban": "DE02"}, "amount": "much"}, "amount"),
        ({"to": {"owner": "nobody"}}, "iban"),
        ({}, "to"),
        ({"to": {"iban": "DE02"}, "context": {}}, "context"),
    ],
)
def test_edited_arguments_that_do_not_fit_call_nothing_and_are_asked_for_anew(
    engine: Engine, paying: Agent, calls: Calls, edited: Any, field: str
) -> None:
    execution_id = engine.start(paying)
    decide(engine, execution_id, asked(engine, execution_id), arguments=edited)
    again = asked(engine, execution_id)

    assert again.round == 2
    assert field in str(again.refused)
    assert calls.made == []


@pytest.mark.parametrize("is_async", [False, True])
def test_a_refusal_is_an_error_that_the_agent_may_catch_and_stands(
    engine: Engine, pay: Tool[..., str], calls: Calls, is_async: bool
) -> None:
    seen: list[str] = []

    def told(error: ApprovalDenied) -> str:
        seen.append(str(error))
        if len(seen) == 1:
            raise Crash
        return f"{error.by}: {error.reason}"

    def work(run: Run, input: None) -> str:
        try:
            return run.tool(pay, {"iban": "PL61"})
        except ApprovalDenied as error:
            return told(error)

    async def work_async(run: AsyncRun, input: None) -> str:
        try:
            return str(await run.tool(pay, {"iban": "PL61"}))
        except ApprovalDenied as error:
            return told(error)

    execution_id = engine.start(engine.agent(work_async if is_async else work))
    decide(engine, execution_id, asked(engine, execution_id), approved=False)
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "ada: looks fine"
    assert seen == ["pay was refused by ada: looks fine"] * 2
    assert calls.made == []


def test_an_approval_that_nobody_gives_expires(engine: Engine, paying: Agent, calls: Calls) -> None:
    execution_id = engine.start(paying)
    waiting = asked(engine, execution_id)
    assert waiting.wake_at == waiting.asked_at + timedelta(days=3)
    engine.clock.advance(timedelta(days=3, seconds=1))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert isinstance(outcome.error, ApprovalExpired)
    assert calls.made == []
    with pytest.raises(Exception, match="over"):
        decide(engine, execution_id, waiting)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        True,
        "yes",
        {},
        {"approved": True},
        {"approved": "maybe", "digest": "{digest}"},
        {"approved": True, "digest": "{digest}", "amount": 1},
        {"approved": True, "digest": "{digest}", "arguments": [1]},
        {"approved": True, "digest": "0" * 64},
    ],
)
def test_a_decision_that_slipped_past_the_clients_checks_approves_nothing(
    engine: Engine, paying: Agent, calls: Calls, payload: Any
) -> None:
    execution_id = engine.start(paying)
    waiting = asked(engine, execution_id)
    if isinstance(payload, dict) and payload.get("digest") == "{digest}":
        payload = payload | {"digest": waiting.prompt["digest"]}
    send(engine, execution_id, waiting.key, payload)
    again = asked(engine, execution_id)

    assert (again.key, again.round) == (waiting.key, 2)
    assert again.refused is not None
    assert again.refused.startswith("round 1, the answer of ada: the ")
    assert calls.made == []


def test_an_approval_counts_once(engine: Engine, pay: Tool[..., str], calls: Calls) -> None:
    """The second call is the same, and is asked for again."""

    def work(run: Run, input: None) -> None:
        for _ in range(2):
            run.tool(pay, {"iban": "PL61"}, 5)

    execution_id = engine.start(engine.agent(work))
    first = asked(engine, execution_id)
    decide(engine, execution_id, first)
    with pytest.raises(AlreadyAnswered):
        decide(engine, execution_id, first)
    second = asked(engine, execution_id)
    assert (first.key, second.key) == ("approve pay", "approve pay#2")
    assert first.prompt["digest"] != second.prompt["digest"]
    with pytest.raises(AlreadyAnswered):
        decide(engine, execution_id, first)
    with pytest.raises(QuestionNotAsked):
        send(engine, execution_id, "approve another", {"approved": True, "digest": second.prompt["digest"]})
    assert len(calls.made) == 1
    decide(engine, execution_id, second)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.COMPLETED
    assert len(calls.made) == 2
