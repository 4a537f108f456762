"""How long executions are kept after their end, or after their deletion, before they are purged for good."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Self

from agent_statestore.clock import Clock, SystemClock, from_us
from agent_statestore.errors import InvalidRecord, StoreError, StoreUnavailable
from agent_statestore.plain_text import line_logger
from agent_statestore.states import AgentState
from agent_statestore.store import Store

_LOGGER: Final = line_logger(__name__)

_DURATION: Final = re.compile(r"(\d{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _nothing(_: str) -> None:
    """What there is to do before a purge, where nobody keeps copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """The number of purged executions, by the state in which they were.

    `passed_over` counts those that could not be purged, each logged with its error, or must not be purged any more.
    """

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    deleted: int = 0
    passed_over: int = 0

    @property
    def total(self) -> int:
        """How many were purged."""
        return self.completed + self.failed + self.cancelled + self.deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long to keep executions in each of these states, counted from their end (`deleted`: from their deletion).

    None keeps them for ever. An active execution is never purged, nor one whose end must still be announced. Raises
    `InvalidRecord` for a duration that is not above zero.
    """

    completed: timedelta | None = None
    failed: timedelta | None = None
    cancelled: timedelta | None = None
    deleted: timedelta | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            duration = getattr(self, field.name)
            if duration is not None and duration <= timedelta(0):
                raise InvalidRecord(field.name, "needs a duration above zero")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the durations in "completed=30d,failed=90d,cancelled=7d,deleted=30d".

        Units are s, m, h, d; an empty text keeps all for ever. Raise `InvalidRecord`, which names the wrong part.
        """
        known = [field.name for field in fields(cls)]
        durations: dict[str, timedelta] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, duration = (piece.strip() for piece in part.partition("="))
            if not equals or name not in known:
                raise InvalidRecord("retention", f"{part!r} is not one of {', '.join(f'{each}=30d' for each in known)}")
            if name in durations:
                raise InvalidRecord("retention", f"{part!r} sets {name} a second time")
            match = _DURATION.fullmatch(duration)
            if match is None or not int(match[1]):
                raise InvalidRecord("retention", f"{part!r} needs a duration above zero: 90s, 15m, 12h or 30d")
            durations[name] = timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
        return cls(**durations)

    def __bool__(self) -> bool:
        """Return whether anything is ever purged."""
        return any(getattr(self, field.name) is not None for field in fields(self))

    def apply(
        self,
        store: Store,
        *,
        batch: int = 100,
        clock: Clock | None = None,
        before_each: Callable[[str], object] = _nothing,
    ) -> Purged:
        """Purge executions that were kept for long enough: of each kind the oldest, at most `batch` of them.

        Each execution goes in a separate transaction, so that nobody waits for this. Any number of processes may do it
        at once. `clock` tells how old an execution is. `before_each` is called with the id of each execution before it
        goes, to remove copies that others keep of it; if it raises, the execution stays, and the call ends with that
        error. Raise `StoreUnavailable`.
        """
        now = from_us((clock or SystemClock()).now_us())
        counts: dict[str, int] = {}
        passed_over = 0
        for state in (AgentState.COMPLETED, AgentState.FAILED, AgentState.CANCELLED):
            age: timedelta | None = getattr(self, state.value)
            if age is not None:
                counts[state.value], kept = purge_ended(
                    store, now - age, states=[state], limit=batch, before_each=before_each
                )
                passed_over += kept
        if self.deleted is not None:
            counts["deleted"] = purge_deleted(store, now - self.deleted, limit=batch, before_each=before_each)
        return Purged(**counts, passed_over=passed_over)


def purge_ended(
    store: Store,
    before: datetime,
    *,
    states: Collection[AgentState],
    limit: int = 100,
    before_each: Callable[[str], object] = _nothing,
) -> tuple[int, int]:
    """Purge at most `limit` executions in these states that were over before that time, the longest over first.

    Return how many were purged, and how many were passed over because they could not be purged, or were released
    meanwhile. `before_each` as in `Retention.apply`. Raise `StoreUnavailable`.
    """
    purged, passed_over = 0, set[str]()
    while purged < limit:
        found = store.find_ended(before, states=states, limit=limit - purged + len(passed_over))
        fresh = [execution_id for execution_id in found if execution_id not in passed_over]
        if not fresh:
            break
        for execution_id in fresh:
            if _guarded(execution_id, partial(_purge, store, execution_id, before, states, before_each)):
                purged += 1
            else:
                passed_over.add(execution_id)
    return purged, len(passed_over)


def purge_deleted(
    store: Store, before: datetime, *, limit: int = 100, before_each: Callable[[str], object] = _nothing
) -> int:
    """Purge at most `limit` executions that were deleted before that time, and return how many.

    One that cannot be purged is logged and passed over. `before_each` as in `Retention.apply`. Raise
    `StoreUnavailable`.
    """
    purged, passed_over = 0, set[str]()
    while purged < limit:
        found = store.find_deleted(before, limit - purged + len(passed_over))
        fresh = [execution_id for execution_id in found if execution_id not in passed_over]
        if not fresh:
            break
        for execution_id in fresh:
            before_each(execution_id)
            if _guarded(execution_id, partial(store.purge, execution_id)):
                purged += 1
            else:
                passed_over.add(execution_id)
    return purged


def _guarded(execution_id: str, purge: Callable[[], bool]) -> bool:
    try:
        return purge()
    except StoreUnavailable:
        raise  # all of them, later
    except StoreError as error:
        _LOGGER.warning("execution %s could not be purged: %s", execution_id, error)
        return False


def _purge(
    store: Store,
    execution_id: str,
    before: datetime,
    states: Collection[AgentState],
    before_each: Callable[[str], object],
) -> bool:
    """Purge an execution unless it is released first: `drop_archived` refuses one that has moved on."""
    summary = store.get_summary(execution_id)
    if summary is None or summary.ended_at is None or summary.ended_at >= before or summary.state not in states:
        return False
    before_each(execution_id)
    place = (summary.version, summary.attempt, len(store.get_audit(execution_id)))
    if not store.drop_archived(execution_id, place):
        return False
    left = store.get_summary(execution_id)
    if left is not None and left.ended_at is not None:
        store.purge(execution_id)  # from a store that would otherwise let it expire later
    return True
