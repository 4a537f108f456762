"""The outlet of one attempt: what it has said into its stream, and the store may not have yet.

Nothing here waits for a store. Events are kept in order until somebody has written them: a checkpoint, which takes all
there are, so that what was said before a result stands before it; or the process's `StreamWriter`, some times a second.
Both may write the same events: the store leaves out what it has, by their place in the attempt (`seq`). The place is
given when an event is first taken, and an event that was taken is not changed any more.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeAlias

from agent_statestore.records import Action, JSONValue, Lease
from agent_statestore.streams.records import MOST_EVENTS, StreamEvent, StreamKind, StreamPart

# A step that is over before this is told of by its record alone.
LATE_SECONDS: Final = 0.1
# What is kept for a store that is away. Of one attempt, as its process may have hundreds.
MOST_WAITING: Final = 5_000
_MOST_BYTES: Final = 2 * 1024 * 1024
# Beyond this, deltas are dropped first, so that room is left for what an agent emits itself.
_MOST_DELTAS: Final = MOST_WAITING // 2
_ROUGH_BYTES: Final = 100

_CLAIMS: Final = frozenset({StreamKind.STARTED, StreamKind.RESUMED, StreamKind.RECOVERED})
_DELTAS: Final = frozenset({StreamKind.TEXT, StreamKind.THINKING, StreamKind.TOOL_CALL})


@dataclass(slots=True)
class _Said:
    """One event; `seq` is 0 until it is taken."""

    kind: str
    data: dict[str, JSONValue]
    at: datetime
    step: str
    tried: int
    seq: int = 0

    def takes_up(self, kind: str, data: Mapping[str, Any], step: str, tried: int) -> bool:
        """Whether what a delta says can be said in this event, which nobody has taken."""
        return (
            not self.seq
            and kind == self.kind
            and step == self.step
            and tried == self.tried
            and "delta" in data
            and "delta" in self.data
            and "arguments" not in data
            and data.get("id") == self.data.get("id")
        )


# A try of a step that has begun: when, on the monotonic clock (0 once it is told of), its action, and which try.
_Begun: TypeAlias = tuple[float, Action, int]


class Outlet:
    """What one attempt says. Thread-safe.

    `wake` tells the writer, if it rests, that there is something to look at, and `tell_readers` that a checkpoint has
    brought something to whoever waits for it.
    """

    def __init__(
        self,
        lease: Lease,
        now: Callable[[], datetime],
        wake: Callable[[], object],
        tell_readers: Callable[[str], object],
    ) -> None:
        self.lease = lease
        self._now = now
        self._wake = wake
        self._tell_readers = tell_readers
        self._lock = threading.Lock()
        self._waiting: deque[_Said] = deque()
        self._bytes = 0
        self._seq = 0
        self._begun: dict[str, _Begun] = {}
        # A checkpoint that carries all that was taken may be under way: it must not be overtaken.
        self._is_carried = False
        # How many places the checkpoint has for what it tells itself.
        self._own_places = 0
        self._is_closed = False
        self._trimmed_at = 0
        self._opened_at = time.monotonic()

    # -- what is said --------------------------------------------------------------------------------------------------

    def say(self, kind: StreamKind, data: dict[str, JSONValue], *, step: str = "", tried: int = 0) -> None:
        """Say something. `data` is JSON that nobody else has."""
        with self._lock:
            if self._is_closed:
                return
            if step and not tried:
                begun = self._begun.get(step)
                tried = 1 if begun is None else begun[2]
            last = self._waiting[-1] if self._waiting else None
            if self._is_full(kind):
                self._drop(last)
            elif last is not None and kind in _DELTAS and last.takes_up(kind, data, step, tried):
                last.data["delta"] = f"{last.data['delta']}{data['delta']}"
                self._bytes += len(data["delta"])
            else:
                self._waiting.append(_Said(kind, data, self._now(), step, tried))
                self._bytes += _size_of(data)
        self._wake()

    def begin(self, step: str, action: Action, tried: int) -> None:
        """A try of a step begins."""
        self._begun[step] = (time.monotonic(), action, tried)
        self._wake()

    def _is_full(self, kind: str) -> bool:
        most, bytes_ = (_MOST_DELTAS, _MOST_BYTES // 2) if kind in _DELTAS else (MOST_WAITING, _MOST_BYTES)
        return len(self._waiting) >= most or self._bytes >= bytes_

    def _drop(self, last: _Said | None) -> None:
        """Leave a mark where an event is missing."""
        if last is not None and last.kind == StreamKind.GAP and not last.seq:
            last.data["dropped"] += 1
        else:
            self._waiting.append(_Said(StreamKind.GAP, {"dropped": 1}, self._now(), "", 0))

    # -- with a checkpoint ---------------------------------------------------------------------------------------------

    def carry(self, change: dict[str, Any], told: Iterable[StreamEvent] = ()) -> None:
        """Put all that waits into a change of a checkpoint, and have it tell of its steps, and what else is `told`.

        `carried`, `put_back` or `leave_open` follows.
        """
        with self._lock:
            if self._is_closed:
                return
            marks = 0
            for step in change.get("steps", ()):
                if step.result is not None:
                    self._begun.pop(step.name, None)
                    marks += 1
            own = [_Said(event.kind, dict(event.data), event.at, event.step, event.tried) for event in told]
            if own:
                marks = 0  # they are told among the others
            if self._waiting or own:
                change["stream"] = self._taken([*self._waiting, *own])
            if marks:
                change["tells_steps"] = self._seq + 1
                self._seq += marks
            self._own_places = len(own) + marks
            self._is_carried = True

    def carried(self, *, is_watched: bool) -> None:
        """The checkpoint is stored."""
        with self._lock:
            if self._is_carried:
                self._is_carried = False
                self._forget(self._seq)
        if is_watched:
            self._tell_readers(self.lease.execution_id)

    def put_back(self) -> None:
        """The checkpoint is not stored: what it would have told did not happen, and what it carried waits again."""
        with self._lock:
            if self._is_carried:
                self._is_carried = False
                self._seq -= self._own_places

    def leave_open(self) -> None:
        """Nobody knows whether the checkpoint is stored. Its places are taken; nothing is said there if it is not."""
        with self._lock:
            if self._is_carried:
                self._is_carried = False
                carried = [said for said in self._waiting if said.seq]
                later = islice(self._waiting, len(carried), None)
                places = range(self._seq - self._own_places + 1, self._seq + 1)
                gaps = [_Said(StreamKind.GAP, {"dropped": 0}, self._now(), "", 0, seq) for seq in places]
                self._waiting = deque([*carried, *gaps, *later])

    # -- beside them ---------------------------------------------------------------------------------------------------

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to write, now or soon."""
        return not self._waiting and all(not at for at, _, _ in list(self._begun.values()))

    @property
    def overflows(self) -> bool:
        """Whether more waits than one part may have."""
        return len(self._waiting) >= MOST_EVENTS - 1

    def take(self) -> StreamPart | None:
        """Return what is to be written beside checkpoints; `written` or nothing follows, and then it is taken again."""
        with self._lock:
            if self._is_closed or self._is_carried or self._has_just_begun():
                return None
            self._tell_late()
            return self._taken(islice(self._waiting, MOST_EVENTS)) if self._waiting else None

    def written(self, part: StreamPart, *, is_accepted: bool) -> None:
        """The store has this, or refuses all that this attempt says from now on."""
        if not is_accepted:
            self.close()
            return
        with self._lock:
            self._forget(part.events[-1].seq)

    def may_be_trimmed(self, every: int) -> bool:
        """Whether so many events came since this was last asked with that answer."""
        if self._seq < self._trimmed_at + every:
            return False
        self._trimmed_at = self._seq
        return True

    def drop(self, part: StreamPart) -> None:
        """This can never be stored. Where it stood, a gap is told."""
        first, last = part.events[0].seq, part.events[-1].seq
        with self._lock:
            for number, said in enumerate(self._waiting):
                if first <= said.seq <= last:
                    self._waiting[number] = _Said(StreamKind.GAP, {"dropped": 1}, said.at, "", 0, said.seq)

    def close(self) -> None:
        """Say nothing any more."""
        with self._lock:
            self._is_closed = True
            self._waiting.clear()
            self._begun.clear()

    # ------------------------------------------------------------------------------------------------------------------

    def _has_just_begun(self) -> bool:
        """Whether nothing but the claim is to be told, and a checkpoint may come soon that tells it."""
        return (
            len(self._waiting) == 1
            and self._waiting[0].kind in _CLAIMS
            and time.monotonic() < self._opened_at + LATE_SECONDS
        )

    def _tell_late(self) -> None:
        late = time.monotonic() - LATE_SECONDS
        for step, (at, action, tried) in list(self._begun.items()):
            if at and at <= late:
                self._begun[step] = (0.0, action, tried)
                self._waiting.append(_Said(StreamKind.STEP_STARTED, _started(action), self._now(), step, tried))

    def _taken(self, taken: Iterable[_Said]) -> StreamPart:
        events = []
        for said in taken:
            if not said.seq:
                self._seq += 1
                said.seq = self._seq
            events.append(
                StreamEvent(
                    kind=said.kind,
                    data=said.data,
                    at=said.at,
                    attempt=self.lease.token,
                    seq=said.seq,
                    step=said.step,
                    tried=said.tried,
                )
            )
        return StreamPart(events=tuple(events))

    def _forget(self, up_to: int) -> None:
        waiting = self._waiting
        while waiting and 0 < waiting[0].seq <= up_to:
            self._bytes -= _size_of(waiting.popleft().data)
        if not waiting:
            self._bytes = 0


def _started(action: Action) -> dict[str, JSONValue]:
    told: dict[str, JSONValue] = {"action": action.kind}
    if action.tool is not None:
        told["tool"] = action.tool
    if action.input is not None:
        told["arguments"] = action.input
    return told


def _size_of(data: Mapping[str, Any]) -> int:
    """Return about how many bytes an event takes: what it holds is bounded where it is said."""
    return _ROUGH_BYTES + sum(len(value) for value in data.values() if isinstance(value, str))
