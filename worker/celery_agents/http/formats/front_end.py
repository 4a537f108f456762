"""What the formats of front ends have in common: they tell a talk, and know where a viewer comes in."""

import json
from abc import ABC, abstractmethod
from typing import ClassVar, Final

from agent_statestore.records import ExecutionSummary, JSONValue
from agent_statestore.streams import StreamEvent
from celery_agents.http.formats.sse import message
from celery_agents.http.formats.talk import Line, Talk, Waiting


class Voice(ABC):
    """Says the lines of a talk in the words of a front end.

    Attributes:
        is_done: whether the response is to end here: the execution is over, or waits for the viewer.
        said: the messages that were not sent yet.
    """

    def __init__(self, summary: ExecutionSummary) -> None:
        self.summary: Final = summary
        self.talk: Final = Talk(summary.execution_id)
        self.is_done = False
        self.said: Final[list[str]] = []

    def put(self, type: str, /, **fields: JSONValue) -> None:  # noqa: A002 - the field's name
        """Send an object."""
        self.said.append(json.dumps({"type": type, **fields}))

    @abstractmethod
    def greet(self, after: int) -> None:
        """Open the response of a viewer who has seen all up to `after`."""

    @abstractmethod
    def catch_up(self) -> None:
        """What was said up to the viewer's place is known now: bring the viewer there."""

    @abstractmethod
    def say(self, line: Line) -> None:
        """Say a line."""

    @abstractmethod
    def close(self) -> None:
        """Close the response: the execution is over, and its stream does not tell how."""


class FrontEndFormat:
    """An `EventFormat` that a `Voice` speaks.

    Attributes:
        needs_outputs: whether the events have to hold what tools have returned; see `outputs.with_outputs`.
        known_to: the number of the newest event when the request came; a pause before that is over, and not told.
    """

    headers: ClassVar[tuple[tuple[str, str], ...]] = ()
    needs_past: ClassVar[bool] = True
    needs_outputs: ClassVar[bool] = True

    def __init__(self, voice: Voice) -> None:
        self.known_to = 0
        self._voice = voice
        self._after = 0
        self._is_live = False

    @property
    def is_done(self) -> bool:
        """Whether the response is to end here: the execution is over, or waits for the viewer."""
        return self._voice.is_done

    def begin(self, after: int) -> bytes:
        """Return what opens the response; see `EventFormat`."""
        self._after = after
        self._is_live = after == 0
        self._voice.greet(after)
        return self._sent(None)

    def tell(self, event: StreamEvent) -> bytes:
        """Return what an event becomes; see `EventFormat`."""
        voice = self._voice
        is_past = event.number is not None and event.number <= self._after
        if not is_past:
            self._catch_up()
        for line in voice.talk.feed(event):
            if not (isinstance(line, Waiting) and (event.number or 0) < self.known_to):
                voice.say(line)
        if is_past:
            voice.is_done = False
            voice.said.clear()
        return self._sent(event.number)

    def end(self) -> bytes:
        """Return what closes the response; see `EventFormat`."""
        self._catch_up()
        if not self.is_done:
            self._voice.close()
        return self._sent(None)

    def _catch_up(self) -> None:
        if not self._is_live:
            self._is_live = True
            self._voice.catch_up()

    def _sent(self, number: int | None) -> bytes:
        said = self._voice.said
        sent = [message(data, id=number if place == len(said) - 1 else None) for place, data in enumerate(said)]
        said.clear()
        return b"".join(sent)
