"""What an agent has written besides its steps, and no checkpoint has carried yet."""

import threading
from dataclasses import dataclass, field
from typing import Final

from agent_statestore.envelope import load
from agent_statestore.records import JSONValue, Message


@dataclass(slots=True)
class Pending:
    """Writes that the next checkpoint will carry."""

    memory: dict[str, str | None] = field(default_factory=dict)  # JSON text; None = forgotten
    messages: list[Message] = field(default_factory=list)
    facts: list[JSONValue] = field(default_factory=list)
    # Entries for documents; see `outgoing`.
    documents: list[dict[str, JSONValue]] = field(default_factory=list)
    # Whether any of this goes to documents.
    goes_out: bool = False

    def written(self) -> dict[str, JSONValue]:
        """Return the values to set."""
        return {key: load(text) for key, text in self.memory.items() if text is not None}

    def forgotten(self) -> tuple[str, ...]:
        """Return the keys to remove."""
        return tuple(key for key, text in self.memory.items() if text is None)

    def followed_by(self, later: "Pending") -> "Pending":
        """Return both in one."""
        return Pending(
            memory=self.memory | later.memory,
            messages=self.messages + later.messages,
            facts=self.facts + later.facts,
            documents=self.documents + later.documents,
            goes_out=self.goes_out or later.goes_out,
        )


NOTHING: Final = Pending()


@dataclass(slots=True)
class Outbox:
    """What is pending now. An async agent writes on its event loop while a thread takes what there is.

    `is_empty` is for those who would take: most steps bring nothing along.
    """

    pending: Pending = field(default_factory=Pending)
    is_empty: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def set(self, key: str, text: str | None) -> None:
        """A key of the working memory holds this JSON text; None for forgotten."""
        with self._lock:
            self.pending.memory[key] = text
            self.is_empty = False

    def say(self, message: Message, *, goes_out: bool = False) -> None:
        """A message was said; `goes_out` says that it goes to a document, too."""
        with self._lock:
            self.pending.messages.append(message)
            self.pending.goes_out |= goes_out
            self.is_empty = False

    def put_document(self, entry: dict[str, JSONValue]) -> None:
        """Something is to be written to a document."""
        with self._lock:
            self.pending.documents.append(entry)
            self.pending.goes_out = True
            self.is_empty = False

    def remember(self, fact: JSONValue) -> None:
        """A fact was remembered."""
        with self._lock:
            self.pending.facts.append(fact)
            self.is_empty = False

    def take(self) -> Pending:
        """Return what is pending, for a checkpoint; what is written from now on is for the next one."""
        with self._lock:
            taken, self.pending, self.is_empty = self.pending, Pending(), True
        return taken

    def put_back(self, taken: Pending) -> None:
        """The checkpoint was not written: what it took is pending again."""
        with self._lock:
            self.pending, self.is_empty = taken.followed_by(self.pending), False
