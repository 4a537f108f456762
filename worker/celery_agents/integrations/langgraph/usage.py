"""What the calls of models within a step have used up: collected in the step, kept in its record, counted after it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from celery_agents.engine.run.async_run import AsyncRun

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


def spend(run: AsyncRun, usage: Mapping[str, Mapping[str, Any]]) -> None:
    """Count it, for the limits of the execution; with its price, if genai-prices is installed and knows it."""
    for model, used in usage.items():
        run.spend(tokens=used["total_tokens"], cost=_cost(model, used))


def _cost(model: str, used: Mapping[str, Any]) -> float:
    try:
        from genai_prices import Usage, calc_price
    except ImportError:
        return 0.0
    details = used.get("input_token_details") or {}
    usage = Usage(
        input_tokens=used["input_tokens"],
        output_tokens=used["output_tokens"],
        cache_read_tokens=details.get("cache_read"),
        cache_write_tokens=details.get("cache_creation"),
    )
    try:
        return float(calc_price(usage, model).total_price)
    except (LookupError, ValueError):
        return 0.0  # no price of this model is known
