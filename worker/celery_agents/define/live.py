"""What an agent, a step or a tool says into the stream of its execution, live, for whoever follows it."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from agent_statestore.envelope import dump, load
from agent_statestore.records import JSONValue, require_name
from agent_statestore.streams.records import StreamKind

# Says one event: its kind, and its data, which nobody else has.
Say: TypeAlias = Callable[[StreamKind, dict[str, JSONValue]], object]

_MOST_EMITTED_BYTES: Final = 256 * 1024


def silent(kind: StreamKind, data: dict[str, JSONValue]) -> None:
    """Say nothing: nobody follows what no execution does."""
    del kind, data


class LiveStream:
    """The stream of an execution, for the code that is at work in it. It never waits for a store.

    What is said inside a step belongs to that step and its try: when the try fails, or its worker dies, readers are
    told to forget it. Texts in pieces are stored some times a second, not one by one. If the store is away for long,
    pieces are dropped, and a gap is told.
    """

    __slots__ = ("_say",)

    def __init__(self, say: Say = silent) -> None:
        self._say = say

    def emit(self, value: JSONValue) -> None:
        """Say something of the agent's own: any JSON value of up to 256 KB.

        Raise `NotSerialisable` or `ValueTooLarge`.
        """
        self._say(StreamKind.EMITTED, {"value": load(dump(value, "event", _MOST_EMITTED_BYTES))})

    def text(self, delta: str) -> None:
        """Say the next piece of the text that a model answers with."""
        if delta:
            self._say(StreamKind.TEXT, {"delta": _carried(delta)})

    def thinking(self, delta: str) -> None:
        """Say the next piece of what a model thinks."""
        if delta:
            self._say(StreamKind.THINKING, {"delta": _carried(delta)})

    def tool_call(
        self,
        call_id: str,
        tool: str,
        *,
        delta: str | None = None,
        arguments: JSONValue = None,
    ) -> None:
        """Say that a model asks for a tool: the next piece of the arguments' JSON text, or all `arguments`.

        Raise `NotSerialisable` or `ValueTooLarge`.
        """
        require_name("call_id", call_id)
        data: dict[str, Any] = {"id": call_id, "tool": tool}
        if delta is not None:
            data["delta"] = _carried(delta)
        if arguments is not None:
            data["arguments"] = load(dump(arguments, "arguments", _MOST_EMITTED_BYTES))
        self._say(StreamKind.TOOL_CALL, data)


SILENT: Final = LiveStream()


def _carried(delta: str) -> str:
    """Return what JSON carries of a piece of text: half a character, as some APIs cut them, becomes a mark."""
    return delta if delta.isascii() else delta.encode("utf-8", "replace").decode()
