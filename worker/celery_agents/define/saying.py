"""What somebody says to an execution while it runs, as the agent's code has it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent_statestore.records import JSONValue, SayMode, Signal
from celery_agents.errors import AgentsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """One message to an execution, sent with `Execution.say`. `sender` is who said it, as far as the caller told."""

    text: str
    mode: SayMode
    sender: str | None = None
    at: datetime
    message_id: str

    @classmethod
    def of(cls, signal: Signal) -> "Saying":
        """Return what a signal of the mailbox says."""
        assert signal.sent_at is not None, "the store stamps it"
        return cls(
            text=signal.payload,
            mode=SayMode(signal.key),
            sender=signal.sender,
            at=signal.sent_at,
            message_id=signal.signal_id,
        )

    def as_json(self) -> dict[str, JSONValue]:
        """Return what the journal keeps."""
        return {
            "text": self.text,
            "mode": self.mode.value,
            "sender": self.sender,
            "at": self.at.isoformat(),
            "message_id": self.message_id,
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Saying":
        """Return what `as_json` has made."""
        return cls(**{**kept, "mode": SayMode(kept["mode"]), "at": datetime.fromisoformat(kept["at"])})


class CallInterrupted(AgentsError):
    """Somebody said something in mode "interrupt", which ended a model's call. `text` is what it had said by then.

    A function that catches that it is cancelled may raise this itself, to tell the text.
    """

    def __init__(self, key: str = "", text: str = "") -> None:
        super().__init__(key, text)
        self.key = key
        self.text = text

    def __str__(self) -> str:
        return f"step {self.key!r} was interrupted by what somebody said"
