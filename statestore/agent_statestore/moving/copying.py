"""Copying all executions from one store to another, to change the backend or to keep a second copy."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Final

from agent_statestore.clock import to_us
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.errors import StoreError, StoreUnavailable, UnsupportedURL
from agent_statestore.query import Cursor, Query
from agent_statestore.records import ExecutionSummary
from agent_statestore.states import AgentState
from agent_statestore.store import Store

_PAGE: Final = 200
_COUNTING_PAGE: Final = 1000
_MOST_PROBLEMS: Final = 100
_CHANGED_BY_SIGNALS: Final = frozenset({"updated_us", "due_us", "not_before_us"})
# While executions are created faster than they are copied, some are always left for another call.
_MOST_PASSES: Final = 10


class CopyOutcome(StrEnum):
    """The fate of one execution of the source.

    `COPIED`: the target has got it, with the same digest. `PRESENT`: the target had it already. `NEWER`: the target's
    copy has come further, and was left alone. `LEASED`: a worker holds it, so it was not copied. `DELETED`: it is
    deleted in the target, and stays so. `GONE`: it was removed from the source meanwhile. `MISSING`: the target does
    not have it (only `verify` looks for it). `DIFFERENT`: the target's copy is as old but not the same. `REFUSED`: it
    could not be read, or the target did not take it. `EXTRA`: the target has it and the source does not have it, or not
    any more (only `verify` looks for it).
    """

    COPIED = "copied"
    PRESENT = "present"
    NEWER = "newer"
    LEASED = "leased"
    DELETED = "deleted"
    GONE = "gone"
    MISSING = "missing"
    DIFFERENT = "different"
    REFUSED = "refused"
    EXTRA = "extra"


# With any of these, target and source do not hold the same.
INCOMPLETE: Final = frozenset({CopyOutcome.LEASED, CopyOutcome.MISSING, CopyOutcome.DIFFERENT, CopyOutcome.REFUSED})

_TOLD: Final = INCOMPLETE | {CopyOutcome.EXTRA}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An execution that is not in the target as it is in the source, or not in the source, and why."""

    execution_id: str
    outcome: CopyOutcome
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """The number of executions with each outcome, and the first hundred problems."""

    counts: Mapping[CopyOutcome, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def total(self) -> int:
        """How many executions of the source were looked at."""
        return sum(number for outcome, number in self.counts.items() if outcome is not CopyOutcome.EXTRA)

    @property
    def is_complete(self) -> bool:
        """Whether the target now has all of them, as far as they had come when they were looked at."""
        return not INCOMPLETE & self.counts.keys()


def copy(
    source: Store,
    target: Store,
    *,
    states: Collection[AgentState] | None = None,
    threads: int = 8,
    on_progress: Callable[[Copied], None] | None = None,
) -> Copied:
    """Copy executions, active and finished ones, with all their contents; each is read back and compared.

    It goes from the newest to the oldest, and then on with those created meanwhile. An execution is stored in the
    target as a whole or not at all, so that an interrupted call can simply be repeated: an execution that is there is
    skipped, and one that has come further in the source since is replaced. One that a worker holds is skipped, and
    counted: stop the workers before the last call. Deleted executions are not copied. Nothing in the source changes, so
    its active executions would go on there too: let no worker run on both.

    Executions that an earlier call copied, and that were deleted or purged in the source since, stay in the target;
    `verify` reports them.

    `states` restricts it to some. `on_progress` is called after each page with the counts so far. Raise
    `StoreUnavailable`, and `UnsupportedURL` if both stores are one.
    """
    return _each(source, target, _copy_one, states, threads, on_progress)


def verify(
    source: Store,
    target: Store,
    *,
    states: Collection[AgentState] | None = None,
    threads: int = 8,
    on_progress: Callable[[Copied], None] | None = None,
) -> Copied:
    """Compare the digests of all executions of the source with those of the target, and change nothing.

    Then look for executions that the target alone has. Otherwise it is like `copy`.
    """
    compared = _each(source, target, _verify_one, states, threads, on_progress)
    extra = _each(target, source, _look_for_one, states, threads, None)
    return Copied(
        counts={
            **compared.counts,
            **{outcome: n for outcome, n in extra.counts.items() if outcome is CopyOutcome.EXTRA},
        },
        problems=compared.problems + extra.problems,
    )


def count(store: Store, states: Collection[AgentState] | None = None) -> int:
    """Return how many executions there are, by looking at the headers of all."""
    total, cursor = 0, None
    while True:
        page = store.find(Query(states=states, limit=_COUNTING_PAGE, cursor=cursor))
        total, cursor = total + len(page.items), page.next_cursor
        if cursor is None:
            return total


_Report = tuple[CopyOutcome, str]


def _each(
    source: Store,
    target: Store,
    handle: Callable[[Store, Store, ExecutionSummary], _Report],
    states: Collection[AgentState] | None,
    threads: int,
    on_progress: Callable[[Copied], None] | None,
) -> Copied:
    if source is target or (source.is_shared and source.url == target.url):
        raise UnsupportedURL(target.url, "this is the store to copy from")
    counts: Counter[CopyOutcome] = Counter()
    problems: list[Problem] = []
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="copying")
    try:
        for summaries in _pages(source, states):
            for summary, (outcome, reason) in zip(
                summaries, pool.map(partial(_guarded, handle, source, target), summaries), strict=True
            ):
                counts[outcome] += 1
                if outcome in _TOLD and len(problems) < _MOST_PROBLEMS:
                    problems.append(Problem(execution_id=summary.execution_id, outcome=outcome, reason=reason))
            if on_progress is not None:
                on_progress(Copied(counts=dict(counts), problems=tuple(problems)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return Copied(counts=dict(counts), problems=tuple(problems))


def _pages(source: Store, states: Collection[AgentState] | None) -> Iterator[tuple[ExecutionSummary, ...]]:
    """Yield all executions, newest first, and then in the same way those that were created meanwhile."""
    seen_up_to: Cursor | None = None
    newest: ExecutionSummary | None = None
    for _ in range(_MOST_PASSES):
        cursor, is_news, first = None, False, newest
        while True:
            since = None if first is None else first.created_at
            page = source.find(Query(states=states, created_after=since, limit=_PAGE, cursor=cursor))
            fresh = tuple(item for item in page.items if seen_up_to is None or _place(item) > seen_up_to)
            if fresh and not is_news:
                is_news, newest = True, fresh[0]
            if fresh:
                yield fresh
            cursor = page.next_cursor
            if cursor is None:
                break
        if not is_news or newest is None:
            return
        seen_up_to = _place(newest)


def _guarded(
    handle: Callable[[Store, Store, ExecutionSummary], _Report], source: Store, target: Store, summary: ExecutionSummary
) -> _Report:
    """Handle one execution; one that cannot be copied must not stop the others."""
    try:
        return handle(source, target, summary)
    except StoreUnavailable:
        raise
    except StoreError as error:
        return CopyOutcome.REFUSED, str(error)


def _copy_one(source: Store, target: Store, summary: ExecutionSummary) -> _Report:
    execution_id = summary.execution_id
    there = target.get_summary(execution_id)
    if there is not None and _last_write(there) == _last_write(summary):
        return CopyOutcome.PRESENT, ""
    exported = source.export(execution_id)
    if exported is None:
        return CopyOutcome.GONE, ""
    if exported.leased_until_us and _is_leased(source, execution_id):
        return CopyOutcome.LEASED, "a worker holds it"
    was_stored = target.restore(exported)
    stored = target.export(execution_id)
    if stored is None:
        return CopyOutcome.DELETED, "it is deleted in the target"
    if stored.digest == exported.digest:
        return (CopyOutcome.COPIED if was_stored else CopyOutcome.PRESENT), ""
    if stored.place > exported.place:
        return CopyOutcome.NEWER, ""
    if stored.place < exported.place:
        return CopyOutcome.REFUSED, "a worker holds an older copy in the target"
    if not stored.leased_until_us and _only_got_signals(stored, exported):
        target.purge(execution_id)  # the source has it; a crash here leaves it to the next call
        return (
            (CopyOutcome.COPIED, "") if target.restore(exported) else (CopyOutcome.MISSING, "it could not be replaced")
        )
    return CopyOutcome.DIFFERENT, "the contents differ"


def _only_got_signals(older: ExportedExecution, newer: ExportedExecution) -> bool:
    """Return whether only signals have come since, and only such that leave the place as it is.

    Those are the signals that no audit trail notes.
    """

    def rest(copy: ExportedExecution) -> ExportedExecution:
        header = {name: value for name, value in copy.header.items() if name not in _CHANGED_BY_SIGNALS}
        return replace(copy, header=header, signals=(), leased_until_us=0)

    return rest(older) == rest(newer) and set(older.signals) < set(newer.signals)


def _verify_one(source: Store, target: Store, summary: ExecutionSummary) -> _Report:
    execution_id = summary.execution_id
    exported, stored = source.export(execution_id), target.export(execution_id)
    if exported is None:
        return CopyOutcome.GONE, ""
    if exported.leased_until_us and _is_leased(source, execution_id):
        return CopyOutcome.LEASED, "a worker holds it"
    if stored is None:
        is_deleted = bool(target.get_audit(execution_id))
        return (CopyOutcome.DELETED, "") if is_deleted else (CopyOutcome.MISSING, "the target does not have it")
    if stored.digest == exported.digest:
        return CopyOutcome.PRESENT, ""
    if stored.place > exported.place:
        return CopyOutcome.NEWER, ""
    reason = "the target's copy is older" if stored.place < exported.place else "the contents differ"
    return CopyOutcome.DIFFERENT, reason


def _look_for_one(source: Store, target: Store, summary: ExecutionSummary) -> _Report:
    """Return whether the other store has what this one has."""
    del source
    if target.get_summary(summary.execution_id) is not None:
        return CopyOutcome.PRESENT, ""
    was_deleted = bool(target.get_audit(summary.execution_id))
    return CopyOutcome.EXTRA, "it is deleted in the source" if was_deleted else "the source does not have it"


def _last_write(summary: ExecutionSummary) -> tuple[object, ...]:
    """Return what differs between two copies of which one has come further."""
    return (summary.version, summary.attempt, summary.updated_at, summary.state)


def _is_leased(store: Store, execution_id: str) -> bool:
    """Return whether a lease lives by the store's own clock."""
    summary = store.get_summary(execution_id)
    if summary is None or summary.owner is None:
        return False
    return any(lease.execution_id == execution_id for lease in store.find_leases(summary.owner))


def _place(summary: ExecutionSummary) -> Cursor:
    return Cursor(to_us(summary.created_at), summary.execution_id)
