"""Copying all executions between all kinds of stores, interrupted in the middle and repeated."""

import time
from contextlib import ExitStack
from dataclasses import dataclass

from agent_statestore import Store, open_store
from agent_statestore.moving.copying import Copied, CopyOutcome, copy
from benchmarks.population import ids_of, populated
from benchmarks.report import Table, Value
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure executions per second of `agent_statestore.moving.copy`, and whether the copies are the same to the byte.

    The sources are themselves copies of what was made in memory.
    """
    with ExitStack() as stack:
        original = populated(sizes.copies)
        expected = digests_of(original)
        sources: dict[str, Store] = {"memory": original}
        transfers: dict[tuple[str, str], Transfer] = {}
        names = [name for name in sizes.copied_between if name in servers.store_names()]
        for name in names:
            if name != "memory":
                sources[name] = stack.enter_context(open_store(servers.store_url(name)))
                transfers["memory", name] = transfer(original, sources[name], expected)
        for source in names:
            for target in names:
                if source not in (target, "memory"):
                    with open_store(servers.store_url(target)) as store:
                        transfers[source, target] = transfer(sources[source], store, expected)
                        store.clear()
    rows: list[dict[str, Value]] = []
    for (source, target), done in transfers.items():
        from_memory = transfers.get(("memory", target))
        rows.append(
            {
                "from": source,
                "to": target,
                "copied, /s": done.copied / done.copying_seconds,
                "seconds / from memory": None
                if from_memory is None
                else done.copying_seconds / from_memory.copying_seconds,
                "interrupted after": done.interrupted_after,
                "digests equal": f"{done.equal:,} of {len(expected):,}",
            }
        )
    return [
        Table(
            name="copying",
            title=f"Copying {sizes.copies:,} executions of two steps, interrupted in the middle and repeated",
            note=(
                "With eight threads; each copy is read back and compared. Seconds: of both calls. Digests: of every "
                "execution in the target, afterwards, against those of the original."
            ),
            rows=rows,
        )
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One copying: a call that was interrupted copied the first `interrupted_after` of the `copied` executions.

    `equal` executions of the target have the digest that was expected of them.
    """

    copied: int
    interrupted_after: int
    copying_seconds: float
    equal: int


class _Interrupted(Exception):
    """Raised in the middle of copying."""


def transfer(source: Store, target: Store, expected: dict[str, str]) -> Transfer:
    """Copy everything in two calls. Raise `RuntimeError` if other executions than expected are there afterwards."""
    first = Copied()

    def interrupt(copied: Copied) -> None:
        nonlocal first
        first = copied
        if 2 * copied.total >= len(expected):
            raise _Interrupted

    started = time.perf_counter()
    try:
        copy(source, target, on_progress=interrupt)
    except _Interrupted:
        second = copy(source, target)
    else:
        raise RuntimeError("there was no middle to be interrupted in")
    seconds = time.perf_counter() - started
    found = digests_of(target)
    before, after = first.counts.get(CopyOutcome.COPIED, 0), second.counts.get(CopyOutcome.COPIED, 0)
    if found.keys() != expected.keys() or not 0 < before < len(expected) or before + after != len(expected):
        raise RuntimeError(f"copied {before} and {after} of {len(expected)}, {len(found)} are there: {second}")
    return Transfer(
        copied=before + after,
        interrupted_after=before,
        copying_seconds=seconds,
        equal=sum(digest == expected[execution_id] for execution_id, digest in found.items()),
    )


def digests_of(store: Store) -> dict[str, str]:
    """Return the digests of all executions, by id."""
    digests = {}
    for execution_id in ids_of(store):
        exported = store.export(execution_id)
        assert exported is not None
        digests[execution_id] = exported.digest
    return digests
