"""The agent of `tests.integrations.killing`, in Pydantic AI; imported by workers."""

import os
from typing import Any

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, RunContext
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from celery_agents.integrations.pydantic_ai import CeleryDurability, durable
from celery_agents.integrations.pydantic_ai.durability import StepBackend
from tests.integrations.killing import note


class Answer(BaseModel):
    """What the boss answers."""

    total: int
    helper: str


def _model(name: str) -> OpenAIChatModel:
    client = AsyncOpenAI(base_url=f"{os.environ['MODEL_URL']}/v1", api_key="none", max_retries=0)
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))


def add(a: int, b: int) -> int:
    """Adds."""
    note(f"add {a} {b}")
    return a + b


helper = Agent(_model("helper"), name="helper", tools=[add], capabilities=[CeleryDurability()])
boss = Agent(_model("boss"), name="boss", output_type=Answer, tools=[add], capabilities=[CeleryDurability()])


# How the tool is recorded that runs the helper: not at all, as a group, or as one step.
HOW: dict[str, Any] = {"inline": {"celery": False}, "group": {"celery": {"group": True}}, "step": {}}


@boss.tool(metadata=HOW[os.environ.get("DELEGATE", "inline")])
async def delegate(context: RunContext[None], task: str) -> str:
    """Has somebody else do it."""
    return (await helper.run(task, usage=context.usage)).output


durable(boss)
durable(Agent(_model("speaker"), name="speaker", capabilities=[CeleryDurability()]))

if "WITHOUT_RECORDING" in os.environ:

    async def execute(self: StepBackend, *, body: Any, **_: Any) -> Any:
        return await body()

    StepBackend.execute = execute  # type: ignore[method-assign]
