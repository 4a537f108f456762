"""Models of Pydantic AI that are called for their answers in pieces, so that whoever follows an execution sees them.

What a request returns, and what is recorded of it, is the same as without: the answer that the pieces make up.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from pydantic_ai.messages import (
    BaseToolCallPart,
    ModelMessage,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPartDelta,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext

from celery_agents.integrations.feeding import Feed, feed

# Settings that have a service answer later, to another request.
_LATER: Final = frozenset({"openai_background"})


class SpeakingModel(WrapperModel):
    """A model whose answers are told to the stream of the execution while they come."""

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """See `Model`."""
        given = messages, model_settings, model_request_parameters
        stream = feed()
        if stream is None:
            return await self.wrapped.request(*given)
        if _is_asked_whole(self.wrapped, messages, model_settings):
            return _told(await self.wrapped.request(*given), stream)
        opened = False
        try:
            async with self.wrapped.request_stream(*given) as streamed:
                opened = True
                async for _ in _tapped(aiter(streamed), stream):
                    pass
            # After its end, which may fill something in.
            return streamed.get()
        except NotImplementedError:
            if opened:
                raise
        return _told(await self.wrapped.request(*given), stream)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """See `Model`: what the run's own handler of events sees is told as well."""
        given = messages, model_settings, model_request_parameters, run_context
        async with self.wrapped.request_stream(*given) as streamed:
            stream = feed()
            if stream is not None and streamed._event_iterator is not None:  # its first event was looked at
                streamed._event_iterator = _tapped(streamed._event_iterator, stream)
            elif stream is not None:
                # Whoever iterates it, gets this, under whatever deadline it is put.
                events = streamed._get_event_iterator
                streamed._get_event_iterator = lambda: _tapped(events(), stream)  # type: ignore[method-assign]
            yield streamed


def _is_asked_whole(model: Model, messages: list[ModelMessage], settings: ModelSettings | None) -> bool:
    """Return whether a model cannot be asked for pieces, or would do something else than without."""
    while isinstance(model, WrapperModel):
        model = model.wrapped
    last = messages[-1] if messages else None
    return (
        # It tries one model after the other, which it does not once one has begun to speak.
        isinstance(model, FallbackModel)
        # A model of tests without a function for that.
        or getattr(model, "stream_function", model) is None
        or (isinstance(last, ModelResponse) and last.state == "suspended")
        or not _LATER.isdisjoint(settings or ())
    )


async def _tapped(
    events: AsyncIterator[ModelResponseStreamEvent], stream: Feed
) -> AsyncIterator[ModelResponseStreamEvent]:
    """Yield the events of an answer, and tell what they bring."""
    calls: dict[int, tuple[str, str]] = {}
    async for event in events:
        if isinstance(event, PartStartEvent):
            part = event.part
            if isinstance(part, TextPart):
                stream.text(part.content)
            elif isinstance(part, ThinkingPart):
                stream.thinking(part.content)
            elif isinstance(part, BaseToolCallPart):
                calls[event.index] = part.tool_call_id, part.tool_name
                stream.call(*calls[event.index], part.args)
        elif isinstance(event, PartDeltaEvent):
            delta = event.delta
            if isinstance(delta, TextPartDelta):
                stream.text(delta.content_delta)
            elif isinstance(delta, ThinkingPartDelta):
                stream.thinking(delta.content_delta)
            elif isinstance(delta, ToolCallPartDelta) and delta.args_delta and event.index in calls:
                stream.call(*calls[event.index], delta.args_delta)
        yield event


def _told(response: ModelResponse, stream: Feed) -> ModelResponse:
    """Tell an answer that came whole, and return it."""
    for part in response.parts:
        if isinstance(part, TextPart):
            stream.text(part.content)
        elif isinstance(part, ThinkingPart):
            stream.thinking(part.content)
        elif isinstance(part, BaseToolCallPart):
            stream.call(part.tool_call_id, part.tool_name, part.args)
    return response
