"""Who decides: what the caller says of itself, and what the process that sends the decision knows beside it."""

import os
import pwd
import unicodedata
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from agent_statestore.checkpoint import Via
from agent_statestore.plain_text import require_sender
from agent_statestore.records import JSONValue, Signal, SignalKind

PYTHON: Final = "python"
HTTP: Final = "http"
COMMAND_LINE: Final = "command line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """Somebody who asks for something: who and why, as the caller tells, and through what.

    Raise `InvalidRecord` for a sender that does not read as what it is; see `agent_statestore.records.Signal`.
    """

    sender: str | None = None
    reason: str | None = None
    channel: str = PYTHON

    def __post_init__(self) -> None:
        object.__setattr__(self, "sender", named(self.sender))

    @property
    def via(self) -> Via:
        """Through what it is asked for, where no signal says so."""
        return Via(channel=self.channel, os_user=process_user())

    def __str__(self) -> str:
        """Return who and through what, and why, for a log."""
        why = "" if self.reason is None else f": {self.reason}"
        return f"{self.sender or 'somebody'} ({self.channel}, {process_user()}){why}"

    def signal(
        self,
        kind: SignalKind,
        key: str = "",
        payload: JSONValue = None,
        *,
        round: int = 1,  # noqa: A002 - the field's name
        signal_id: str | None = None,
    ) -> Signal:
        """Return a signal that says who sends it. Raise `InvalidRecord`."""
        return Signal(
            signal_id=signal_id or uuid4().hex,
            kind=kind,
            key=key,
            payload=payload,
            round=round,
            sender=self.sender,
            reason=self.reason,
            channel=self.channel,
            os_user=process_user(),
        )


def named(sender: str | None) -> str | None:
    """Return a caller's name in Unicode's form NFC. Raise `InvalidRecord` for one that no trail may show."""
    if isinstance(sender, str):
        sender = unicodedata.normalize("NFC", sender)
    require_sender("sender", sender)
    return sender


def process_user() -> str:
    """Return the system's name of the user under which this process runs, whatever its environment says."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
