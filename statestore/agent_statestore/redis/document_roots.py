"""Which roots a question about documents concerns, and what part of each; the index of roots tells in what order."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final, TypeAlias

from agent_statestore.documents.contract import Selection
from agent_statestore.documents.places import Range, is_root, namespace_text, root_in, root_of, within
from agent_statestore.redis.answers import text
from agent_statestore.redis.keys import PARTITIONS, Keys
from agent_statestore.redis.servers.connection import Connection

# Where a range begins and where it ends, as ZRANGEBYLEX takes them.
Bounds: TypeAlias = tuple[str, str]

EVERYTHING: Final[Bounds] = ("-", "+")


def only_root_of(selection: Selection) -> str | None:
    """Return the one root in which all documents of a selection are; None if they may be in several."""
    namespace, last = selection.namespace, selection.places.last
    if is_root(namespace):
        return namespace_text(root_of(namespace))
    # Without those below it, a namespace of one part is a root.
    if namespace and last is not None and last <= (within(namespace, below=False).last or ""):
        return namespace_text(namespace)
    return None


def bounds_in(root: str, places: Range) -> Bounds | None:
    """Return the part of a range that is in a root; None if there is none."""
    first, last = places
    if first > root and not first.startswith(root):
        return None
    if last is not None and last <= root:
        return None
    begin = f"[{first[len(root) :]}" if first > root else "-"
    end = f"({last[len(root) :]}" if last is not None and last.startswith(root) else "+"
    return begin, end


def roots_within(
    connection: Connection, keys: Keys, places: Range, *, at_once: int, newest_first: bool = False
) -> Iterator[Sequence[str]]:
    """Yield the roots that may hold documents in a range, in order, some at a time, one round trip each time."""
    first, last = places
    begin = f"[{root_in(first)}" if first else "-"
    end = "+" if last is None else f"({last}"
    if newest_first:
        begin, end = end, begin
    command = "ZREVRANGEBYLEX" if newest_first else "ZRANGEBYLEX"
    indexes = [*chain.from_iterable(keys.of_partition(partition, "docroots") for partition in range(PARTITIONS))]
    while True:
        asked = [(command, index, begin, end, "LIMIT", 0, at_once) for index in indexes]
        found = [[text(root) for root in answer] for answer in connection.send_each(asked)]
        roots = sorted(chain.from_iterable(found), reverse=newest_first)
        # Behind the last root of a partition that has more to tell, nobody knows which comes next.
        ends = sorted((each[-1] for each in found if len(each) == at_once), reverse=newest_first)
        if not ends:
            yield roots
            return
        yield roots[: roots.index(ends[0]) + 1]
        begin = f"({ends[0]}"
