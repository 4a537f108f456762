"""Models whose requests are steps: made once, recorded, and after a crash taken from the record."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from agents.items import ModelResponse, TResponseStreamEvent
from agents.models.interface import Model, ModelProvider
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest

from celery_agents.define.called_as import CalledAs
from celery_agents.define.saying import CallInterrupted
from celery_agents.engine.run.async_run import AsyncRun
from celery_agents.integrations.feeding import feed
from celery_agents.integrations.openai_agents.counting import used_up
from celery_agents.integrations.openai_agents.responses import (
    as_last,
    as_response,
    is_last,
    of_last,
    of_response,
    tokens_of,
    tokens_of_response,
)
from celery_agents.integrations.openai_agents.scope import RunScope, label, scope_around, told_here
from celery_agents.integrations.openai_agents.speaking import Telling, answer
from celery_agents.integrations.steps import durable_run, take


class DurableModel(Model):
    """A model whose requests are steps in the code of an execution, and elsewhere what they were."""

    def __init__(self, model: Model, name: str | None = None) -> None:
        own = getattr(model, "model", None)
        self._model = model
        self._name = str(own) if own else name or type(model).__name__

    async def get_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002 - the interface's name
        *args: Any,
        **kwargs: Any,
    ) -> ModelResponse:
        """See `Model`."""
        run, scope = durable_run(), scope_around()
        if run is None or scope is None:
            return await answer(self._model, system_instructions, input, *args, **kwargs)

        async def unit(asked: Any) -> Any:
            return of_response(await answer(self._model, system_instructions, asked, *args, **kwargs))

        def used(recorded: Any) -> dict[str, float]:
            return used_up(self._name, *tokens_of_response(as_response(recorded)))

        return as_response(await self._taken(run, scope, input, unit, used))

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002
        *args: Any,
        **kwargs: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """See `Model`. What is recorded is the last event, with the whole answer: all that a replay yields."""
        run, scope = durable_run(), scope_around()
        if run is None or scope is None:
            async for event in self._model.stream_response(system_instructions, input, *args, **kwargs):
                yield event
            return
        events: asyncio.Queue[TResponseStreamEvent | None] = asyncio.Queue()

        async def unit(asked: Any) -> Any:
            telling = Telling(feed())
            async for event in self._model.stream_response(system_instructions, asked, *args, **kwargs):
                telling.event(event)
                if is_last(event):
                    return of_last(event)
                events.put_nowait(event)
            raise ConnectionError("the stream of the model's answer broke off")

        def used(recorded: Any) -> dict[str, float]:
            return used_up(self._name, *tokens_of(as_last(recorded)))

        taking = asyncio.ensure_future(self._taken(run, scope, input, unit, used))
        taking.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (live := await events.get()) is not None:
                yield live
            last = as_last(await taking)
        finally:
            taking.cancel()
        yield last

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """See `Model`."""
        return self._model.get_retry_advice(request)

    async def close(self) -> None:
        """See `Model`."""
        await self._model.close()

    async def _taken(self, run: AsyncRun, scope: RunScope, asked: Any, unit: Any, used: Any) -> Any:
        told = told_here()
        if told is not None:
            await told.hear(run, asked)
        while True:
            given = asked if told is None else told.put_into(asked)
            count = len(given) if isinstance(given, list) else 1
            title = f"{self._name}, {count} item{'s' * (count != 1)}"
            called = CalledAs(kind="model", name=self._name, title=title)
            try:
                return await take(run, f"{label()} model", partial(unit, given), scope.options.of_models, called, used)
            except CallInterrupted as interrupted:
                if told is not None:
                    await told.hear_interrupted(run, asked, interrupted)


class DurableProvider(ModelProvider):
    """Hands out durable models by name: those of agents that have no model of their own."""

    def __init__(self, provider: ModelProvider) -> None:
        self._provider = provider

    def get_model(self, model_name: str | None) -> Model:
        """See `ModelProvider`."""
        return durable_model(self._provider.get_model(model_name), model_name)

    async def aclose(self) -> None:
        """See `ModelProvider`."""
        await self._provider.aclose()


def durable_model(model: Model, name: str | None = None) -> Model:
    """Return the model with its requests as steps."""
    return model if isinstance(model, DurableModel) else DurableModel(model, name)


def durable_provider(provider: ModelProvider) -> ModelProvider:
    """Return the provider with its models' requests as steps."""
    return provider if isinstance(provider, DurableProvider) else DurableProvider(provider)
