"""Models of the OpenAI Agents SDK that are called for their answers in pieces, which whoever follows an execution sees.

What comes of it is what the model returns without: the answer that the last event has.
"""

import dataclasses
from typing import Any, Final

from agents import ModelSettings, Usage
from agents.exceptions import ModelBehaviorError
from agents.items import ModelResponse, TResponseStreamEvent
from agents.models.fake_id import FAKE_RESPONSES_ID
from agents.models.interface import Model
from openai.types.responses import Response, ResponseFailedEvent, ResponseFunctionToolCall, ResponseOutputMessage

from celery_agents.integrations.feeding import Feed, feed
from celery_agents.integrations.openai_agents.responses import is_last

_TEXT: Final = "response.output_text.delta"
_THINKING: Final = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
_ITEM: Final = "response.output_item.added"
_ARGUMENTS: Final = "response.function_call_arguments.delta"


class AnswerBrokeOff(ModelBehaviorError):
    """The service has failed in the middle of an answer. `code` is its word for why."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class Telling:
    """Tells the events of one answer; and what came at its end without having been told in pieces."""

    def __init__(self, stream: Feed | None) -> None:
        self._stream = stream
        self._has_text = False
        # By the place in the answer: the call's id and tool, and whether any of its arguments came.
        self._calls: dict[int, tuple[str, str]] = {}
        self._told: set[str] = set()

    def event(self, event: TResponseStreamEvent) -> None:
        """Tell what an event brings. Raise `AnswerBrokeOff` for one that is an error."""
        kind = event.type
        if kind in ("error", "response.error"):
            raise AnswerBrokeOff(f"the service failed: {getattr(event, 'message', '')}", getattr(event, "code", None))
        if isinstance(event, ResponseFailedEvent):
            error = event.response.error
            raise AnswerBrokeOff(f"the service failed: {error.message if error else ''}", error.code if error else None)
        stream = self._stream
        if stream is None:
            return
        given: Any = event
        if kind == _TEXT:
            self._has_text = True
            stream.text(given.delta)
        elif kind in _THINKING:
            stream.thinking(given.delta)
        elif kind == _ITEM and isinstance(given.item, ResponseFunctionToolCall):
            self._calls[given.output_index] = given.item.call_id, given.item.name
            stream.call(given.item.call_id, given.item.name)
        elif kind == _ARGUMENTS and given.output_index in self._calls:
            call_id, tool = self._calls[given.output_index]
            self._told.add(call_id)
            stream.call(call_id, tool, given.delta)
        elif is_last(event):
            self.whole(given.response.output)

    def whole(self, output: list[Any]) -> None:
        """Tell what was not told in pieces."""
        if self._stream is None:
            return
        for item in output:
            if isinstance(item, ResponseOutputMessage) and not self._has_text:
                for part in item.content:
                    self._stream.text(getattr(part, "text", None))
            elif isinstance(item, ResponseFunctionToolCall) and item.call_id not in self._told:
                self._stream.call(item.call_id, item.name, item.arguments)


async def answer(model: Model, system_instructions: str | None, given: Any, *args: Any, **kwargs: Any) -> ModelResponse:
    """Return what `get_response` does, and tell it while it comes, if somebody could follow."""
    stream = feed()
    if stream is None:
        return await model.get_response(system_instructions, given, *args, **kwargs)
    telling, has_begun = Telling(stream), False
    in_pieces = _with_usage(args, kwargs)
    if in_pieces is not None:
        last: Response | None = None
        try:
            async for event in model.stream_response(system_instructions, given, *in_pieces[0], **in_pieces[1]):
                has_begun = True
                telling.event(event)
                if is_last(event):
                    last = event.response  # type: ignore[union-attr]
        except NotImplementedError:
            if has_begun:
                raise
        else:
            if last is None:
                raise ConnectionError("the stream of the model's answer broke off")
            return _as_response(last)
    response = await model.get_response(system_instructions, given, *args, **kwargs)
    telling.whole(response.output)
    return response


def _with_usage(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return the arguments of a request in pieces that also brings what it used up; None if it may not be in pieces."""
    settings: ModelSettings = args[0] if args else kwargs["model_settings"]
    if settings.include_usage is False or settings.preserve_raw_usage:
        return None
    settings = dataclasses.replace(settings, include_usage=True)
    return ((settings, *args[1:]), kwargs) if args else (args, {**kwargs, "model_settings": settings})


def _as_response(last: Response) -> ModelResponse:
    used = last.usage
    return ModelResponse(
        output=last.output,
        usage=Usage()
        if used is None
        else Usage(
            requests=1,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            total_tokens=used.total_tokens,
            input_tokens_details=used.input_tokens_details,
            output_tokens_details=used.output_tokens_details,
        ),
        # Of a service that gives no ids, the SDK makes this one up.
        response_id=None if last.id == FAKE_RESPONSES_ID else last.id,
        request_id=getattr(last, "_request_id", None),
    )
