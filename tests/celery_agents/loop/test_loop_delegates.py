"""Agents among the tools of a loop agent: each call is an execution of its own."""

import threading
from datetime import timedelta
from typing import Any

import pydantic
import pytest

from agent_statestore import AgentState
from agent_statestore.query import Query
from celery_agents import Agent, Complete, Run, ToolCall, UseTool, UseTools, agent, loop_agent, tool
from tests.celery_agents.household import Household, dying_at_each_write
from tests.celery_agents.loop.looping import Model, check_no_call_is_without_result, conversation


class Order(pydantic.BaseModel):
    item: str
    count: int = 1


def family(household: Household, decide: Any, **options: Any) -> Agent:
    """A supervisor with two workers and a tool."""

    @agent(registry=household.registry)
    def counting(run: Run, input: Order) -> str:
        """Counts an item."""
        return run.step("count", lambda: f"{input.count} {input.item}")

    @agent(registry=household.registry)
    def doubling(run: Run, input: int) -> int:
        if input < 0:
            raise ValueError("too few")
        return run.step("double", lambda: input * 2)

    @tool(registry=household.registry)
    def look() -> str:
        return "seen"

    return loop_agent(name="boss", tools=[counting, "doubling", look], registry=household.registry, **options)(decide)


CALLS = UseTools(
    calls=(
        ToolCall(tool="counting", arguments={"item": "pears", "count": 3}),
        ToolCall(tool="doubling", arguments={"input": -1}),
        ToolCall(tool="look"),
        ToolCall(tool="doubling", arguments={"input": 21}),
    )
)


def test_workers_are_called_like_tools_and_waited_for_beside_them() -> None:
    household = Household()
    model = Model(CALLS, Complete(output="all done"))
    execution_id = household.start(family(household, model))
    household.work()

    context = household.context(execution_id)
    assert (context.state, context.output) == (AgentState.COMPLETED, "all done")
    assert len(model.seen) == 2
    results = model.seen[1].results
    assert [result.output for result in results] == ["3 pears", None, "seen", 42]
    assert results[1].error_type == "ChildFailed"
    assert results[1].error is not None
    assert "ValueError: too few" in results[1].error
    check_no_call_is_without_result(context)
    assert len(conversation(context)) == 5
    children = household.store.find(Query(limit=10)).items
    assert {child.parent_execution_id for child in children} == {None, execution_id}


def test_each_worker_is_started_once_whenever_the_process_dies() -> None:
    def scenario(household: Household) -> str:
        execution_id = household.start(family(household, lambda context: _once(context.results)))
        household.work(timedelta(minutes=5))
        return execution_id

    for household, execution_id in dying_at_each_write(scenario):
        context = household.context(execution_id)
        assert (context.state, context.output) == (AgentState.COMPLETED, ["3 pears", None, "seen", 42])
        check_no_call_is_without_result(context)
        assert len(household.store.find(Query(limit=10)).items) == 4


def _once(results: tuple[Any, ...]) -> Any:
    return Complete(output=[result.output for result in results]) if results else CALLS


def test_the_input_of_a_worker_is_described_and_checked() -> None:
    household = Household()
    model = Model(
        UseTool(tool="counting", arguments={"item": ["no text"]}),
        UseTool(tool="doubling", arguments={"number": 2}),
        UseTool(tool="doubling", arguments={"input": "many"}),
        Complete(),
    )
    execution_id = household.start(family(household, model))
    household.work()

    context = household.context(execution_id)
    assert context.state is AgentState.COMPLETED
    told = [content for role, content in conversation(context) if role == "system"]
    assert "item" in told[0]
    assert "needs the argument 'input' and no other" in told[1]
    assert "tool doubling" in told[2]
    counting, doubling, look = model.seen[0].tools
    assert (counting.description, counting.parameters["required"]) == ("Counts an item.", ["item"])
    assert doubling.parameters["properties"] == {"input": {"type": "integer"}}
    assert look.name == "look"
    assert len(household.store.find(Query(limit=10)).items) == 1


def test_a_supervisor_of_itself_ends() -> None:
    household = Household()
    supervised = loop_agent(name="mirror", tools=["mirror"], registry=household.registry)(
        lambda context: (
            Complete(output=context.results[0].error)
            if context.results
            else UseTool(tool="mirror", arguments={"input": 1})
        )
    )
    execution_id = household.start(supervised)
    household.work()
    executions = household.store.find(Query(limit=100)).items
    assert len(executions) == household.limits.max_depth
    assert {one.state for one in executions} == {AgentState.COMPLETED}
    deepest = household.context(executions[0].execution_id)
    assert deepest.output.startswith("SpawnTooDeep: ")
    assert household.context(execution_id).output is None


def test_a_cancel_while_a_worker_works_reaches_it() -> None:
    household = Household()
    asked = threading.Event()

    @agent(registry=household.registry)
    def asking(run: Run, input: None) -> Any:
        asked.set()
        return run.ask("?")

    model = Model(UseTool(tool="asking", arguments={"input": None}), Complete())
    boss = loop_agent(name="boss", tools=[asking], registry=household.registry)(model)
    execution_id = household.start(boss)
    household.work()
    assert asked.is_set()
    household.cancel(execution_id)
    household.work()
    states = {one.agent_id: one.state for one in household.store.find(Query(limit=10)).items}
    assert states == {"boss": AgentState.CANCELLED, "asking": AgentState.CANCELLED}
    assert conversation(household.context(execution_id)) == []
    assert len(model.seen) == 1


@pytest.mark.parametrize("what", ["tool", "agent"])
def test_a_tool_and_an_agent_of_one_name_do_not_go_together(what: str) -> None:
    household = Household()
    one = tool(registry=household.registry, name="same")(lambda: 1)
    other = agent(registry=household.registry, name="same")(lambda run, value: (run, value))
    tools: list[Any] = [one, other] if what == "tool" else [other, "same"]
    with pytest.raises(Exception, match="two of its tools have the name 'same'"):
        loop_agent(name="boss", tools=tools, registry=household.registry)(lambda _: Complete())
