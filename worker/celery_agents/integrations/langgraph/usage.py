"""What the calls of models within a step have used up: collected in the step, and recorded with it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from celery_agents.integrations.prices import price

_collecting: Final[ContextVar[UsageMetadataCallbackHandler | None]] = ContextVar("celery_agents_usage", default=None)
register_configure_hook(_collecting, inheritable=True)


@contextmanager
def collected() -> Iterator[UsageMetadataCallbackHandler]:
    """Collect what all chat models that are called within the block use up, by model."""
    handler = UsageMetadataCallbackHandler()
    token = _collecting.set(handler)
    try:
        yield handler
    finally:
        _collecting.reset(token)


def used_up(usage: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the tokens of all models, and their price as far as it is known."""
    return {
        "tokens": sum(used["total_tokens"] for used in usage.values()),
        "cost": sum(_cost(model, used) for model, used in usage.items()),
    }


def _cost(model: str, used: Mapping[str, Any]) -> float:
    details = used.get("input_token_details") or {}
    return price(
        model,
        used["input_tokens"],
        used["output_tokens"],
        read=details.get("cache_read"),
        written=details.get("cache_creation"),
    )
