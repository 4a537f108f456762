"""Texts that must read as what they are: names of people, lines of a log, and keys that are made of several parts."""

import logging
import re
import unicodedata
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from agent_statestore.errors import InvalidRecord

# Categories of characters that nobody sees: control, format, surrogate, private use, unassigned, line and paragraph
# ends.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and marks by their category, and blank on every screen.
_BLANK: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, range(0xFE00, 0xFE10)))
    + "".join(map(chr, range(0xE0100, 0xE01F0)))
)


def is_unseen(character: str) -> bool:
    """Return whether a character leaves nothing on a screen, or changes how others look."""
    return unicodedata.category(character) in _UNSEEN or character in _BLANK


def require_sender(field_name: str, value: object) -> None:
    """Raise `InvalidRecord` unless the value is None or a name that reads as what it is.

    That is a text of 1 to 255 characters in Unicode's form NFC, without characters that nobody sees: of two names that
    look alike, one would pass for the other in a trail.
    """
    if value is None:
        return
    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise InvalidRecord(field_name, f"needs a text of 1 to 255 characters, not {value!r:.80}")
    hidden = next((one for one in value if is_unseen(one)), None)
    if hidden is not None:
        raise InvalidRecord(field_name, f"must not contain the character U+{ord(hidden):04X}")
    if not unicodedata.is_normalized("NFC", value):
        raise InvalidRecord(field_name, "needs Unicode's form NFC")


# -- showing -----------------------------------------------------------------------------------------------------------

_NOT_PLAIN: Final = re.compile("[^ -~]")


def shown(text: str, keep: str = "") -> str:
    """Return the text with every character that nobody sees written out as an escape, but for those to `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return _NOT_PLAIN.sub(lambda match: escaped(match[0]) if match[0] not in keep else match[0], text)


def escaped(character: str) -> str:
    """Return a character that nobody sees as an escape of Python and JSON, and any other one as it is."""
    if not is_unseen(character):
        return character
    code = ord(character)
    if code < 0x100:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# -- logging -----------------------------------------------------------------------------------------------------------


def line_logger(name: str) -> logging.Logger:
    """Return the logger of this name, whose entries nobody can forge.

    What an error says, or how an agent is called, was written by others. A line end in it would begin a line that looks
    like another entry, and an escape sequence would change what a terminal shows.
    """
    logger = logging.getLogger(name)
    logger.addFilter(PLAIN)
    return logger


class _Shown:
    """An argument of a log entry that is written on one line, whatever it says."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __str__(self) -> str:
        return shown(str(self.value))

    def __repr__(self) -> str:
        return shown(repr(self.value))


class PlainLines(logging.Filter):
    """Shows the arguments of each entry on one line, and sets tracebacks off from the left edge."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the entry; return True."""
        if isinstance(record.args, Mapping):
            record.args = {name: _plain(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(_plain(value) for value in record.args)
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            traceback = logging.Formatter().formatException(record.exc_info)
            # Its own lines end in newlines; what an error says may hold others, and must not pass for an entry.
            record.exc_text = "\n".join(f"    {shown(line, keep=chr(9))}" for line in traceback.split("\n"))
        return True


def _plain(value: Any) -> Any:
    # A number is formatted as one, and holds no text.
    return value if value is None or isinstance(value, int | float | _Shown) else _Shown(value)


# One for all loggers: a filter is added to a logger once.
PLAIN: Final = PlainLines()


# It stands between a key and a round where both are one key of a backend's. No key contains it.
ROUND_MARK: Final = "\x1f"


def require_round(key: str, round: object) -> None:  # noqa: A002 - the field's name
    """Raise `InvalidRecord` for a round that does not count from 1, and for a key that leaves no room for it."""
    if isinstance(round, bool) or not isinstance(round, int) or round < 1:
        raise InvalidRecord("round", f"rounds are counted from 1, not {round!r:.80}")
    if ROUND_MARK in key:
        raise InvalidRecord("key", "must not contain the character U+001F")
    if round > 1 and len(f"{key}{ROUND_MARK}{round}") > 255:
        raise InvalidRecord("key", f"is too long for round {round}")


# It stands between the key of an approval that several decide and the mark of one of them. No other key contains it.
VOTE_MARK: Final = "\x1e"


def vote_key(key: str, voter: str) -> str:
    """Return the key of the signal by which one of several decides on the approval of this key."""
    return f"{key}{VOTE_MARK}{sha256(voter.encode()).hexdigest()[:24]}"


def without_voter(key: str) -> str:
    """Return the key of the approval, of any signal's key."""
    return key.partition(VOTE_MARK)[0]
