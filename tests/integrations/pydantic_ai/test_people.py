"""People in a run of Pydantic AI: approvals, questions, results from outside, all without holding a slot."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import RequestInput
from pydantic_ai.exceptions import CallDeferred
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolDenied

from agent_statestore import AgentState, WaitKind
from celery_agents import InvalidArguments, Registry
from celery_agents.integrations.pydantic_ai import CeleryDurability, StepOptions, durable
from celery_agents.testing import LocalAgents, LocalExecution
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says
from tests.integrations.pydantic_ai.models import Models

Serve = Callable[..., ModelServer]


def refunds(conversation: Conversation) -> Says | Calls:
    if conversation.turn == 0:
        return Calls(Call("refund", {"order": 1, "amount": 5}), Call("refund", {"order": 2, "amount": 500}))
    return Says(" | ".join(conversation.results))


def refunder(models: Models, server: ModelServer, made: list[Any], **options: Any) -> Agent[None, str]:
    agent = Agent(models.openai(server), name="refunder", capabilities=[CeleryDurability(**options)])

    @agent.tool_plain(requires_approval=True)
    def refund(order: int, amount: int) -> str:
        """Pays money back."""
        made.append((order, amount))
        return f"refunded {amount}"

    return agent


def open_approvals(execution: LocalExecution) -> dict[int, Any]:
    """The approvals that are open, by the order that they are about."""
    waits = execution.summary().waits
    return {wait.prompt["arguments"]["order"]: wait for wait in waits if wait.kind is WaitKind.APPROVAL}


def test_calls_that_need_approval_are_made_as_they_were_approved(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server, made = serve(model=refunds), []
    durable(refunder(models, server, made), registry=registry)
    execution = local.start("refunder", "Refund me.").run()
    assert execution.state is AgentState.WAITING_FOR_APPROVAL
    (first,) = [wait for order, wait in open_approvals(execution).items() if order == 1]
    assert (first.prompt["tool"], first.prompt["description"]) == ("refund", "Pays money back.")
    assert first.schema["properties"]["amount"]["type"] == "integer"
    execution.approve(sender="ada", key=first.key)
    execution.run()
    second = open_approvals(execution)[2]
    with pytest.raises(InvalidArguments, match="amount"):
        execution.approve(sender="ada", key=second.key, arguments={"order": 2, "amount": "much"})
    execution.approve(sender="ada", key=second.key, arguments={"order": 2, "amount": 50})
    assert execution.wait() == "refunded 5 | refunded 50"
    assert sorted(made) == [(1, 5), (2, 50)]
    assert len(server.requests) == 2


def test_a_refusal_and_silence_are_told_to_the_model(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server, made = serve(model=refunds), []
    durable(refunder(models, server, made, approval_timeout=timedelta(days=3)), registry=registry)
    execution = local.start("refunder", "Refund me.").run()
    execution.reject(sender="ada", key=open_approvals(execution)[1].key, reason="too late")
    execution.run()
    local.advance(timedelta(days=4))
    told = execution.wait()
    assert "too late" in told
    assert "Nobody approved this call in time." in told
    assert made == []


def test_a_tool_s_metadata_asks_for_approval(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server, made = serve(model=[Calls(Call("drop", {"table": "users"})), Says("dropped")]), []
    agent = Agent(models.openai(server), name="admin", capabilities=[CeleryDurability()])

    @agent.tool_plain(metadata={"celery": {"requires_approval": True}})
    def drop(table: str) -> str:
        made.append(table)
        return "ok"

    durable(agent, registry=registry)
    execution = local.start("admin", "Drop it.").run()
    assert made == []
    execution.approve(sender="ada")
    assert execution.wait() == "dropped"
    assert made == ["users"]


def test_a_question_of_a_tool_is_a_question_and_a_call_made_elsewhere_an_event(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    def script(conversation: Conversation) -> Says | Calls:
        if conversation.turn == 0:
            return Calls(Call("ask_user", {"question": "Which one?"}, "q1"), Call("render", {"page": 1}, "r1"))
        return Says(" | ".join(conversation.results))

    server = serve(model=script)
    agent = Agent(models.openai(server), name="asker", capabilities=[CeleryDurability()])

    @agent.tool_plain
    def ask_user(question: str) -> str:
        raise CallDeferred(kind="question")

    @agent.tool_plain
    def render(page: int) -> str:
        raise CallDeferred

    durable(agent, registry=registry)
    execution = local.start("asker", "Go.").run()
    question = next(wait for wait in execution.summary().waits if wait.kind is WaitKind.INPUT)
    assert question.prompt == {"question": "Which one?"}
    execution.resume("the red one", key=question.key)
    execution.run()
    execution.send_event("render r1", {"url": "page.png"})
    told = execution.wait()
    assert told.startswith("the red one | ")
    assert "page.png" in told


def test_request_input_waits_for_an_event_of_the_execution(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server, made, tokens = serve(model=refunds), [], []

    def ask(context: RunContext[None], requests: DeferredToolRequests, token: str) -> DeferredToolResults | None:
        tokens.append((token, [call.tool_call_id for call in requests.approvals]))
        return None

    agent = Agent(
        models.openai(server),
        name="refunder",
        capabilities=[RequestInput(ask, timeout=timedelta(hours=1)), CeleryDurability()],
    )

    @agent.tool_plain(requires_approval=True)
    def refund(order: int, amount: int) -> str:
        made.append((order, amount))
        return f"refunded {amount}"

    durable(agent, registry=registry)
    execution = local.start("refunder", "Refund me.").run()
    assert execution.state is AgentState.WAITING
    ((token, (first, second)),) = tokens
    execution_id, _, event = token.partition(":")
    assert execution_id == execution.id
    execution.send_event(event, {"approvals": {first: True, second: {"kind": "tool-denied", "message": "no"}}})
    assert execution.wait() == "refunded 5 | no"
    assert made == [(1, 5)]
    assert len(tokens) == 1

    late = local.start("refunder", "Refund me again.").run()
    local.advance(timedelta(hours=2))
    assert "No answer came within 1:00:00" in late.wait()
    assert len(tokens) == 2


def test_an_answer_in_place_waits_for_nobody(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server, made = serve(model=refunds), []

    def ask(context: RunContext[None], requests: DeferredToolRequests, token: str) -> DeferredToolResults:
        return requests.build_results(
            approvals={call.tool_call_id: ToolDenied("policy") for call in requests.approvals}
        )

    agent = Agent(models.openai(server), name="policed", capabilities=[RequestInput(ask), CeleryDurability()])

    @agent.tool_plain(requires_approval=True)
    def refund(order: int, amount: int) -> str:
        made.append(order)
        return "refunded"

    durable(agent, registry=registry)
    assert local.start("policed", "Refund me.").run().wait() == "policy | policy"
    assert made == []


def test_options_of_steps_come_from_metadata_and_wrong_ones_are_named(
    serve: Serve, models: Models, registry: Registry, local: LocalAgents
) -> None:
    server = serve(model=[Calls(Call("slow", {})), Says("done")])
    agent = Agent(models.openai(server), name="slow-agent", capabilities=[CeleryDurability(tool=StepOptions())])

    @agent.tool_plain(metadata={"celery": {"on_crash": "ask", "unknown": 1}})
    def slow() -> str:
        return "ok"

    durable(agent, registry=registry)
    failed = local.start("slow-agent", "Go.").run()
    error = failed.summary().error
    assert error is not None
    assert "unknown" in error.message
    assert "on_crash" in error.message
