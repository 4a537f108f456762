"""Foreign text, made safe and short for a terminal. Knows nothing of rich."""

import json
import unicodedata
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from agent_statestore.plain_text import shown
from agent_statestore.records import JSONValue

# Lines and columns, and what joins letters of some scripts and parts of one picture.
_KEPT: Final = "\n\t\u200c\u200d\ufe0e\ufe0f"

_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"))


def printable(text: str) -> str:
    """Return the text with what nobody sees written out; newlines and tabs stay.

    A model often writes agents' outputs. An escape sequence in them must not reach the terminal, and a bidirectional
    override must not make a question read differently from what it says.
    """
    return shown(text, _KEPT)


def revealed(text: str) -> str:
    """Return the printable text in which no two texts look alike for what they hold beside their letters.

    For what a person approves: joiners, unusual blanks, and marks that stand beside their letter are written out, too.
    """
    if text.isascii():
        return printable(text)
    is_composed = unicodedata.is_normalized("NFC", text)
    return "".join(
        f"\\u{ord(one):04x}"
        if (unicodedata.category(one) == "Zs" and one != " ") or (unicodedata.combining(one) and not is_composed)
        else shown(one, "\n\t")
        for one in text
    )


def one_line(text: str) -> str:
    """Return the text as one printable line."""
    return printable(" ".join(text.split()))


def compact(value: JSONValue) -> str:
    """Return a JSON value on one line."""
    return printable(json.dumps(value, ensure_ascii=False))


def exact(value: JSONValue, indent: int | None = None) -> str:
    """Return a JSON value for a person who approves of it: nothing in it looks like something else."""
    return revealed(json.dumps(value, ensure_ascii=False, indent=indent))


def readable(value: JSONValue) -> str:
    """Return a JSON value for a person: a text as it is, everything else as indented JSON."""
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2))


def short_type(error_type: str) -> str:
    """Return `module:Class` without the module of the builtins."""
    return printable(error_type.removeprefix("builtins:"))


def took(duration: timedelta) -> str:
    """Return a duration as short as possible: "85ms", "3.2s", "4m", "2d"."""
    seconds = duration.total_seconds()
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 60 else _coarse(seconds)


def age(moment: datetime, now: datetime) -> str:
    """Return how long ago, in four characters at most up to 999 days; "0s" for a future made by a skewed clock."""
    return _coarse(max(0.0, (now - moment).total_seconds()))


def relative(moment: datetime, now: datetime) -> str:
    """Return "3m ago" or "in 3m"."""
    seconds = (moment - now).total_seconds()
    return f"in {_coarse(seconds)}" if seconds > 0 else f"{_coarse(-seconds)} ago"


def local_time(moment: datetime, now: datetime) -> str:
    """Return the moment in the local time zone, and how long ago or ahead it is."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %z} ({relative(moment, now)})"


def counted(number: int, thing: str) -> str:
    """Return "1 step" or "2 steps"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def metadata_text(metadata: Mapping[str, JSONValue]) -> str:
    """Return metadata as `key=value` pairs on one line."""
    pairs = (f"{key}={value if isinstance(value, str) else compact(value)}" for key, value in metadata.items())
    return one_line(", ".join(pairs))


def _coarse(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def spent_text(spent: Mapping[str, float]) -> str:
    """Return what was spent, "1203 tokens, 0.0042 cost"; empty for nothing."""
    return ", ".join(f"{amount:.12g} {one_line(name)}" for name, amount in spent.items() if amount)
