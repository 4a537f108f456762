"""The signals that an execution was sent before this claim: answers, approvals, events, ends of children."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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

    def take(self, kind: SignalKind, key: str, round: int = 1) -> Signal | None:  # noqa: A002 - the field's name
        """Return the oldest signal of this address; it is taken."""
        with self._lock:
            for signal in self.signals:
                if (signal.kind, signal.key, signal.round) == (kind, key, round):
                    self.signals.remove(signal)
                    self.taken.__dict__.setdefault("ids", []).append(signal.signal_id)
                    return signal
        return None
