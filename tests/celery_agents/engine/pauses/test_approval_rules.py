"""Which calls need an approval, by whatever way they are made, also when rules and arguments change meanwhile."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pydantic
import pytest

from agent_statestore import WaitKind
from celery_agents import ApprovalDenied, AsyncRun, InvalidArguments, Run, Tool, ToolContext, tool
from celery_agents.engine.pauses.approval import digest_of
from celery_agents.errors import JournalMismatch
from tests.celery_agents.approving import asked, decide
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


# -- code that changes meanwhile ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_decided", [False, True])
def test_arguments_that_the_code_changed_since_are_not_called(engine: Engine, calls: Calls, is_decided: bool) -> None:
    amount = 5

    @tool(registry=engine.registry, requires_approval=True)
    def pay(amount: int) -> int:
        calls(amount)
        raise Crash

    def work(run: Run, input: None) -> int:
        return run.tool(pay, amount)

    execution_id = engine.start(engine.agent(work))
    waiting = asked(engine, execution_id)
    decide(engine, execution_id, waiting)
    if is_decided:
        engine.crash(execution_id)
        calls.made.clear()
    amount = 500
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert isinstance(outcome.error, JournalMismatch)
    assert outcome.error.key == "approve pay"
    assert "500" in str(outcome.error)
    assert calls.made == []


def test_a_rule_looks_at_typed_arguments(engine: Engine, calls: Calls) -> None:
    seen: list[Any] = []

    def rule(arguments: dict[str, Any]) -> bool:
        seen.append(arguments)
        return bool(arguments["amount"] > 100)

    @tool(registry=engine.registry, requires_approval=rule)
    def pay(context: ToolContext, to: Account, amount: int = 500) -> int:
        calls(amount)
        return amount

    def work(run: Run, input: None) -> list[int]:
        account: Any = {"iban": "PL61"}
        seven: Any = "7"
        return [run.tool(pay, account, seven), run.tool(pay, account)]

    execution_id = engine.start(engine.agent(work))
    waiting = asked(engine, execution_id)
    assert waiting.prompt["arguments"] == {"to": {"iban": "PL61"}, "amount": 500}
    decide(engine, execution_id, waiting)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [7, 500]
    assert calls.made == [7, 500]
    assert seen[0] == {"to": Account(iban="PL61"), "amount": 7}


def test_calls_that_need_no_approval_before_one_that_does_keep_theirs_apart(engine: Engine, calls: Calls) -> None:
    @tool(registry=engine.registry, requires_approval=lambda arguments: arguments["amount"] > 100)
    def pay(amount: int) -> int:
        calls(amount)
        return amount

    def work(run: Run, input: None) -> list[int]:
        return [run.tool(pay, amount) for amount in (1, 500, 2, 600)]

    execution_id = engine.start(engine.agent(work))
    keys = []
    for _ in range(2):
        waiting = asked(engine, execution_id)
        keys.append((waiting.key, waiting.prompt["arguments"]))
        decide(engine, execution_id, waiting)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [1, 500, 2, 600]
    assert calls.made == [1, 500, 2, 600]
    assert keys == [("approve pay#2", {"amount": 500}), ("approve pay#4", {"amount": 600})]


@pytest.mark.parametrize("rule_then", [True, False])
def test_a_rule_that_changed_since_changes_nothing_that_was_begun(
    engine: Engine, calls: Calls, rule_then: bool
) -> None:
    rule_now = rule_then

    @tool(registry=engine.registry, requires_approval=lambda _: rule_now)
    def pay(amount: int) -> int:
        calls(amount)
        return amount

    def work(run: Run, input: None) -> int:
        paid = run.tool(pay, 5)
        if run.attempt == 1:
            raise Crash
        return paid

    execution_id = engine.start(engine.agent(work))
    if rule_then:
        waiting = asked(engine, execution_id)
        rule_now = False
        decide(engine, execution_id, waiting, approved=False)
        outcome = engine.execute(execution_id)
        assert outcome is not None
        assert isinstance(outcome.error, ApprovalDenied)
        assert calls.made == []
    else:
        engine.crash(execution_id)
        rule_now = True
        outcome = engine.execute(execution_id)
        assert outcome is not None
        assert outcome.output == 5
        assert calls.made == [5]


def test_a_rule_that_raises_calls_nothing(engine: Engine, calls: Calls) -> None:
    def rule(arguments: dict[str, Any]) -> bool:
        raise KeyError("limit")

    pay = tool(registry=engine.registry, name="pay", requires_approval=rule)(calls.__call__)

    def work(run: Run, input: None) -> int:
        return int(run.tool(pay, 5))

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, KeyError)
    assert calls.made == []


def test_arguments_that_do_not_fit_are_shown_to_nobody(engine: Engine, pay: Tool[..., str]) -> None:
    def work(run: Run, input: None) -> None:
        run.tool(pay, {"owner": "no account"})

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, InvalidArguments)


def test_arguments_that_cannot_be_shown_are_called_by_nobody(engine: Engine, calls: Calls) -> None:
    engine.store.max_value_bytes = 2000

    @tool(registry=engine.registry, requires_approval=True)
    def send(text: str) -> None:
        calls(text)

    def work(run: Run, input: None) -> str:
        try:
            run.tool(send, "x" * 3000)
        except ValueError as error:
            return str(error)
        return "sent"

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert "2000" in outcome.output
    assert calls.made == []


# -- ways to call ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        lambda run, pay: run.step("pay", pay, 5),
        lambda run, pay: run.step("pay", partial(pay, 5)),
        lambda run, pay: run.step("pay", partial(partial(pay), amount=5)),
        lambda run, pay: run.parallel([partial(pay, 5)])[0],
        lambda run, pay: run.options(timeout=timedelta(minutes=1)).parallel({"pay": partial(pay, amount=5)})["pay"],
    ],
)
def test_no_way_to_call_a_tool_leads_past_its_approval(
    engine: Engine, calls: Calls, way: Callable[[Run, Tool[..., int]], int]
) -> None:
    @tool(registry=engine.registry, requires_approval=True)
    def pay(amount: int) -> int:
        calls(amount)
        return amount

    def work(run: Run, input: None) -> int:
        return way(run, pay)

    execution_id = engine.start(engine.agent(work))
    waiting = asked(engine, execution_id)
    assert calls.made == []
    decide(engine, execution_id, waiting)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == 5
    assert calls.made == [5]


@pytest.mark.parametrize("is_async", [False, True])
def test_approvals_inside_parallel_are_open_at_once_before_any_call(
    engine: Engine, calls: Calls, is_async: bool
) -> None:
    @tool(registry=engine.registry, requires_approval=True)
    def pay(amount: int) -> int:
        calls(amount)
        return amount

    wanted: dict[str, Any] = {f"pay {amount}": partial(pay, amount) for amount in (1, 2, 3)}
    wanted["plain"] = partial(calls, "plain")

    def outputs(results: dict[str, Any]) -> list[Any]:
        return [type(one).__name__ if isinstance(one, Exception) else one for one in results.values()]

    def work(run: Run, input: None) -> list[Any]:
        return outputs(run.parallel(wanted, return_exceptions=True))

    async def work_async(run: AsyncRun, input: None) -> list[Any]:
        return outputs(await run.parallel(wanted, return_exceptions=True))

    execution_id = engine.start(engine.agent(work_async if is_async else work))
    asked(engine, execution_id)
    first, second, third = engine.context(execution_id).waits
    assert [wait.key for wait in (first, second, third)] == ["approve pay 1", "approve pay 2", "approve pay 3"]
    for waiting, approved, more in (
        (third, True, {"arguments": {"amount": 30}}),
        (first, True, {}),
        (second, False, {}),
    ):
        assert waiting in engine.context(execution_id).waits
        assert calls.made == []
        decide(engine, execution_id, waiting, approved, **more)
        if waiting is not second:
            asked(engine, execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [1, "ApprovalDenied", 30, "plain"]
    assert sorted(map(str, calls.made)) == ["1", "30", "plain"]


def test_approvals_at_once_in_an_async_agent_are_asked_for_one_after_the_other(engine: Engine, calls: Calls) -> None:
    @tool(registry=engine.registry, requires_approval=True)
    async def pay(amount: int) -> int:
        await asyncio.sleep(0)
        calls(amount)
        return amount

    async def work(run: AsyncRun, input: None) -> list[int]:
        return list(await asyncio.gather(*(run.tool(pay, amount) for amount in (1, 2, 3))))

    execution_id = engine.start(engine.agent(work))
    shown = set()
    for _ in range(3):
        waiting = asked(engine, execution_id)
        shown.add((waiting.key, waiting.prompt["arguments"]["amount"]))
        decide(engine, execution_id, waiting)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [1, 2, 3]
    assert sorted(calls.made) == [1, 2, 3]
    assert shown == {("approve pay", 1), ("approve pay#2", 2), ("approve pay#3", 3)}


def test_an_approved_call_keeps_its_crash_policy_and_its_key(engine: Engine) -> None:
    keys: list[str] = []

    @tool(registry=engine.registry, requires_approval=True, on_crash="ask")
    def pay(context: ToolContext, amount: int) -> int:
        keys.append(context.idempotency_key)
        if len(keys) == 1:
            raise Crash
        return amount

    def work(run: Run, input: None) -> int:
        return run.tool(pay, amount=5)

    execution_id = engine.start(engine.agent(work))
    decide(engine, execution_id, asked(engine, execution_id), arguments={"amount": 4})
    engine.crash(execution_id)
    engine.execute(execution_id)
    waiting = engine.context(execution_id).waiting
    assert waiting is not None
    assert (waiting.kind, waiting.prompt["input"]) == (WaitKind.INPUT, {"amount": 4})
    engine.answer(execution_id, "retry", waiting.key)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == 4
    assert keys == [f"{execution_id}/pay"] * 2


# -- digests -----------------------------------------------------------------------------------------------------------


def test_the_order_of_keys_makes_no_difference_and_everything_else_does() -> None:
    one = digest_of("A", "approve pay", "pay", {"to": {"iban": "PL61", "owner": "Łukasz"}, "amounts": [1, 2]})

    assert one == digest_of("A", "approve pay", "pay", {"amounts": [1, 2], "to": {"owner": "Łukasz", "iban": "PL61"}})
    assert len(one) == 64
    others: list[tuple[str, dict[str, Any]]] = [
        ("refund", {"to": {"iban": "PL61", "owner": "Łukasz"}, "amounts": [1, 2]}),
        ("pay", {"to": {"iban": "PL61", "owner": "Lukasz"}, "amounts": [1, 2]}),
        ("pay", {"to": {"iban": "PL61", "owner": "Łukasz"}, "amounts": [2, 1]}),
        ("pay", {"to": {"iban": "PL61", "owner": "Łukasz"}, "amounts": ["1", "2"]}),
        ("pay", {"to": {"iban": "PL61", "owner": "Łukasz"}, "amounts": [1, 2], "more": None}),
        ("pay", {"iban": "PL61", "to": {"owner": "Łukasz"}, "amounts": [1, 2]}),
    ]
    digests = {one, *(digest_of("A", "approve pay", name, arguments) for name, arguments in others)}
    again = digest_of("A", "approve pay#2", "pay", {"to": {"iban": "PL61", "owner": "Łukasz"}, "amounts": [1, 2]})
    twin = digest_of("B", "approve pay", "pay", {"to": {"iban": "PL61", "owner": "Łukasz"}, "amounts": [1, 2]})
    anew = digest_of("A", "approve pay", "pay", {"to": {"iban": "PL61", "owner": "Łukasz"}, "amounts": [1, 2]}, 2)
    assert len(digests | {again, twin, anew}) == 10
