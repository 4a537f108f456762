"""Conversion of a stream's events to stored texts and back."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from agent_statestore.clock import from_us, to_us
from agent_statestore.envelope import DAMAGE, Fields, reason_of_damage, seal, unseal
from agent_statestore.errors import FormatTooNew
from agent_statestore.records import AgentStep, JSONValue, Signal, SignalKind
from agent_statestore.streams.records import WHEN_STORED, StreamEvent, StreamKind, StreamPage, StreamPart

# How many events one attempt may have: its token and the place of an event are one number, exact in a double.
_PLACES: Final = 1 << 32
# Between the parts of a mark.
_BETWEEN: Final = "\x1f"
_WAITS: Final[Mapping[SignalKind, str]] = {
    SignalKind.ANSWER: "input",
    SignalKind.APPROVAL: "approval",
    SignalKind.EVENT: "event",
}


class EncodedPart(NamedTuple):
    """Events as stored texts. `place` is that of the first one, growing from attempt to attempt; 0 from outside."""

    place: int
    texts: tuple[str, ...]


class StoredStream(NamedTuple):
    """What a backend found of a stream: (number, text) in order, and the fields of `StreamPage`."""

    events: tuple[tuple[int, str | bytes], ...]
    last: int
    trimmed_to: int
    is_over: bool


def encode_part(part: StreamPart, max_bytes: int) -> EncodedPart:
    """Return the part as stored. Raise `NotSerialisable` or `ValueTooLarge`."""
    first = part.events[0]
    place = first.attempt * _PLACES + first.seq
    return EncodedPart(place, tuple([encode_event(event, max_bytes) for event in part.events]))


def encode_stream(
    part: StreamPart | None, steps: Sequence[AgentStep], tells_steps: int, max_bytes: int
) -> EncodedPart | None:
    """Return what a checkpoint appends to the stream; see `Checkpoint.tells_steps`."""
    encoded = None if part is None else encode_part(part, max_bytes)
    if not tells_steps:
        return encoded
    recorded = [step for step in steps if step.result is not None]
    marks = tuple([_mark_of(step, seq) for seq, step in enumerate(recorded, tells_steps)])
    if encoded is not None:
        return EncodedPart(encoded.place, encoded.texts + marks)
    return EncodedPart(steps[0].attempt * _PLACES + tells_steps, marks) if marks else None


def _mark_of(step: AgentStep, seq: int) -> str:
    """Return the event of a record in short, as one is stored with every step. All in it is plain elsewhere, too."""
    action, result = step.action, step.result
    tool = "" if action.tool is None else action.tool.replace(_BETWEEN, " ")
    success = "1" if result is not None and result.success else "0"
    numbers = f"{step.step_number}{_BETWEEN}{step.attempt}{_BETWEEN}{seq}{_BETWEEN}{step.tries}"
    return _BETWEEN.join((numbers, success, action.kind, tool, step.name))


def _event_of_mark(number: int, mark: str) -> StreamEvent:
    step_number, attempt, seq, tried, success, action, tool, name = mark.split(_BETWEEN, 7)
    data: dict[str, JSONValue] = {"number": int(step_number), "action": action, "success": success == "1"}
    if tool:
        data["tool"] = tool
    return StreamEvent(
        kind=StreamKind.STEP_RECORDED,
        data=data,
        at=from_us(number),
        attempt=int(attempt),
        seq=int(seq),
        step=name,
        tried=int(tried),
        number=number,
    )


def encode_event(event: StreamEvent, max_bytes: int) -> str:
    """Return an event as stored. Raise `NotSerialisable` or `ValueTooLarge`."""
    fields: Fields = {"kind": event.kind}
    if event.at is not WHEN_STORED:
        fields["at"] = to_us(event.at)
    if event.attempt:
        fields["attempt"], fields["seq"] = event.attempt, event.seq
    if event.step:
        fields["step"], fields["tried"] = event.step, event.tried or None
    if event.data:
        fields["data"] = event.data if type(event.data) is dict else dict(event.data)
    return seal("event", fields, "event", max_bytes)


def decode_event(number: int, text: str | bytes) -> StreamEvent:
    """Return a stored event. One that cannot be read is a gap, and hides no other."""
    try:
        text = text.decode() if isinstance(text, bytes) else text
        if text[:1] != "{":
            return _event_of_mark(number, text)
        fields = unseal(text, "event")
        return StreamEvent(
            kind=fields["kind"],
            data=fields.get("data", {}),
            at=from_us(fields.get("at", number)),
            attempt=fields.get("attempt", 0),
            seq=fields.get("seq", 0),
            step=fields.get("step", ""),
            tried=fields.get("tried", 0),
            number=number,
        )
    except FormatTooNew as error:
        return _unreadable(number, str(error))
    except DAMAGE as error:
        return _unreadable(number, reason_of_damage(error))


def _unreadable(number: int, reason: str) -> StreamEvent:
    return StreamEvent(kind=StreamKind.GAP, data={"dropped": 1, "reason": reason}, at=from_us(number), number=number)


def decode_stream(stored: StoredStream) -> StreamPage:
    """Return a page of a stored stream."""
    return StreamPage(
        events=tuple([decode_event(number, text) for number, text in stored.events]),
        last=stored.last,
        trimmed_to=stored.trimmed_to,
        is_over=stored.is_over,
    )


def event_of_signal(signal: Signal, max_bytes: int) -> str | None:
    """Return the event as stored that tells of an accepted signal; None if a stream does not tell of its kind.

    It has no time, which only the store knows: that of its number counts.
    """
    told = _told_of(signal)
    if told is None:
        return None
    kind, data = told
    fields: Fields = {"kind": kind, "data": {name: value for name, value in data.items() if value is not None}}
    return seal("event", fields, "event", max_bytes)


def _told_of(signal: Signal) -> tuple[StreamKind, dict[str, JSONValue]] | None:
    by: dict[str, JSONValue] = {"sender": signal.sender, "reason": signal.reason}
    if signal.kind is SignalKind.CANCEL:
        return StreamKind.CANCEL_REQUESTED, {**by, "now": signal.payload}
    if signal.kind is SignalKind.SAY:
        return StreamKind.SAID, {"text": signal.payload, "mode": signal.key, **by}
    wait = _WAITS.get(signal.kind)
    if wait is None:
        return None
    answer: dict[str, JSONValue] = {"wait": wait, "key": signal.key, "round": signal.round, "value": signal.payload}
    return StreamKind.ANSWERED, answer | by
