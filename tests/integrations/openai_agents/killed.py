"""The agent of `tests.integrations.killing`, in the OpenAI Agents SDK; imported by workers."""

import os
from typing import Any

from agents import Agent, OpenAIResponsesModel, function_tool
from openai import AsyncOpenAI
from pydantic import BaseModel

from celery_agents.integrations.openai_agents import durable, mcp, models, tools
from tests.integrations.killing import note


class Answer(BaseModel):
    """What the boss answers."""

    total: int
    helper: str


class Task(BaseModel):
    """What the helper is to do."""

    task: str


def _model(name: str) -> OpenAIResponsesModel:
    client = AsyncOpenAI(base_url=f"{os.environ['MODEL_URL']}/v1", api_key="none", max_retries=0)
    return OpenAIResponsesModel(name, client)


@function_tool
def add(a: int, b: int) -> int:
    """Adds."""
    note(f"add {a} {b}")
    return a + b


helper = Agent(name="helper", model=_model("helper"), tools=[add])
delegate = helper.as_tool("delegate", "Has somebody else do it.", parameters=Task)
boss = Agent(name="boss", model=_model("boss"), output_type=Answer, tools=[add, delegate])

durable(boss)
durable(Agent(name="speaker", model=_model("speaker")))

if "WITHOUT_RECORDING" in os.environ:

    async def take(run: Any, name: str, unit: Any, *_: Any) -> Any:
        return await unit()

    for module in (models, tools, mcp):
        module.take = take  # type: ignore[attr-defined]
