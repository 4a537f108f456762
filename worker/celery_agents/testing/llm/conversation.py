"""The conversation of a request, whatever protocol it came in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message: whose (`role` is "system", "user", "assistant" or "tool"), its text, and what it calls or returns.

    `calls` are the names of the tools that the model called, `call_id` is the call that a tool's result belongs to.
    """

    role: str
    text: str = ""
    calls: tuple[str, ...] = ()
    call_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What a model is asked: all messages so far, and the names of the tools that it may call.

    `times` says how often this very request has come by now, from 1.
    """

    model: str
    turns: tuple[Turn, ...]
    tools: tuple[str, ...]
    times: int = 1

    @property
    def turn(self) -> int:
        """How often the model has spoken by now: the place of its next answer, from 0."""
        return sum(1 for turn in self.turns if turn.role == "assistant")

    @property
    def system(self) -> str:
        """What the model is told to be."""
        return "\n".join(turn.text for turn in self.turns if turn.role == "system")

    @property
    def prompt(self) -> str:
        """What the user said last."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "user"), "")

    @property
    def results(self) -> tuple[str, ...]:
        """What tools have returned since the model spoke last, in the order of the request."""
        results: list[str] = []
        for turn in reversed(self.turns):
            if turn.role == "assistant":
                break
            if turn.role == "tool":
                results.insert(0, turn.text)
        return tuple(results)


def text_of(content: Any) -> str:
    """Return the text of a message's content: a text, or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        return str(content.get("text", ""))
    if isinstance(content, Sequence):
        return "\n".join(filter(None, map(text_of, content)))
    return str(content)
