"""The agent of `tests.integrations.killing`, as a graph of LangGraph; imported by workers."""

import operator
import os
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Send
from typing_extensions import TypedDict

from celery_agents.integrations.langgraph import durable_graph, durable_nodes, nodes
from tests.integrations.killing import note


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    task: str
    answers: Annotated[list[dict[str, Any]], operator.add]


def _model(name: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=f"{os.environ['MODEL_URL']}/v1", api_key="none", max_retries=0)


TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("add", "delegate", "final_result")
]


def asking(name: str) -> Any:
    """A node that asks a model."""
    model = _model(name).bind_tools(TOOLS)

    async def ask(state: State) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return ask


def add(call: dict[str, Any]) -> dict[str, Any]:
    """A node that adds, and takes its time."""
    a, b = call["args"]["a"], call["args"]["b"]
    note(f"add {a} {b}")
    return {"messages": [ToolMessage(str(a + b), tool_call_id=call["id"])]}


def begin(state: Any) -> dict[str, Any]:
    return {"messages": [HumanMessage(state["task"], id=f"task {state['task']}")]}


def go_on(state: State) -> Any:
    """An edge: calls of tools beside each other, somebody else's work, or the end."""
    last = state["messages"][-1]
    assert isinstance(last, AIMessage)
    sends: list[Send] = []
    for call in last.tool_calls:
        if call["name"] == "delegate":
            sends.append(Send("delegate", {"call": call}))
        elif call["name"] == "add":
            sends.append(Send("add", call))
    return sends or END


_helper = StateGraph(State)
_helper.add_node("begin", begin)
_helper.add_node("ask", asking("helper"))
_helper.add_node("add", add)
_helper.add_edge(START, "begin").add_edge("begin", "ask")
_helper.add_conditional_edges("ask", go_on, ["add", END])
_helper.add_edge("add", "ask")
helper = durable_nodes(_helper.compile(name="helper"))


async def delegate(sent: dict[str, Any]) -> dict[str, Any]:
    """A node that has another graph do it, whose own nodes are the steps."""
    state = await helper.ainvoke({"task": sent["call"]["args"]["task"]})
    return {"messages": [ToolMessage(state["messages"][-1].text, tool_call_id=sent["call"]["id"])]}


_boss = StateGraph(State)
_boss.add_node("ask", asking("boss"))
_boss.add_node("add", add)
_boss.add_node("delegate", delegate)
_boss.add_edge(START, "ask")
_boss.add_conditional_edges("ask", go_on, ["add", "delegate", END])
_boss.add_edge("add", "ask").add_edge("delegate", "ask")

durable_graph(
    _boss.compile(name="boss"),
    inline=["delegate"],
    output=lambda state: state["messages"][-1].tool_calls[0]["args"],
)

_speaker = StateGraph(State)
_speaker.add_node("speaker model", asking("speaker"))
_speaker.add_edge(START, "speaker model")
durable_graph(_speaker.compile(name="speaker"), output=lambda state: state["messages"][-1].text)

if "WITHOUT_RECORDING" in os.environ:

    async def take(run: Any, name: str, body: Any, options: Any, called_as: Any = None) -> Any:
        return await body()

    nodes.take = take
