"""People and the tools of LangChain's agents: approvals and questions, without holding a slot."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import HumanMessage
from langchain_core.tools import BaseTool, tool
from langgraph.types import interrupt

from agent_statestore import AgentState, WaitKind
from celery_agents import InvalidArguments, Registry
from celery_agents.integrations.langchain import DurabilityMiddleware, StepOptions, durable_graph
from celery_agents.testing import LocalAgents, LocalExecution, When
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says
from tests.integrations.langchain.models import openai

Serve = Callable[..., ModelServer]
MODES = ("batched", "per_call")


def refunds(conversation: Conversation) -> Says | Calls:
    if conversation.turn == 0:
        return Calls(
            *(Call("refund", {"order": order, "amount": 5}) for order in (1, 2, 3)), Call("look", {"order": 4})
        )
    return Says(" | ".join(conversation.results))


def refunder(server: ModelServer, made: list[Any], registry: Registry, *middleware: Any, **options: Any) -> None:
    @tool
    def refund(order: int, amount: int) -> str:
        """Pays money back."""
        made.append((order, amount))
        return f"refunded {amount}"

    @tool
    def look(order: int) -> str:
        """Looks."""
        made.append((order, 0))
        return "looked"

    agent = create_agent(openai(server), tools=[refund, look], name="refunder", middleware=list(middleware))
    durable_graph(agent, registry=registry, output=lambda state: state["messages"][-1].text, **options)


def open_approvals(execution: LocalExecution) -> dict[int, Any]:
    """The approvals that are open, by the order that they are about."""
    return {wait.prompt["arguments"]["order"]: wait for wait in execution.summary().waits}


def decide(execution: LocalExecution, decisions: dict[int, dict[str, Any]]) -> None:
    """Decides about refunds as they are asked about, until no other one is open."""
    left = dict(decisions)
    while execution.state is AgentState.WAITING_FOR_APPROVAL and (known := open_approvals(execution).keys() & left):
        for order in known:
            options = left.pop(order)
            send = execution.reject if "reason" in options else execution.approve
            send(sender="ada", key=open_approvals(execution)[order].key, **options)
        while execution.run().state is AgentState.THINKING:
            pass
    assert not left


def test_approve_edit_and_reject_across_restarts(serve: Serve) -> None:
    for mode in MODES:
        server, made, registry = serve(model=refunds), [], Registry()
        asking = HumanInTheLoopMiddleware({"refund": True}, interrupt_mode=mode)
        refunder(server, made, registry, asking, DurabilityMiddleware())
        local = LocalAgents(registry=registry)
        # A crash at each turn of the conversation between people and the worker.
        for step in ("refunder model", "refunder model#2"):
            local.crash_at(step, When.AFTER_CHECKPOINT)
        execution = local.start("refunder", "Refund me.").run()
        execution.run()
        assert execution.state is AgentState.WAITING_FOR_APPROVAL, mode
        order, first = next(iter(open_approvals(execution).items()))
        assert (first.prompt["tool"], first.prompt["arguments"]) == ("refund", {"order": order, "amount": 5}), mode
        with pytest.raises(InvalidArguments, match="amount"):
            execution.approve(sender="ada", key=first.key, arguments={"order": order, "amount": "much"})
        decide(execution, {1: {}, 2: {"arguments": {"order": 2, "amount": 4}}, 3: {"reason": "too late"}})
        answer = execution.wait()
        assert "refunded 5" in answer, mode
        assert "refunded 4" in answer, mode
        assert "too late" in answer, mode
        assert sorted(made) == [(1, 5), (2, 4), (4, 0)], mode
        assert len(server.requests) == 2, mode


def test_decisions_that_are_not_allowed_are_refused_where_they_are_given(serve: Serve) -> None:
    for mode in MODES:
        made, registry = [], Registry()
        asking = HumanInTheLoopMiddleware({"refund": {"allowed_decisions": ["approve", "reject"]}}, interrupt_mode=mode)
        refunder(serve(model=refunds), made, registry, asking, DurabilityMiddleware())
        execution = LocalAgents(registry=registry).start("refunder", "Refund me.").run()
        key = execution.summary().waits[0].key
        with pytest.raises(InvalidArguments):
            execution.approve(sender="ada", key=key, arguments={"order": 1, "amount": 1})


def test_silence_is_a_refusal(serve: Serve, registry: Registry, local: LocalAgents) -> None:
    made: list[Any] = []
    asking = HumanInTheLoopMiddleware({"refund": True})
    refunder(serve(model=refunds), made, registry, asking, DurabilityMiddleware(), answer_timeout=timedelta(days=3))
    execution = local.start("refunder", "Refund me.").run()
    while not execution.state.is_over:
        local.advance(timedelta(days=4))
    assert execution.wait().count("Nobody approved this call in time.") == 3
    assert made == [(4, 0)]


def test_a_tool_that_people_answer_for_is_a_question(serve: Serve) -> None:
    for mode in MODES:
        made, registry = [], Registry()
        asking = HumanInTheLoopMiddleware({"refund": {"allowed_decisions": ["respond"]}}, interrupt_mode=mode)
        refunder(serve(model=refunds), made, registry, asking, DurabilityMiddleware())
        execution = LocalAgents(registry=registry).start("refunder", "Refund me.").run()
        answer = {"type": "respond", "message": "done by hand"}
        while execution.state is AgentState.WAITING_FOR_INPUT:
            (wait, *_) = execution.summary().waits
            execution.resume({"decisions": [answer] * 3} if mode == "batched" else answer, key=wait.key)
            execution.run()
        assert execution.wait().count("done by hand") == 3, mode
        assert made == [(4, 0)], mode


def test_our_own_option_asks_for_approval(serve: Serve, registry: Registry, local: LocalAgents) -> None:
    made: list[Any] = []
    options = StepOptions(requires_approval=True)
    refunder(
        serve(model=refunds),
        made,
        registry,
        DurabilityMiddleware(tools={"refund": options}, approval_timeout=timedelta(days=1)),
    )
    local.crash_at("refunder model#2", When.BEFORE_CHECKPOINT)
    execution = local.start("refunder", "Refund me.").run()
    assert execution.state is AgentState.WAITING_FOR_APPROVAL
    order, wait = next(iter(open_approvals(execution).items()))
    assert wait.prompt["description"] == "Pays money back."
    assert wait.key.startswith("approve refund call_")
    with pytest.raises(InvalidArguments, match="amount"):
        execution.approve(sender="ada", key=wait.key, arguments={"order": order, "amount": "much"})
    execution.approve(sender="ada", key=wait.key, arguments={"order": order, "amount": 2})
    execution.run()
    execution.reject(sender="ada", key=next(iter(open_approvals(execution).values())).key, reason="no")
    while not execution.run().state.is_over:
        local.advance(timedelta(days=2))
    told = execution.wait()
    assert "refunded 2" in told
    assert "A person denied this call: no" in told
    assert "Nobody approved this call in time." in told
    assert sorted(made) == [(order, 2), (4, 0)]


def test_a_tool_may_ask_by_itself(serve: Serve, registry: Registry, local: LocalAgents) -> None:
    made: list[str] = []

    @tool
    def confirm(what: str) -> str:
        """Asks twice."""
        first = interrupt({"sure": what})
        made.append(first)
        second = interrupt({"really": what})
        return f"{what}: {first}, {second}"

    def script(conversation: Conversation) -> Says | Calls:
        if conversation.turn == 0:
            return Calls(Call("confirm", {"what": "a"}), Call("confirm", {"what": "b"}))
        return Says(" | ".join(conversation.results))

    tools: list[BaseTool] = [confirm]
    agent = create_agent(openai(serve(model=script)), tools=tools, name="asker", middleware=[DurabilityMiddleware()])
    durable_graph(agent, registry=registry, output=lambda state: state["messages"][-1].text)
    execution = local.start("asker", "Go.").run()
    while execution.state is AgentState.WAITING_FOR_INPUT:
        wait = execution.summary().waits[0]
        assert wait.kind is WaitKind.INPUT
        ((question, what),) = wait.prompt.items()
        execution.resume(f"{question} {what}", key=wait.key)
        execution.run()
    assert execution.wait() == "a: sure a, really a | b: sure b, really b"


def test_helpers_beside_each_other_ask_each_for_themselves(serve: Serve) -> None:
    """Both have said the same, so that their calls have the same id."""
    for mode in MODES:
        made, registry = [], Registry()
        server = serve(
            boss=[Calls(Call("delegate", {}), Call("delegate", {})), Says("done")],
            helper=[Calls(Call("refund", {"order": 1, "amount": 5})), Says("helped")],
        )

        @tool
        def refund(order: int, amount: int) -> str:
            """Pays money back."""
            made.append((order, amount))  # noqa: B023
            return "refunded"

        asking = HumanInTheLoopMiddleware({"refund": True}, interrupt_mode=mode)
        helper = create_agent(
            openai(server, "helper"), tools=[refund], name="helper", middleware=[asking, DurabilityMiddleware()]
        )

        @tool
        async def delegate() -> str:
            """Has somebody else do it."""
            return str((await helper.ainvoke({"messages": [HumanMessage("Go.")]}))["messages"][-1].text)  # noqa: B023

        middleware = DurabilityMiddleware(tools={"delegate": False})
        boss = create_agent(openai(server, "boss"), tools=[delegate], name="boss", middleware=[middleware])
        durable_graph(boss, registry=registry, output=lambda state: state["messages"][-1].text)
        execution = LocalAgents(registry=registry).start("boss", "Go.").run()
        amounts = {"tools 0": 1, "tools 1": 2}
        for _ in range(2):
            wait = execution.summary().waits[0]
            place = wait.key.removeprefix("approve ").partition("/")[0]
            execution.approve(sender="ada", key=wait.key, arguments={"order": 1, "amount": amounts[place]})
            execution.run()
        assert execution.wait() == "done", mode
        assert sorted(made) == [(1, 1), (1, 2)], mode
        assert [request.conversation.model for request in server.requests].count("helper") == 4, mode
