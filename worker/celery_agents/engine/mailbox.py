"""The signals that an execution was sent before this claim: answers, approvals, events, ends of children."""

import threading
from collections.abc import Iterable

from agent_statestore.records import Signal, SignalKind


class _Taken(threading.local):
    def __init__(self) -> None:
        self.ids: list[str] = []


class Mailbox:
    """The signals that no step of this attempt has taken yet.

    `taken.ids` are those that the next write of this thread takes out of the stored mailbox. Of this thread: what
    another one writes meanwhile says nothing of what became of the signal, which a crash in between would lose.
    """

    def __init__(self, signals: Iterable[Signal]) -> None:
        self.taken = _Taken()
        self._lock = threading.Lock()
        self._signals = list(signals)

    def take(self, kind: SignalKind, key: str) -> Signal | None:
        """Return the oldest signal of this address; it is taken."""
        with self._lock:
            for signal in self._signals:
                if (signal.kind, signal.key) == (kind, key):
                    self._signals.remove(signal)
                    self.taken.ids.append(signal.signal_id)
                    return signal
        return None
