"""The events of an execution's stream, as they are written and read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import JSONValue, Lease, require_name

# How many events one part has at most, and how many one page.
MOST_EVENTS: Final = 10_000
MOST_READ: Final = 1_000
# Stands for the time at which the store appends an event.
WHEN_STORED: Final = datetime.min.replace(tzinfo=UTC)


class StreamKind(StrEnum):
    """What happened, and what `StreamEvent.data` then holds; a value that is unknown is left out.

    * `started`: the first claim; {worker}. `resumed`: a claim after a pause or a drain; {worker}. `recovered`: a claim
      after one that was lost; {worker, from_attempt}.
    * `step_started`: a step that takes longer than a moment is under way; {action, tool, arguments}. `try_failed`: a
      try of it failed; {type, message, next_in}: `next_in` in seconds, absent if it was the last try. `step_recorded`:
      the store has its result; {number, action, success, tool}.
    * `text`, `thinking`: what a model says; {delta}. `tool_call`: the call of a tool that it asks for; {id, tool,
      delta, arguments}.
    * `emitted`: the agent's own event; {value}.
    * `asked`: somebody or something is waited for; {wait, key, round, prompt, schema, until}. `answered`: a signal has
      arrived; {wait, key, round, sender, value}. `said`: somebody said something to the running execution; {text, mode,
      sender}. `cancel_requested`: {sender, reason, now}.
    * `paused`: {waits}, a list of what `asked` holds. `drained`: the worker shuts down; another claim goes on; {}.
      `ended`: {state, output, error}.
    * `gap`: events were dropped here, because the store could not take them; {dropped}.
    * `trimmed`: the reader's own word, never stored: all up to its number were removed; {up_to}.
    """

    STARTED = "started"
    RESUMED = "resumed"
    RECOVERED = "recovered"
    STEP_STARTED = "step_started"
    TRY_FAILED = "try_failed"
    STEP_RECORDED = "step_recorded"
    TEXT = "text"
    THINKING = "thinking"
    TOOL_CALL = "tool_call"
    EMITTED = "emitted"
    ASKED = "asked"
    ANSWERED = "answered"
    SAID = "said"
    CANCEL_REQUESTED = "cancel_requested"
    PAUSED = "paused"
    DRAINED = "drained"
    ENDED = "ended"
    GAP = "gap"
    TRIMMED = "trimmed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent:
    """One event of a stream.

    Attributes:
        kind: a `StreamKind`, or the kind of a newer version, which a reader leaves alone.
        data: a JSON object; see `StreamKind`.
        at: when it happened, by the writer's estimate of the store's clock; the order of a stream is that of `number`.
            By default it is when the store appends it.
        attempt: under which claim; 0 for what came from outside of any claim.
        seq: its place among the events of its attempt, from 1; 0 from outside.
        step: the name of the step that it belongs to; "" for none.
        tried: the try of that step, from 1; 0 for none.
        number: its place in the stream, which the store gives: greater than all before, at least the store's time in
            microseconds, so that none is ever used again, also by a store that has lost its last writes. The numbers
            have gaps, and are exact in a double. None before it is stored.
    """

    kind: str
    data: Mapping[str, JSONValue] = field(default_factory=dict)
    at: datetime = WHEN_STORED
    attempt: int = 0
    seq: int = 0
    step: str = ""
    tried: int = 0
    number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPart:
    """Events that are appended to a stream together.

    Those of an attempt are numbered on by `seq` without a gap; a store leaves out those that it has, so a part may be
    sent again, also with more at its end. Those from outside have neither attempt nor `seq`. Raise `InvalidRecord` for
    anything else.
    """

    events: tuple[StreamEvent, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.events) <= MOST_EVENTS:
            raise InvalidRecord("events", f"needs 1 to {MOST_EVENTS}, not {len(self.events)}")
        attempt, seq = self.events[0].attempt, self.events[0].seq
        step = 1 if attempt else 0
        for place, event in enumerate(self.events):
            if event.attempt != attempt or event.seq != seq + place * step or (event.seq < 1) == bool(attempt):
                raise InvalidRecord("events", "those of one attempt are numbered on by seq, and others have none")
            require_name("kind", event.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAppend:
    """A part for the stream of the execution that this lease is on."""

    lease: Lease
    part: StreamPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What became of a part: `accepted`, or refused for ever, as the lease is lost or the execution over or gone.

    `is_watched` says that readers wait to be told; see `StreamPrimitives.tell_readers`.
    """

    accepted: bool
    is_watched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPage:
    """Events of a stream behind some number, in order.

    Attributes:
        events: at most as many as were asked for.
        last: the number of the stream's newest event, 0 if there never was one; `has_more` if this page ends before.
        trimmed_to: all events up to this number were removed; 0 if none was.
        is_over: whether the execution is over: nothing comes then, unless somebody releases it.
    """

    events: tuple[StreamEvent, ...]
    last: int
    trimmed_to: int
    is_over: bool

    @property
    def has_more(self) -> bool:
        """Whether the stream has events behind this page."""
        return bool(self.events) and (self.events[-1].number or 0) < self.last
