"""What the agents within a step use up: the requests of a run that is a part of a tool's one step."""

from collections.abc import Mapping
from typing import Any

from agents import RunHooks
from agents.items import ModelResponse

from celery_agents.engine.run.current_run import current_step, spend
from celery_agents.integrations.openai_agents.responses import tokens_of_response
from celery_agents.integrations.prices import price


def used_up(model: str, asked: int, answered: int, cached: int) -> dict[str, float]:
    """Return the tokens of a request, and its price as far as it is known."""
    return {"tokens": asked + answered, "cost": price(model, asked, answered, read=cached)}


def counted(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run, with its requests counted for the step that it is a part of, if it is."""
    if current_step() is None:
        return dict(options)
    return {**options, "hooks": _Counting(options.get("hooks"))}


class _Counting(RunHooks[Any]):
    """Counts the requests, and otherwise does what the hooks of the run do."""

    def __init__(self, hooks: RunHooks[Any] | None) -> None:
        own = hooks or RunHooks()
        self._hooks = own
        self.on_llm_start = own.on_llm_start  # type: ignore[method-assign]
        self.on_agent_start = own.on_agent_start  # type: ignore[method-assign]
        self.on_agent_end = own.on_agent_end  # type: ignore[method-assign]
        self.on_handoff = own.on_handoff  # type: ignore[method-assign]
        self.on_tool_start = own.on_tool_start  # type: ignore[method-assign]
        self.on_tool_end = own.on_tool_end  # type: ignore[method-assign]

    async def on_llm_end(self, context: Any, agent: Any, response: ModelResponse) -> None:
        """See `RunHooks`."""
        model = getattr(agent.model, "model", agent.model)
        spend(**used_up(str(model or ""), *tokens_of_response(response)))
        await self._hooks.on_llm_end(context, agent, response)
