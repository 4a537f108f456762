"""How many kinds of hostile input a run has tried, in one line for each sort of them.

A test tells it with `record_property("attacked", (sort, number of kinds))`. It has passed, so nothing gave way.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# What it would be for one of a sort to give way.
SORTS: Mapping[str, str] = {
    "answers": "accepted at the door and refused inside",
    "events": "ended the execution that waited for another",
    "messages": "ended a worker, or was kept",
    "damages": "stopped another execution, or was an error without a name",
    "urls": "showed its password",
}


def attacked(tests: Iterable[Iterable[tuple[str, Any]]]) -> Iterator[str]:
    """Yield a line for each sort: how many kinds, in how many tests, and what none of them did.

    `tests` are the properties of each test that passed.
    """
    kinds: dict[str, int] = defaultdict(int)
    places: dict[str, int] = defaultdict(int)
    for properties in tests:
        for sort, number in {tuple(value) for name, value in properties if name == "attacked"}:
            kinds[sort] = max(kinds[sort], number)
            places[sort] += 1
    for sort, gave_way in SORTS.items():
        if sort in kinds:
            yield f"attacked: {kinds[sort]} {sort} in {places[sort]} tests; 0 {gave_way}"
