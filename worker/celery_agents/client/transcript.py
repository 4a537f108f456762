"""What an execution has said so far, made from the events of its stream: the texts that count, by step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from agent_statestore.records import JSONValue
from agent_statestore.streams import StreamEvent, StreamKind

_CLAIMS: Final = frozenset((StreamKind.STARTED, StreamKind.RESUMED, StreamKind.RECOVERED))
_SPOKEN: Final = frozenset((StreamKind.TEXT, StreamKind.THINKING, StreamKind.TOOL_CALL, StreamKind.EMITTED))
# What a checkpoint tells. With it is stored how much was said between steps before it, and so is not said again.
_STORED: Final = frozenset((StreamKind.STEP_RECORDED, StreamKind.PAUSED, StreamKind.ENDED))


class PartKind(StrEnum):
    """What is said: a model's text, what it thinks, the call of a tool that it asks for; or what the agent emits."""

    TEXT = "text"
    THINKING = "thinking"
    TOOL_CALL = "tool_call"
    EMITTED = "emitted"


@dataclass(slots=True, kw_only=True)
class Part:
    """A piece of what a step says, of one kind.

    Attributes:
        id: unique in the execution; the same again for whoever reads the stream again.
        text: what was said by now; for the call of a tool its arguments as JSON, perhaps unfinished.
        call_id, tool, arguments: of the call of a tool; the arguments once they are whole.
        value: of what was emitted.
    """

    id: str
    kind: PartKind
    step: str
    text: str = ""
    call_id: str = ""
    tool: str = ""
    arguments: Mapping[str, JSONValue] | None = None
    value: JSONValue = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Something was said: `delta` came to the end of the text of `part`; "" if only the arguments became whole."""

    part: Part
    delta: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    """These parts of a step are void: it is tried anew, and says it again."""

    step: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The step is recorded: its parts stay as they are. Also what was said between steps, with step "", stays."""

    step: str
    parts: tuple[Part, ...]


Change: TypeAlias = Added | Discarded | Recorded


@dataclass(slots=True)
class _Spoken:
    """What one step says: its parts by that claim and try (`version`) which counts; older ones are void."""

    parts: list[Part] = field(default_factory=list)
    version: tuple[int, int] = (0, 0)
    is_recorded: bool = False


_Key: TypeAlias = tuple[str, int]


class Transcript:
    """What the model calls of an execution have said, without what was said in vain.

    It is fed with the stream's events in order. One that it has seen is ignored, so whoever connects again may start
    at any number that was seen, or from the beginning. `feed` returns what changed, for a display that follows; the
    whole is in `parts` and `text`.

    A step's words are void when its try fails, when a newer try speaks, and when the execution is claimed anew before
    the step was recorded. Words of a try that is over, or of a recorded step, are late and ignored. What is said
    between steps is void when the execution is claimed anew before anything else was recorded.

    Attributes:
        last: the number of the newest event that it has seen; 0 for none.
        trimmed_to: what was said in events up to this number may be missing, because they were removed; 0 for none.
        is_over: whether the execution was over at the newest event.
    """

    def __init__(self) -> None:
        self.last = 0
        self.trimmed_to = 0
        self.is_over = False
        # By the step's name, and a number that is 0 for steps: between steps, it grows with each checkpoint.
        self._steps: dict[_Key, _Spoken] = {}
        self._between = 0

    def feed(self, event: StreamEvent) -> tuple[Change, ...]:
        """Take an event; return what it changes, in order."""
        if event.number is not None:
            if event.number <= self.last:
                return ()
            self.last = event.number
        if event.kind in _SPOKEN:
            return tuple(self._spoken(event))
        if event.kind in _CLAIMS:
            self.is_over = False  # somebody released it by hand
            return tuple(change for key in list(self._steps) for change in self._discard(key, (event.attempt, 0)))
        if event.kind in _STORED:
            self.is_over = event.kind == StreamKind.ENDED
            return tuple(self._stored(event))
        if event.kind == StreamKind.TRY_FAILED:
            return tuple(self._discard((event.step, 0), (event.attempt, event.tried + 1)))
        if event.kind == StreamKind.TRIMMED:
            self.trimmed_to = self.last
        return ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that counts by now, in the order in which it began; also of steps that are not recorded yet."""
        return tuple(part for spoken in self._steps.values() for part in spoken.parts)

    @property
    def text(self) -> str:
        """All texts that count by now, joined."""
        return "".join(part.text for part in self.parts if part.kind is PartKind.TEXT)

    def of_step(self, step: str) -> tuple[Part, ...]:
        """Return what this step says; with "", what is said between steps."""
        return tuple(part for key, spoken in self._steps.items() if key[0] == step for part in spoken.parts)

    def is_recorded(self, step: str) -> bool:
        """Return whether this step's result is stored, so that what it said stays."""
        spoken = self._steps.get((step, 0))
        return spoken is not None and spoken.is_recorded

    def _spoken(self, event: StreamEvent) -> Iterator[Change]:
        version = (event.attempt, event.tried)
        key = (event.step, 0 if event.step else self._between)
        spoken = self._steps.get(key)
        if spoken is not None:
            if spoken.is_recorded or version < spoken.version:
                return
            yield from self._discard(key, version)
        if spoken is None or not spoken.parts:
            # Where it speaks again, it takes its place anew: the order is that in which what counts was said.
            self._steps.pop(key, None)
            spoken = self._steps[key] = _Spoken(version=version)
        part, delta = _say(spoken.parts, event)
        yield Added(part=part, delta=delta)

    def _discard(self, key: _Key, version: tuple[int, int]) -> Iterator[Change]:
        """Void what was said there before this claim and try, and note that older ones are over."""
        spoken = self._steps.setdefault(key, _Spoken())
        if spoken.is_recorded or version <= spoken.version:
            return
        spoken.version = version
        if spoken.parts:
            parts, spoken.parts = tuple(spoken.parts), []
            yield Discarded(step=key[0], parts=parts)

    def _stored(self, event: StreamEvent) -> Iterator[Change]:
        if event.kind == StreamKind.STEP_RECORDED:
            yield from self._record((event.step, 0))
        between = self._steps.get(("", self._between))
        if between is not None and between.parts:
            yield from self._record(("", self._between))
            self._between += 1

    def _record(self, key: _Key) -> Iterator[Change]:
        spoken = self._steps.setdefault(key, _Spoken())
        if not spoken.is_recorded:
            spoken.is_recorded = True
            yield Recorded(step=key[0], parts=tuple(spoken.parts))


def _say(parts: list[Part], event: StreamEvent) -> tuple[Part, str]:
    """Note what is said, in the last part if it goes on there; return the part and what came to its end."""
    kind, delta = PartKind(event.kind), _text_of(event.data.get("delta"))
    if kind is PartKind.EMITTED:
        part = _begun(parts, event, kind)
        part.value = event.data.get("value")
        return part, ""
    if kind is PartKind.TOOL_CALL:
        part = _call(parts, event)
        arguments = event.data.get("arguments")
        if isinstance(arguments, Mapping):
            part.arguments = arguments
    elif parts and parts[-1].kind is kind:
        part = parts[-1]
    else:
        part = _begun(parts, event, kind)
    part.text += delta
    return part, delta


def _call(parts: list[Part], event: StreamEvent) -> Part:
    """Return the part of this call of a tool: calls that are asked for at once come in pieces, in any order."""
    call_id, tool = _text_of(event.data.get("id")), _text_of(event.data.get("tool"))
    for part in parts:
        if part.kind is PartKind.TOOL_CALL and part.call_id == call_id:
            part.tool = part.tool or tool
            return part
    part = _begun(parts, event, PartKind.TOOL_CALL)
    part.call_id, part.tool = call_id, tool
    return part


def _begun(parts: list[Part], event: StreamEvent, kind: PartKind) -> Part:
    # Between steps a number that comes again would name another part: that of the event does not.
    place = f"{event.attempt}.{event.tried}.{len(parts)}" if event.step else f"{event.number}"
    part = Part(id=f"{event.step}:{place}", kind=kind, step=event.step)
    parts.append(part)
    return part


def _text_of(value: JSONValue) -> str:
    return value if isinstance(value, str) else ""
