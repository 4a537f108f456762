"""What people say to an execution while it runs."""

from typing import Final

from agent_statestore.envelope import dump
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import SayMode, Signal, SignalKind, require_name, require_text
from celery_agents.lifecycle.decider import Decider
from celery_agents.lifecycle.services import Services

DEFAULT_MODE: Final = SayMode.NEXT_BOUNDARY
# What command line and HTTP call a fork that goes on with a message: `celery_agents.replay.roll_back`.
ROLLBACK: Final = "rollback"

# This sets sayings apart from the signals that executions send to each other, whose ids are no secret.
_MESSAGE_ID: Final = "say {}"
_LONGEST_MESSAGE_ID: Final = 255 - len(_MESSAGE_ID.format(""))
# The bytes that the record of a step holds besides the text: names, times, who said it, and by what id.
_ROOM_BYTES: Final = 4096


def say(
    services: Services, execution_id: str, text: str, *, mode: SayMode | str, message_id: str | None, by: Decider
) -> None:
    """Put what somebody says into the mailbox; see `Execution.say`."""
    services.store.send(execution_id, signal_of(services, text, mode=mode, message_id=message_id, by=by))


def signal_of(services: Services, text: str, *, mode: SayMode | str, message_id: str | None, by: Decider) -> Signal:
    """Return what is said as a signal. Raise `InvalidRecord` and `ValueTooLarge`."""
    mode = mode_of(mode)
    if not isinstance(text, str) or not text:
        raise InvalidRecord("text", f"needs a text of at least 1 character, not {text!r:.80}")
    require_text("text", text)
    if message_id is not None:
        require_name("message_id", message_id)
        if len(message_id) > _LONGEST_MESSAGE_ID:
            raise InvalidRecord("message_id", f"needs a text of 1 to {_LONGEST_MESSAGE_ID} characters")
    # The record of a step will hold it.
    dump(text, "text", services.store.max_value_bytes - _ROOM_BYTES)
    signal_id = None if message_id is None else _MESSAGE_ID.format(message_id)
    return by.signal(SignalKind.SAY, mode, text, signal_id=signal_id)


def mode_of(mode: SayMode | str) -> SayMode:
    """Return the mode of this name. Raise `InvalidRecord`."""
    try:
        return SayMode(mode)
    except ValueError as error:
        modes = ", ".join(repr(each.value) for each in SayMode)
        raise InvalidRecord("mode", f"is one of {modes}, not {mode!r:.80}") from error
