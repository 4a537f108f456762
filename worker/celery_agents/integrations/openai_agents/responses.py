"""What is recorded of a model's answer: the answer alone, whole or streamed, in the form of the Responses API."""

from typing import Any, Final

from agents.items import ModelResponse, TResponseStreamEvent
from openai.types.responses import (
    ResponseCompletedEvent,
    ResponseFailedEvent,
    ResponseIncompleteEvent,
)
from pydantic import TypeAdapter

# How a stream ends.
Last = ResponseCompletedEvent | ResponseFailedEvent | ResponseIncompleteEvent

_RESPONSES: Final[TypeAdapter[ModelResponse]] = TypeAdapter(ModelResponse)
_LAST: Final[TypeAdapter[Last]] = TypeAdapter(Last)
# The service repeats in its answer what it was asked with. Nobody reads that, and it would be recorded each time.
_REPEATED: Final[dict[str, Any]] = {"tools": [], "instructions": None}


def of_response(response: ModelResponse) -> Any:
    """Return an answer as JSON.

    Only what was set: an unset field that comes back as None would make another call of a tool's call, and an approval
    of the one would not count for the other.
    """
    return _RESPONSES.dump_python(response, mode="json", exclude_unset=True)


def as_response(recorded: Any) -> ModelResponse:
    """Return the answer of its JSON."""
    return _RESPONSES.validate_python(recorded)


def is_last(event: TResponseStreamEvent) -> bool:
    """Return whether this event ends a stream, and holds the whole answer."""
    return isinstance(event, ResponseCompletedEvent | ResponseFailedEvent | ResponseIncompleteEvent)


def of_last(event: Any) -> Any:
    """Return the last event of a stream as JSON."""
    recorded = event.model_dump(mode="json", exclude_unset=True)
    recorded["response"] = {name: _REPEATED.get(name, value) for name, value in recorded["response"].items()}
    return recorded


def as_last(recorded: Any) -> Last:
    """Return the last event of its JSON."""
    return _LAST.validate_python(recorded)


def tokens_of(event: Any) -> tuple[int, int, int]:
    """Return the tokens that a streamed answer took: of the question, of the answer, and from the service's cache."""
    usage = event.response.usage
    if usage is None:
        return 0, 0, 0
    return usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens


def tokens_of_response(response: ModelResponse) -> tuple[int, int, int]:
    """Return the same of a whole answer."""
    usage = response.usage
    return usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens
