"""The metadata of a checkpoint as that of its document, by which it is found; the whole of it is in the document.

LangGraph compares with Python's `==`, for which 1, 1.0 and True are one. So these are one in the index, too. What no
line of metadata carries well (long texts, lists) has a hash there, or nothing, and is compared when it was read.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from agent_statestore.records import JSONValue

# All checkpoints have it, and nothing else below a thread has metadata.
MARK: Final = {"checkpoint": 1}
_MOST_CHARACTERS: Final = 200
# A float above may stand for several integers.
_MOST_EXACT: Final = 2**53


def indexed(metadata: Mapping[str, Any]) -> dict[str, JSONValue]:
    """Return the metadata of a checkpoint's document."""
    return {**MARK, **_lines(metadata)}


def wanted(filter: Mapping[str, Any] | None) -> dict[str, JSONValue]:  # noqa: A002 - LangGraph's name for it
    """Return the metadata that the documents of all checkpoints have that pass the filter; others may have it, too."""
    return {**MARK, **_lines(filter or {})}


def passes(metadata: Mapping[str, Any], filter: Mapping[str, Any] | None) -> bool:  # noqa: A002
    """Return whether the metadata has all that the filter names."""
    return all(metadata.get(name) == value for name, value in (filter or {}).items())


def _lines(metadata: Mapping[str, Any]) -> dict[str, JSONValue]:
    # None is left out, as LangGraph's filter takes a name that is not there for None.
    return {
        f".{_short(str(name))}": _comparable(value)
        for name, value in metadata.items()
        if isinstance(value, str | int | float) and not (isinstance(value, float) and value - value != 0)
    }


def _comparable(value: str | int | float) -> JSONValue:
    if isinstance(value, str):
        return _short(value)
    if isinstance(value, float) and not value.is_integer():
        return value
    whole = int(value)
    return whole if abs(whole) <= _MOST_EXACT else f"int:{float(whole) if abs(whole) < 10**300 else 0}"


def _short(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS and text.isprintable():
        return text
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"
