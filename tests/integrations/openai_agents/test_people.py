"""Calls of the SDK's tools that people approve: all asked at once, without a slot, across restarts."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from agents import Agent, function_tool

from agent_statestore import AgentState, WaitKind
from celery_agents import AsyncRun, InvalidArguments, Registry
from celery_agents import agent as make_agent
from celery_agents.integrations.openai_agents import DurableRunner, StepOptions, durable
from celery_agents.testing import LocalAgents, LocalExecution, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says
from tests.integrations.openai_agents.models import Models

Serve = Callable[..., ModelServer]


def refunds(conversation: Conversation) -> Says | Calls:
    if conversation.turn == 0:
        return Calls(
            Call("refund", {"order": 1, "amount": 5}), Call("refund", {"order": 2, "amount": 500}), Call("look", {})
        )
    return Says(" | ".join(conversation.results))


def refunder(models: Models, server: ModelServer, made: list[Any], **options: Any) -> Agent[Any]:
    @function_tool(needs_approval=True)
    def refund(order: int, amount: int) -> str:
        """Pays money back."""
        made.append((order, amount))
        return f"refunded {amount}"

    @function_tool
    def look() -> str:
        made.append("looked")
        return "seen"

    return Agent(name="refunder", model=models.responses(server), tools=[refund, look], **options)


def open_approvals(execution: LocalExecution) -> dict[int, Any]:
    """The approvals that are open, by the order that they are about."""
    waits = execution.summary().waits
    return {wait.prompt["arguments"]["order"]: wait for wait in waits if wait.kind is WaitKind.APPROVAL}


def decide(execution: LocalExecution, decision: Callable[[int, Any], None]) -> set[int]:
    """Decides about one approval after the other, the last one first; returns the orders that were asked about."""
    asked: set[int] = set()
    while not execution.run().state.is_over:
        if waits := open_approvals(execution):
            asked |= waits.keys()
            decision(max(waits), waits[max(waits)])
    return asked


@pytest.mark.parametrize("is_streamed", [False, pytest.param(True, marks=pytest.mark.full)])
def test_calls_that_need_approval_are_made_as_they_were_approved(
    serve: Serve,
    models: Models,
    registry: Registry,
    local: LocalAgents,
    caplog: pytest.LogCaptureFixture,
    is_streamed: bool,
) -> None:
    server, made = serve(model=refunds), []
    durable(refunder(models, server, made), registry=registry, on_stream=(lambda _: None) if is_streamed else None)
    execution = local.start("refunder", "Refund me.").run()
    assert execution.state is AgentState.WAITING_FOR_APPROVAL
    assert made == ["looked"]
    local.crash_at("refunder model#2", When.BEFORE_CHECKPOINT)

    def approve(order: int, asked: Any) -> None:
        assert (asked.prompt["tool"], asked.prompt["description"]) == ("refund", "Pays money back.")
        assert asked.schema["properties"]["amount"]["type"] == "integer"
        with pytest.raises(InvalidArguments, match="amount"):
            execution.approve(sender="ada", key=asked.key, arguments={"order": order, "amount": "much"})
        execution.approve(sender="ada", key=asked.key, arguments={"order": 2, "amount": 50} if order == 2 else None)

    assert decide(execution, approve) == {1, 2}
    assert sorted(execution.wait().split(" | ")) == ["refunded 5", "refunded 50", "seen"]
    assert sorted(made, key=str) == [(1, 5), (2, 50), "looked"]
    assert len(server.requests) == 3
    assert len(server.repeated()) == 1
    (edited,) = [
        step for step in execution.steps() if step.action.kind == "tool" and step.action.input.get("order") == 2
    ]
    assert edited.action.input == {"order": 2, "amount": 50}
    assert [record.message for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def test_a_refusal_and_silence_are_told_to_the_model(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server, made = serve(model=refunds), []
    runner = DurableRunner(approval_timeout=timedelta(days=3))
    durable(refunder(models, server, made), registry=registry, runner=runner)
    execution = local.start("refunder", "Refund me.").run()
    while not execution.run().state.is_over:
        waits = open_approvals(execution)
        if 1 in waits:
            execution.reject(sender="ada", key=waits[1].key, reason="too late")
        else:
            local.advance(timedelta(days=4))
    told = execution.wait()
    assert "too late" in told
    assert "Nobody approved this call in time." in told
    assert made == ["looked"]


@pytest.mark.parametrize("protocol", ["responses", "chat"])
def test_one_execution_may_ask_in_several_rounds(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents, protocol: str
) -> None:
    def script(conversation: Conversation) -> Says | Calls:
        if conversation.turn < 2:
            return Calls(Call("refund", {"order": conversation.turn, "amount": 5}))
        return Says("paid twice")

    server, made = serve(model=script), []
    agent = refunder(models, server, made)
    agent.model = getattr(models, protocol)(server)
    durable(agent, registry=registry)
    execution = local.start("refunder", "Refund me.").run()
    for order in range(2):
        execution.approve(sender="ada", key=open_approvals(execution)[order].key)
        execution.run()
    assert execution.wait() == "paid twice"
    assert made == [(0, 5), (1, 5)]
    assert len(server.requests) == 3


def test_approvals_of_agents_as_tools_are_asked_with_all_others(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    def boss(conversation: Conversation) -> Says | Calls:
        if conversation.turn == 0:
            return Calls(Call("refund", {"order": 7, "amount": 1}), Call("delegate", {"input": "Refund."}))
        return Says(" & ".join(conversation.results))

    server, made = serve(boss=boss, model=refunds), []
    helper = refunder(models, server, made)
    agent = Agent(
        name="boss",
        model=models.responses(server, "boss"),
        tools=[helper.tools[0], helper.as_tool("delegate", "Has it done.")],
    )
    durable(agent, registry=registry)
    execution = local.start("boss", "Go.").run()

    def some(order: int, asked: Any) -> None:
        if order == 1:
            execution.reject(sender="ada", key=asked.key, reason="no")
        else:
            edited = {"order": 2, "amount": 3} if order == 2 else None
            execution.approve(sender="ada", key=asked.key, arguments=edited)

    assert decide(execution, some) == {1, 2, 7}
    paid, delegated = execution.wait().split(" & ")
    assert paid == "refunded 1"
    assert sorted(delegated.split(" | ")) == ["A person denied this call: no", "refunded 3", "seen"]
    assert sorted(made, key=str) == [(2, 3), (7, 1), "looked"]
    assert len(server.requests) == 4


def test_rules_about_approvals_are_as_strict_as_without_us(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    async def large(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
        return bool(arguments.get("amount", 0) > 100)

    made: list[int] = []

    @function_tool(needs_approval=large, strict_mode=False)
    def pay(amount: int = 1000) -> str:
        made.append(amount)
        return "paid"

    given: dict[str, dict[str, Any]] = {"small": {"amount": 5}, "large": {"amount": 500}, "default": {}}
    server = serve(model=lambda one: Says("ok") if one.turn else Calls(Call("pay", given[one.prompt])))
    durable(Agent(name="payer", model=models.responses(server), tools=[pay]), registry=registry)
    asked = {case: local.start("payer", case).run().state for case in given}
    assert asked == {
        "small": AgentState.COMPLETED,
        "large": AgentState.WAITING_FOR_APPROVAL,
        "default": AgentState.WAITING_FOR_APPROVAL,  # the rule has not seen the 1000
    }
    assert made == [5]


def test_options_ask_for_approval_of_a_tool(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server, made = serve(model=[Calls(Call("drop", {"table": "users"})), Says("dropped")]), []

    @function_tool
    def drop(table: str) -> str:
        made.append(table)
        return "ok"

    agent = Agent(name="admin", model=models.responses(server), tools=[drop])
    durable(agent, registry=registry, runner=DurableRunner(tools={"drop": StepOptions(requires_approval=True)}))
    execution = local.start("admin", "Drop it.").run()
    assert made == []
    execution.approve(sender="ada")
    assert execution.wait() == "dropped"
    assert made == ["users"]
    assert drop.needs_approval is False


def test_questions_are_asked_beside_runs(serve: Serve, models: Models, registry: Registry, local: LocalAgents) -> None:
    server = serve(model=lambda conversation: Says(conversation.prompt))
    agent = Agent(name="echo", model=models.responses(server))

    @make_agent(registry=registry)
    async def asking(run: AsyncRun, input: str) -> str:
        runner = DurableRunner()
        first = await runner.run(agent, input)
        answer = await run.ask(first.final_output)
        second = await runner.run(agent, [*first.to_input_list(), {"role": "user", "content": answer}])
        return str(second.final_output)

    execution = local.start("asking", "Which one?").run()
    execution.resume("the red one")
    assert execution.wait() == "the red one"
    assert len(server.requests) == 2
