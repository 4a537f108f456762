"""Foreign values to JSON and back: which of them JSON carries as they are, and what is left of the others."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Final

from agent_statestore.envelope import dump, load
from agent_statestore.records import JSONValue

Path = tuple[str | int, ...]

# How many names of what is not kept are told, and how much of each.
_MOST_NAMES: Final = 100
_LONGEST_NAME: Final = 100
_EXACT: Final = (type(None), bool, int, float, str)


class Carried:
    """Collects values for one record.

    `tuples` are the paths of what was a tuple; `not_kept` names what is not as it was, or is left out. All values
    together have at most `room` bytes.
    """

    def __init__(self, max_value_bytes: int, room: "Room") -> None:
        self.tuples: list[Path] = []
        self.not_kept: list[str] = []
        self._max_value_bytes = max_value_bytes
        self._room = room

    def take(self, value: object, name: str, path: Path) -> tuple[JSONValue, bool]:
        """Return the value as JSON, and whether there is anything left of it. `name` is that of the value in words."""
        tuples: list[Path] = []
        try:
            form, is_exact = _form(value, path, tuples)
            text = dump(form, name, self._max_value_bytes)
        except Exception:  # noqa: BLE001 - the value's own code may raise anything; it is named as not kept
            form, is_exact, text = None, False, ""
        if not text or not self._room.take_text(text + name + "".join(map(str, tuples))):
            self._lose(name)
            return None, False
        if not is_exact:
            self._lose(name)
        self.tuples += tuples
        return form, True

    def _lose(self, name: str) -> None:
        if len(self.not_kept) < _MOST_NAMES:
            self.not_kept.append(name[:_LONGEST_NAME])
        elif len(self.not_kept) == _MOST_NAMES:
            self.not_kept.append("and more")


class Room:
    """How many bytes of a record are still free."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> bool:
        """Return whether so many bytes were free; they are then taken."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def take_text(self, text: str) -> bool:
        """Return whether there was room for the text as JSON, which is then taken."""
        return self.take(len(dump(text, "text").encode()))


def _form(value: object, path: Path, tuples: list[Path]) -> tuple[JSONValue, bool]:
    """Return the value as JSON, and whether it can be made of it again."""
    kind = type(value)
    if kind in _EXACT:
        return value, True
    if kind is list or kind is tuple:
        items: Any = value
        if kind is tuple:
            tuples.append(path)
        forms = [_form(item, (*path, number), tuples) for number, item in enumerate(items)]
        return [form for form, _ in forms], all(is_exact for _, is_exact in forms)
    if kind is dict:
        entries: Any = value
        if all(type(key) is str for key in entries):
            pairs = {key: _form(item, (*path, key), tuples) for key, item in entries.items()}
            return {key: form for key, (form, _) in pairs.items()}, all(is_exact for _, is_exact in pairs.values())
    return load(dump(value, "value")), False  # what JSON makes of an IntEnum, say


def with_tuples(values: Mapping[str, JSONValue], tuples: Iterable[Path]) -> dict[str, Any]:
    """Return the values with tuples where there were tuples."""
    made: dict[str, Any] = deepcopy(dict(values))
    for path in sorted(tuples, key=len, reverse=True):  # from the inside
        holder: Any = made
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = tuple(holder[path[-1]])
    return made
