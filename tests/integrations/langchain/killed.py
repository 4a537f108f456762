"""The agent of `tests.integrations.killing`, in LangChain; imported by workers."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from celery_agents.integrations.langchain import DurabilityMiddleware, durable_graph
from tests.integrations.killing import note

# Before an agent is made, which keeps the methods of its middleware.
if "WITHOUT_RECORDING" in os.environ:

    async def call(self: DurabilityMiddleware, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        return await handler(request)

    DurabilityMiddleware.awrap_model_call = call  # type: ignore[method-assign]
    DurabilityMiddleware.awrap_tool_call = call  # type: ignore[method-assign]


class Answer(BaseModel):
    """What the boss answers."""

    total: int
    helper: str


Answer.__name__ = "final_result"  # what the model calls it


def _model(name: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=f"{os.environ['MODEL_URL']}/v1", api_key="none", max_retries=0)


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    note(f"add {a} {b}")
    return a + b


helper = create_agent(_model("helper"), tools=[add], name="helper", middleware=[DurabilityMiddleware()])


@tool
async def delegate(task: str) -> str:
    """Has somebody else do it."""
    state = await helper.ainvoke({"messages": [HumanMessage(task)]})
    return str(state["messages"][-1].text)


boss = create_agent(
    _model("boss"),
    tools=[add, delegate],
    name="boss",
    response_format=ToolStrategy(Answer),
    middleware=[DurabilityMiddleware(tools={"delegate": False})],
)

durable_graph(boss, output=lambda state: state["structured_response"])
durable_graph(
    create_agent(_model("speaker"), name="speaker", middleware=[DurabilityMiddleware()]),
    output=lambda state: state["messages"][-1].text,
)
