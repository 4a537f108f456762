"""The signals that an execution was sent before this claim: answers, approvals, events, ends of children."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from agent_statestore.records import AuditEntry, Signal, SignalKind


@dataclass(slots=True)
class Mailbox:
    """The signals that no step of this attempt has taken yet. `read_trail` reads the audit trail from the store.

    `taken.ids` are those that the next write of this thread takes out of the stored mailbox, if it has taken any. Of
    this thread: what another one writes meanwhile says nothing of what became of the signal, which a crash in between
    would lose.
    """

    signals: list[Signal]
    read_trail: Callable[[], Sequence[AuditEntry]]
    taken: threading.local = field(default_factory=threading.local)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _handed_over: list[str] = field(default_factory=list)

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
