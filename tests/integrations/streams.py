"""What somebody sees who follows an execution, beside what is recorded of it."""

import json
from collections.abc import Iterable
from typing import Any

from agent_statestore.streams import StreamEvent
from celery_agents.client.execution import Execution
from celery_agents.client.text import TextPieces
from celery_agents.client.transcript import PartKind, Transcript


class Viewer:
    """Follows an execution as a front end does: by a transcript, and by the pieces of `stream_text`."""

    def __init__(self) -> None:
        self.transcript = Transcript()
        self.events: list[StreamEvent] = []
        self._pieces = TextPieces()
        self._texts: dict[str, str] = {}

    def see(self, events: Iterable[StreamEvent]) -> "Viewer":
        """Take what comes."""
        for event in events:
            self.events.append(event)
            self.transcript.feed(event)
            piece = self._pieces.piece_of(event)
            if piece is not None:
                self._texts[piece.step] = ("" if piece.begins_anew else self._texts.get(piece.step, "")) + piece.delta
        return self

    def texts(self) -> dict[str, str]:
        """What the models have said, by step; both ways to follow agree about it."""
        texts: dict[str, str] = {}
        for part in self.transcript.parts:
            if part.kind is PartKind.TEXT:
                texts[part.step] = texts.get(part.step, "") + part.text
        assert texts == {step: text for step, text in self._texts.items() if text}
        return texts

    def calls(self) -> list[tuple[str, str, Any]]:
        """The calls that were asked for: the step, the tool, its arguments."""
        return [
            (part.step, part.tool, json.loads(part.text or "{}"))
            for part in self.transcript.parts
            if part.kind is PartKind.TOOL_CALL
        ]

    def thoughts(self) -> list[str]:
        """What the models have thought."""
        return [part.text for part in self.transcript.parts if part.kind is PartKind.THINKING]

    def kinds(self, step: str) -> list[str]:
        """The kinds of a step's events, those beside each other as one."""
        kinds = [str(event.kind) for event in self.events if event.step == step]
        return [kind for number, kind in enumerate(kinds) if not number or kinds[number - 1] != kind]


def viewer_of(execution: Execution) -> Viewer:
    """Return what whoever follows an execution has seen when it is over."""
    return Viewer().see(execution.events(timeout=30))
