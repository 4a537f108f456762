"""The signals that an execution was sent: those before this claim, and of what is said also those that came later."""

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from agent_statestore.records import AuditEntry, Signal, SignalKind


@dataclass(slots=True)
class Mailbox:
    """The signals that no step of this attempt has taken yet.

    `read` reads the mailbox from the store as it is now, and `read_trail` the audit trail.

    `taken.ids` are those that the next write of this thread takes out of the stored mailbox, if it has taken any. Of
    this thread: what another one writes meanwhile says nothing of what became of the signal, which a crash in between
    would lose.
    """

    signals: list[Signal]
    read: Callable[[], Sequence[Signal]]
    read_trail: Callable[[], Sequence[AuditEntry]]
    taken: threading.local = field(default_factory=threading.local)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _handed_over: list[str] = field(default_factory=list)
    # Of what is said, all that a step has taken. The store may still show it, until the step is recorded.
    _heard: set[str] = field(default_factory=set)

    # -- what is said --------------------------------------------------------------------------------------------------

    def take_in(self, arrived: Iterable[Signal]) -> None:
        """Add what was said since the last look."""
        with self._lock:
            known = self._heard | {signal.signal_id for signal in self.signals}
            self.signals += [one for one in arrived if one.kind is SignalKind.SAY and one.signal_id not in known]

    def waiting(self, kind: SignalKind, keys: Collection[str]) -> list[Signal]:
        """Return the signals of this kind under these keys, oldest first. They stay."""
        with self._lock:
            return [signal for signal in self.signals if signal.kind is kind and signal.key in keys]

    def take_all(self, signals: Iterable[Signal]) -> None:
        """Take these, with the next write of this thread."""
        with self._lock:
            for signal in signals:
                self.signals.remove(signal)
                self._heard.add(signal.signal_id)
                self.taken.__dict__.setdefault("ids", []).append(signal.signal_id)

    def put_back(self, signals: Sequence[Signal]) -> None:
        """These could not be recorded: they wait again."""
        with self._lock:
            ids = {signal.signal_id for signal in signals}
            self.signals[:0] = signals
            self._heard -= ids
            self.taken.__dict__["ids"] = [each for each in self.taken.__dict__.get("ids", ()) if each not in ids]

    # -- what is waited for --------------------------------------------------------------------------------------------

    def moment(self, kind: SignalKind, key: str, round: int = 1) -> datetime | None:  # noqa: A002 - the field's name
        """Return when the oldest signal of this address was sent, in the mailbox's order; None if there is none.

        A signal counts as sent no earlier than those before it, whatever the store's clock did meanwhile.
        """
        with self._lock:
            latest: datetime | None = None
            for signal in self.signals:
                if signal.sent_at is not None and (latest is None or signal.sent_at > latest):
                    latest = signal.sent_at
                if (signal.kind, signal.key, signal.round) == (kind, key, round):
                    return latest
        return None

    def find(self, kind: SignalKind, key: str, round: int = 1) -> Signal | None:  # noqa: A002 - the field's name
        """Return the oldest signal of this address, which stays."""
        with self._lock:
            wanted = (kind, key, round)
            return next((one for one in self.signals if (one.kind, one.key, one.round) == wanted), None)

    def discard(self, kind: SignalKind, key: str, round: int = 1) -> None:  # noqa: A002 - likewise
        """Take all signals of this address: nobody waits for them any more."""
        while self.take(kind, key, round) is not None:
            continue

    def take(self, kind: SignalKind, key: str, round: int = 1) -> Signal | None:  # noqa: A002 - the field's name
        """Return the oldest signal of this address; it is taken."""
        with self._lock:
            for signal in self.signals:
                if (signal.kind, signal.key, signal.round) == (kind, key, round):
                    self.signals.remove(signal)
                    self.taken.__dict__.setdefault("ids", []).append(signal.signal_id)
                    return signal
        return None

    def hand_over(self) -> None:
        """Leave what this thread has taken to the thread that pauses."""
        with self._lock:
            self._handed_over += self.taken.__dict__.pop("ids", [])

    def take_over(self) -> None:
        """Have the next write of this thread take out what other threads have left to it."""
        with self._lock:
            if self._handed_over:
                self.taken.__dict__.setdefault("ids", []).extend(self._handed_over)
                self._handed_over.clear()
