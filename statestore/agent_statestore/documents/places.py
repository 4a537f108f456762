"""Where a document stands, as one text whose order is that of namespaces and keys, the same in every backend.

Each part of the namespace ends with U+001F; U+0001 stands before the key. Neither can be in a name, and both are less
than what can. So the documents of a namespace stand together, ordered by key, and before those of the namespaces below
it; both are ranges of places, and no pattern is needed to find them.
"""

import re
from typing import Final, NamedTuple

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import require_text

Namespace = tuple[str, ...]

# A place must fit into an index of every database, at four bytes for a character: PostgreSQL's holds 2704 with 12 that
# are none of ours, MySQL's 3072.
MOST_CHARACTERS: Final = 670

_END: Final = "\x1f"
_KEY: Final = "\x01"
# What comes right behind the two.
_BEHIND_END: Final = "\x20"
_BEHIND_KEY: Final = "\x02"
_UNSAFE: Final = re.compile("[\x00-\x1f%]")
_WRITTEN_OUT: Final = re.compile("%([0-9A-F]{2})")
# So many parts of a namespace name its root.
_ROOT_PARTS: Final = 2


class DocumentPlace(NamedTuple):
    """The namespace and the key of a document."""

    namespace: Namespace
    key: str


class Range(NamedTuple):
    """The places from `first` on and before `last`; a `last` of None is no end."""

    first: str
    last: str | None


def check_namespace(namespace: object, *, least: int = 1) -> Namespace:
    """Return the namespace as a tuple.

    Raise `InvalidRecord` unless it is a sequence of at least `least` texts that are not empty and hold no control
    character.
    """
    if isinstance(namespace, str | bytes) or not isinstance(namespace, tuple | list):
        raise InvalidRecord("namespace", f"needs a tuple of texts, not {namespace!r:.80}")
    if len(namespace) < least:
        raise InvalidRecord("namespace", f"needs at least {least} part{'s' * (least > 1)}")
    for part in namespace:
        _check_part("namespace", part)
    return tuple(namespace)


def place_text(place: DocumentPlace) -> str:
    """Return the place as text. Raise `InvalidRecord` for an invalid or too long namespace or key."""
    namespace = check_namespace(place.namespace)
    _check_part("key", place.key)
    text = f"{namespace_text(namespace)}{_KEY}{place.key}"
    if len(text) > MOST_CHARACTERS:
        raise InvalidRecord("key", f"with its namespace it has more than {MOST_CHARACTERS} characters")
    return text


def place_of(text: str) -> DocumentPlace:
    """Return the place that `place_text` wrote."""
    namespace, _, key = text.rpartition(_KEY)
    return DocumentPlace(namespace_in(namespace), key)


def namespace_text(namespace: Namespace) -> str:
    """Return how the places of all documents in the namespace and below it begin."""
    return "".join(f"{part}{_END}" for part in namespace)


def namespace_in(text: str) -> Namespace:
    """Return the namespace that `namespace_text` wrote."""
    return tuple(text.split(_END)[:-1])


def within(namespace: Namespace, *, below: bool) -> Range:
    """Return the places in the namespace; with `below` also those of the namespaces below it."""
    text = namespace_text(namespace)
    if not below:
        return Range(f"{text}{_KEY}", f"{text}{_BEHIND_KEY}")
    return Range(text, f"{text[:-1]}{_BEHIND_END}" if text else None)


def root_of(namespace: Namespace) -> Namespace:
    """Return the root of a namespace: its first two parts, or its only one.

    The documents of one root are written together; see `DocumentStore.write`.
    """
    return namespace[:_ROOT_PARTS]


def root_in(text: str) -> str:
    """Return the text of the root with which a place begins, or the end of a range that has a root."""
    *parts, _ = text.split(_END, _ROOT_PARTS)
    return namespace_text(tuple(parts))


def is_root(namespace: Namespace) -> bool:
    """Return whether all documents in the namespace and below it are of one root."""
    return len(namespace) >= _ROOT_PARTS


def safe_part(text: str) -> str:
    """Return any text that is not empty as a part of a namespace, or a key: what cannot stand there is written as %XX.

    Different texts have different parts. Percent signs are written so, too.
    """
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", text)


def plain_part(part: str) -> str:
    """Return the text that `safe_part` was given."""
    return _WRITTEN_OUT.sub(lambda match: chr(int(match[1], 16)), part)


def _check_part(field: str, part: object) -> None:
    require_text(field, part)
    if not part or not isinstance(part, str):
        raise InvalidRecord(field, f"needs texts that are not empty, not {part!r:.80}")
    if any(character < _BEHIND_END for character in part):
        raise InvalidRecord(field, f"must not contain control characters: {part!r:.80}")
