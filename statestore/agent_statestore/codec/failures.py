"""Conversion of errors to stored text and back."""

from typing import Final

from agent_statestore.envelope import Fields, present, seal
from agent_statestore.records import ErrorInfo

# A failure must always fit: one that says "the value is too large" would otherwise be too large itself.
ERROR_ROOM_BYTES: Final = 256 * 1024

# How much of a failure's error its entry in the audit trail keeps.
_REASON_CHARACTERS: Final = 500


def encode_error(error: ErrorInfo, max_bytes: int) -> str:
    """Return the error as stored. Raise `NotSerialisable` or `ValueTooLarge`."""
    return seal("error", error_fields(error), "error", max_bytes + ERROR_ROOM_BYTES)


def reason_of(error: ErrorInfo) -> str:
    """Return what the audit trail keeps of an error, as the reason of a failure."""
    return f"{error.type}: {error.message}"[:_REASON_CHARACTERS].replace("\x00", "\ufffd")


def error_fields(error: ErrorInfo) -> Fields:
    """Return the fields of the error's envelope."""
    return present(
        {
            "type": error.type,
            "message": error.message,
            "args": None if error.args is None else list(error.args),
            "bases": list(error.bases) or None,
            "traceback": error.traceback,
            "fields": dict(error.fields) or None,
            "tuples": [list(path) for path in error.tuples] or None,
            "not_kept": list(error.not_kept) or None,
            "members": [error_fields(member) for member in error.members] or None,
            "cause": None if error.cause is None else error_fields(error.cause),
            "notes": list(error.notes) or None,
        }
    )


def error_of(fields: Fields) -> ErrorInfo:
    """Return the error of a stored envelope's fields."""
    args, cause = fields.get("args"), fields.get("cause")
    return ErrorInfo(
        type=fields["type"],
        message=fields["message"],
        args=None if args is None else tuple(args),
        bases=tuple(fields.get("bases", ())),
        traceback=fields.get("traceback"),
        fields=fields.get("fields", {}),
        tuples=tuple(map(tuple, fields.get("tuples", ()))),
        not_kept=tuple(fields.get("not_kept", ())),
        members=tuple(map(error_of, fields.get("members", ()))),
        cause=None if cause is None else error_of(cause),
        notes=tuple(fields.get("notes", ())),
    )
