"""What a model answers: words, calls of tools, or an error of its service, at once or in the middle."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from celery_agents.testing.llm.conversation import Conversation


@dataclass(frozen=True, slots=True)
class Says:
    """The model answers with this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool, with its arguments. The `id` is made of its place in the conversation if it is empty."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""


class Calls:
    """The model calls tools, at once, and says `text` before."""

    def __init__(self, *calls: Call, text: str = "") -> None:
        self.calls = calls
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuses:
    """The service answers with an error: a `status` of 400 or more, and headers such as `retry-after`."""

    status: int
    message: str = "refused by the script"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreaksOff:
    """The model begins to say `text`, and its answer ends in the middle: with an error of its service, or else with the
    connection. Whoever asks for the answer whole gets the error, or none.
    """

    text: str
    error: Refuses | None = None


Reply: TypeAlias = Says | Calls | Refuses | BreaksOff

# By turn of the model in the conversation, or decided from the conversation. Not by how often the server was asked: a
# request that comes again, after a crash, gets the answer that it got before.
Script: TypeAlias = Sequence[Reply] | Callable[[Conversation], Reply]


def reply_of(script: Script, conversation: Conversation) -> Reply:
    """Return what the script answers. Raise `LookupError` where it has come to its end."""
    if callable(script):
        return script(conversation)
    if conversation.turn >= len(script):
        raise LookupError(f"the script has {len(script)} replies, and turn {conversation.turn} was asked for")
    return script[conversation.turn]
