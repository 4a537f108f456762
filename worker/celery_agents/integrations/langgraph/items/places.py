"""Where the items of graphs stand: a label of LangGraph's namespace is a part of the documents' namespace.

The first part begins with "langgraph:", so that items are among themselves. The first two labels are the root of what
is written at once; so an item of ("memories", user) lies with the others of this user. Characters that no name of a
document has are escaped. A long label is hashed, and the metadata then says what it was.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent_statestore.documents import Document, DocumentPlace, Namespace
from agent_statestore.documents.places import Range
from agent_statestore.records import JSONValue

PREFIX: Final = "langgraph:"
# All namespaces whose first part begins so.
EVERYWHERE: Final = Range(PREFIX, f"{PREFIX[:-1]};")

_MOST_CHARACTERS: Final = 120
_HASHED: Final = "%~"
_EMPTY: Final = "%"
_SPECIAL: Final = re.compile("[\x00-\x1f%\ud800-\udfff]")
_ESCAPED: Final = re.compile("%([0-9a-f]{4})")
_NAMESPACE: Final = "namespace"
_KEY: Final = "key"

Labels = tuple[str, ...]


def namespace_of(labels: Labels) -> Namespace:
    """Return where the items of a namespace of LangGraph's stand."""
    first, *others = (_part(label) for label in labels)
    return (f"{PREFIX}{first}", *others)


def place_of(labels: Labels, key: str) -> DocumentPlace:
    """Return where an item stands."""
    return DocumentPlace(namespace_of(labels), _part(key))


def named(labels: Labels, key: str) -> Mapping[str, JSONValue]:
    """Return what the metadata of an item must say of its names."""
    if all(len(_escaped(each)) <= _MOST_CHARACTERS for each in (*labels, key)):
        return {}
    texts: list[JSONValue] = [_escaped(each) for each in labels]
    return {_NAMESPACE: texts, _KEY: _escaped(key)}


def names_of(document: Document) -> tuple[Labels, str]:
    """Return the namespace and the key of an item, as LangGraph gave them."""
    kept: Any = document.metadata.get(_NAMESPACE)
    first, *others = document.namespace
    parts: Sequence[str] = (first[len(PREFIX) :], *others) if kept is None else kept
    key = document.metadata.get(_KEY, document.key)
    return tuple(_unescaped(part) for part in parts), _unescaped(str(key))


def _part(text: str) -> str:
    escaped = _escaped(text)
    if len(escaped) <= _MOST_CHARACTERS:
        return escaped
    return f"{_HASHED}{hashlib.sha256(escaped.encode()).hexdigest()[:40]}"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: f"%{ord(found[0]):04x}", text) or _EMPTY


def _unescaped(text: str) -> str:
    return "" if text == _EMPTY else _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
