"""What requests have used up, and what a call of a tool has added to the usage of its run: both recorded with the step.

A tool gets the usage of its run (`ctx.usage`) and hands it to a sub-agent, which counts its requests there. That is a
change in memory, which a replay would not make again. So each call counts by itself, and what it has counted stands
beside its result and is added from there, on the first run too.
"""

import copy
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pydantic
from pydantic_ai.messages import ModelResponse
from pydantic_ai.tools import RunContext
from pydantic_ai.usage import RunUsage

_RESPONSE: Final = pydantic.TypeAdapter(ModelResponse)
_USAGE: Final = pydantic.TypeAdapter(RunUsage)
_KEY: Final = "celery_agents.usage"


def used_by(response: ModelResponse) -> dict[str, float]:
    """Return the tokens of a request, and its price as far as it is known."""
    return {"tokens": response.usage.total_tokens, "cost": _cost(response)}


def used_by_recorded(recorded: Any) -> dict[str, float]:
    """Return the same of what a step records: nothing, if that is no model's answer."""
    if not isinstance(recorded, dict) or recorded.get("kind") != "response":
        return {}
    return used_by(_RESPONSE.validate_python({**recorded, "parts": []}))


def _cost(response: ModelResponse) -> float:
    try:
        return float(response.cost().total_price)
    except (LookupError, ValueError, AssertionError):
        return 0.0  # genai-prices knows no price of this model


class UsageOfCall:
    """What one call of a tool adds to the usage of its run."""

    def __init__(self, context: RunContext[Any]) -> None:
        self._context = context
        self._of_run = context.usage

    async def recorded(self, body: Callable[[], Awaitable[object]]) -> object:
        """Return what is to be recorded of the call."""
        context = self._context
        context.usage = own = copy.deepcopy(self._of_run)
        before = copy.deepcopy(own)
        try:
            result = await body()
        finally:
            context.usage = self._of_run
        added = own - before
        if isinstance(result, dict) and added != RunUsage():
            result = {**result, _KEY: _USAGE.dump_python(added, mode="json")}
        return result

    def counted(self, recorded: Any) -> Any:
        """Return the result of what is recorded, once its usage is added to that of the run."""
        if not isinstance(recorded, dict) or _KEY not in recorded:
            return recorded
        result = dict(recorded)
        self._of_run.incr(_USAGE.validate_python(result.pop(_KEY)))
        return result
