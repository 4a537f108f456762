"""The documents of a Redis store. All of one root lie together, and the roots are spread over the partitions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from agent_statestore.documents.codec import LOWEST, EncodedOperation, StoredDocument
from agent_statestore.documents.contract import DocumentStore, Selection
from agent_statestore.documents.errors import DocumentUnreadable
from agent_statestore.documents.places import (
    Namespace,
    Range,
    is_root,
    namespace_in,
    namespace_text,
    place_of,
    root_in,
    within,
)
from agent_statestore.documents.records import Written
from agent_statestore.documents.rules import conflict
from agent_statestore.errors import ExecutionUnreadable
from agent_statestore.redis.answers import text
from agent_statestore.redis.document_cells import arguments_of, listed_in, read_at
from agent_statestore.redis.document_roots import EVERYTHING, Bounds, bounds_in, only_root_of, roots_within
from agent_statestore.redis.keys import PARTITIONS, Keys
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Connection
from agent_statestore.redis.servers.packing import Word

# One call looks at so many documents, removes so many, and answers about so many bytes: others want the server, too.
# What is left is for another call.
_LOOKED_AT: Final = 5_000
_REMOVED: Final = 1_000
_ANSWERED_BYTES: Final = 8 * 1024 * 1024
_LEAST_BYTES: Final = 64 * 1024

# Of so many roots documents are asked for at once: of few first, as these may hold all that are wanted.
_FIRST_ROOTS: Final = 4
_MOST_ROOTS: Final = 64


class RedisDocuments(DocumentStore):
    """Documents in Redis. `now` returns the injected time, or an empty text for the server's."""

    def __init__(self, connection: Connection, keys: Keys, now: Callable[[], str | int]) -> None:
        self._connection = connection
        self._keys = keys
        self._now = now

    def apply(self, operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
        root = root_in(operations[0].place)
        arguments: list[Word] = [root, LOWEST, write_id or ""]
        for operation in operations:
            arguments += arguments_of(operation, operation.place[len(root) :])
        status, *facts = self._run("apply_documents", root, arguments)
        if text(status) in ("OK", "APPLIED"):
            return Written(versions=tuple(map(int, facts)), was_applied=text(status) == "APPLIED")
        refused = operations[int(facts[0]) - 1]
        if text(status) == "CONFLICT":
            raise conflict(refused, int(facts[1]))
        raise DocumentUnreadable(*place_of(refused.place), "its header")

    def read(self, places: Sequence[str]) -> Sequence[StoredDocument | None]:
        found: list[StoredDocument | None] = [None] * len(places)
        left: dict[str, list[int]] = {}
        for position, place in enumerate(places):
            left.setdefault(root_in(place), []).append(position)
        while left:
            most_bytes = _bytes_for_each(left)
            calls: dict[str, Sequence[Word]] = {
                root: [most_bytes, *(places[position][len(root) :] for position in positions)]
                for root, positions in left.items()
            }
            for root, answer in self._run_each("read_documents", calls):
                positions = left[root]
                documents = [*read_at([places[position] for position in positions], answer)]
                for position, document in zip(positions, documents, strict=False):
                    found[position] = document
                left[root] = positions[len(documents) :]
            left = {root: positions for root, positions in left.items() if positions}
        return found

    def read_range(self, selection: Selection) -> Sequence[StoredDocument]:
        root = only_root_of(selection)
        if root is not None:
            return self._list([root], selection, selection.limit)
        found: list[StoredDocument] = []
        at_once = _FIRST_ROOTS
        known = min(selection.limit, _MOST_ROOTS)
        for roots in roots_within(
            self._connection, self._keys, selection.places, at_once=known, newest_first=selection.newest_first
        ):
            while roots and len(found) < selection.limit:
                found += self._list(roots[:at_once], selection, selection.limit - len(found))
                roots, at_once = roots[at_once:], min(2 * at_once, _MOST_ROOTS)
            if len(found) >= selection.limit:
                break
        return found

    def remove_range(self, namespace: Namespace) -> int:
        places = within(namespace, below=True)
        if not is_root(namespace):
            return self._remove_roots(places)
        root = root_in(places.first)
        bounds = EVERYTHING if root == namespace_text(namespace) else bounds_in(root, places)
        return 0 if bounds is None else self._remove(root, bounds)

    def tidy(self, limit: int = 1000) -> int:
        asked = [
            (self._keys.of_partition(partition, "docexpiring"), (self._now(), limit)) for partition in range(PARTITIONS)
        ]
        answers = self._connection.run_each(script("expired_roots"), asked)
        roots = [text(root) for root in chain.from_iterable(answers)]
        count = 0
        while roots and count < limit:
            roots = roots[: limit - count]
            share = min((limit - count) // len(roots), _REMOVED)
            answered = [*self._run_each("tidy_documents", {root: (root, share) for root in roots})]
            count += sum(removed for _, removed in answered)
            roots = [root for root, removed in answered if removed == share]
        return count

    def clear(self) -> None:
        """Remove all documents."""
        self._remove_roots(within((), below=True))

    # -- several roots -------------------------------------------------------------------------------------------------

    def _list(self, roots: Sequence[str], selection: Selection, wanted: int) -> list[StoredDocument]:
        """Return the documents of a selection in these roots, which are in its order; at most as many as wanted."""
        parts = {root: bounds_in(root, selection.places) for root in roots}
        begun = {root: bounds for root, bounds in parts.items() if bounds is not None}
        found: list[StoredDocument] = []
        answers = dict(self._run_each("list_documents", _questions(begun, selection, wanted)))
        for root, bounds in begun.items():
            answer = answers[root]
            while True:
                begin, *documents = answer
                found += listed_in(root, documents, values=selection.values)
                if not begin or len(found) >= wanted:
                    break
                going_on = {root: _going_on(bounds, text(begin), selection)}
                ((_, answer),) = self._run_each("list_documents", _questions(going_on, selection, wanted - len(found)))
        return found[:wanted]

    def _remove_roots(self, places: Range) -> int:
        count = 0
        for roots in roots_within(self._connection, self._keys, places, at_once=_MOST_ROOTS):
            calls = {root: (root, *EVERYTHING, _REMOVED) for root in roots}
            for root, (removed, *sets) in [*self._run_each("remove_documents", calls)]:
                count += self._remove(root, EVERYTHING, sets) if removed == b"SETS" else removed
        return count

    def _remove(self, root: str, bounds: Bounds, sets: Sequence[bytes] = ()) -> int:
        count, may_be_more = 0, True
        while may_be_more:
            removed, *rest = self._run("remove_documents", root, (root, *bounds, _REMOVED), sets)
            if removed == b"SETS":
                sets = rest  # those whose keys the call must name
                continue
            count, may_be_more, sets = count + removed, text(rest[0]) == "1", ()
        return count

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _run_each(self, name: str, calls: Mapping[str, Sequence[Word]]) -> Iterator[tuple[str, Any]]:
        """Run a script on several roots, in one round trip to each server. Yield the roots with the answers."""
        asked = [(self._keys_of(name, root), (self._now(), *arguments)) for root, arguments in calls.items()]
        try:
            answers = self._connection.run_each(script(name), asked)
        except ExecutionUnreadable:
            # Such a call may be repeated: alone, the damaged root is named.
            answers = [self._run(name, root, arguments) for root, arguments in calls.items()]
        return zip(calls, answers, strict=True)

    def _run(self, name: str, root: str, arguments: Sequence[Word], sets: Sequence[bytes] = ()) -> Any:
        try:
            return self._connection.run(script(name), self._keys_of(name, root, sets), (self._now(), *arguments))
        except ExecutionUnreadable as error:
            raise DocumentUnreadable(namespace_in(root), "", error.reason) from error

    def _keys_of(self, name: str, root: str, sets: Sequence[bytes] = ()) -> list[bytes]:
        keys = self._keys.documents(root)
        return keys + self._keys.vectors(root, map(text, sets)) if name == "remove_documents" else keys


def _questions(parts: Mapping[str, Bounds], selection: Selection, wanted: int) -> dict[str, Sequence[Word]]:
    """Return the arguments of `list_documents.lua` for parts of roots."""
    most_bytes = _bytes_for_each(parts)
    order, values = "1" if selection.newest_first else "0", "1" if selection.values else "0"
    return {
        root: [
            *(bounds[::-1] if selection.newest_first else bounds),
            *(order, wanted, values, _LOOKED_AT, most_bytes),
            *selection.lines,
        ]
        for root, bounds in parts.items()
    }


def _going_on(bounds: Bounds, begin: str, selection: Selection) -> Bounds:
    """Return the rest of a part, of which the documents up to some place were seen."""
    return (bounds[0], begin) if selection.newest_first else (begin, bounds[1])


def _bytes_for_each(roots: Mapping[str, object]) -> int:
    return max(_LEAST_BYTES, _ANSWERED_BYTES // len(roots)) if roots else 0
