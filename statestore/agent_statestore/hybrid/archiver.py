"""Moving finished executions from the hot store to the cold one.

The order makes it safe: the copy is committed in the cold store before the hot store lets go of the original. A crash
in between leaves both, with equal contents, and the next sweep finishes the move; doing it twice changes nothing, as
`restore` refuses a copy that has not come further and `drop_archived` an original that has.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agent_statestore.checkpoint import NewExecution
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.errors import LeaseHeld, SchemaMismatch, StoreError, StoreUnavailable, UnsupportedURL
from agent_statestore.hybrid.outage import ColdStoreOutage
from agent_statestore.plain_text import line_logger
from agent_statestore.query import Query
from agent_statestore.store import Store

_LOGGER: Final = line_logger("agent_statestore.hybrid")

# An execution that cannot be archived is tried again after this, or by the next process: another version of this
# process may read or store it, and a fault of the cold store's server may be gone soon.
_REFUSED_FOR_SECONDS: Final = 3600.0
_FAULTY_FOR_SECONDS: Final = 60.0
_MOST_REFUSED: Final = 10_000

_YEAR: Final = timedelta(days=365)

# The agent of the executions that show whether two stores are one. They live for two round trips.
_PROBE: Final = "agent_statestore.hybrid.probe"
_LEFT_BEHIND: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """The outcome of one round of archiving.

    `refused` counts executions that could not be moved, each logged with its error.
    """

    archived: int = 0
    refused: int = 0


class ColdStoreAway(Exception):
    """The cold store cannot be written to at all; `reason` is its error."""

    def __init__(self, reason: StoreError) -> None:
        super().__init__(reason)
        self.reason = reason


class _ColdStoreFault(StoreError):
    """The cold store's server answers, but refuses this one execution."""


class Archiver:
    """Moves executions that are over and settled."""

    def __init__(self, hot: Store, cold: Store) -> None:
        self._hot = hot
        self._cold = cold
        self._outage = ColdStoreOutage(hot.url, cold.url)
        # The executions that the cold store refused, and when to try each again. Only the order of insertion is relied
        # on.
        self._refused: dict[str, float] = {}
        self._stores_differ = False

    def archive(self, execution_id: str) -> bool:
        """Move one execution; return False if it is not there, not over, or its end must still be announced.

        Raise `ColdStoreAway`, and `StoreError` for a fault of this execution, or of the hot store.
        """
        copy = self._hot.export(execution_id)
        if copy is None or not is_settled(copy):
            return False
        with self._outage_noticed():
            is_new = self._cold.restore(copy)
            kept = None if is_new else self._cold.get_summary(execution_id)
        if is_new:
            self._stores_differ = True  # one store would have had it already
        elif kept is None:
            # It was deleted there, and whoever did that died before reaching the hot store, or is about to.
            return self._hot.purge(execution_id)
        elif (kept.version, kept.attempt) < copy.place[:2]:
            raise LeaseHeld(execution_id)  # in the cold store, which nobody should work on
        else:
            self._require_different_stores()
        return self._hot.drop_archived(execution_id, copy.place)

    def try_archive(self, execution_id: str) -> None:
        """Move one execution if that is possible now. Whatever is in the way is logged and left to `sweep`."""
        if not self._outage.may_try or execution_id in self._refused:
            return
        try:
            self.archive(execution_id)
        except ColdStoreAway:
            return  # which was logged
        except StoreUnavailable as error:
            _LOGGER.warning("execution %s is to be archived later: %s", execution_id, error)
        except StoreError as error:
            self._refuse(execution_id, error)

    def try_sweep(self, before: datetime, limit: int, seconds: float) -> int:
        """Run `sweep` as a background task, and tidy the cold store: do nothing while that is away.

        Return how many entries were removed from the cold store.
        """
        if not self._outage.may_try:
            return 0
        try:
            self.sweep(before, limit, seconds)
            with self._outage_noticed():
                return self._cold.tidy(limit)
        except (ColdStoreAway, _ColdStoreFault):
            return 0  # which was logged, or is tried again

    def sweep_or_raise(self, before: datetime, limit: int, seconds: float) -> Archived:
        """Run `sweep` for a person who waits for it: raise the error of a store that is away."""
        try:
            return self.sweep(before, limit, seconds)
        except ColdStoreAway as away:
            raise away.reason from away

    def sweep(self, before: datetime, limit: int, seconds: float) -> Archived:
        """Move at most `limit` executions that were over before that time, for at most about that many seconds.

        Raise `ColdStoreAway`, and `StoreUnavailable` if the hot store is away.
        """
        refused = self._refused_by_now()
        found = self._hot.find_ended(before, limit=limit + len(refused))
        batch = [execution_id for execution_id in found if execution_id not in refused][:limit]
        random.shuffle(batch)  # several sweepers: in the same order each would move the same ones
        give_up_at = time.monotonic() + seconds
        archived = failed = 0
        for execution_id in batch:
            try:
                archived += self.archive(execution_id)
            except StoreUnavailable:
                raise  # all of them, later
            except StoreError as error:
                self._refuse(execution_id, error)
                failed += 1
            if time.monotonic() >= give_up_at:
                break
        return Archived(archived=archived, refused=failed)

    def _require_different_stores(self) -> None:
        """Raise unless the two stores differ.

        Two URLs may lead to one place, where letting go of the original would lose the only copy.
        """
        if self._stores_differ:
            return
        created = self._hot.create(NewExecution(agent_id=_PROBE, first_ring=_YEAR))
        try:
            is_one = self._cold.get_summary(created.execution_id) is not None
        finally:
            self._hot.purge(created.execution_id)
        # These were left by processes that died in between.
        for left in self._hot.find(Query(agent_id=_PROBE, created_before=created.created_at - _LEFT_BEHIND)).items:
            self._hot.purge(left.execution_id)
        if is_one:
            error = UnsupportedURL(self._cold.url, "the hot and the cold store are one and the same")
            self._outage.begin(error)
            raise ColdStoreAway(error)
        self._stores_differ = True

    @contextmanager
    def _outage_noticed(self) -> Iterator[None]:
        try:
            yield
        except SchemaMismatch as error:
            self._outage.begin(error)
            raise ColdStoreAway(error) from error
        except StoreUnavailable as error:
            try:
                self._cold.check()
            except StoreError:
                self._outage.begin(error)
                raise ColdStoreAway(error) from error
            raise _ColdStoreFault(str(error)) from error
        self._outage.end()

    def _refuse(self, execution_id: str, error: StoreError) -> None:
        seconds = _FAULTY_FOR_SECONDS if isinstance(error, _ColdStoreFault) else _REFUSED_FOR_SECONDS
        _LOGGER.error(
            "execution %s cannot be archived and stays in %s; trying again in %d minutes: %s",
            execution_id,
            self._hot.url,
            seconds // 60,
            error,
        )
        while len(self._refused) >= _MOST_REFUSED:
            self._refused.pop(next(iter(self._refused)), None)
        self._refused[execution_id] = time.monotonic() + seconds

    def _refused_by_now(self) -> frozenset[str]:
        now = time.monotonic()
        for execution_id, retry_at in list(self._refused.items()):
            if retry_at <= now:
                self._refused.pop(execution_id, None)
        return frozenset(self._refused)


def is_settled(copy: ExportedExecution) -> bool:
    """Return whether the execution is over and its end needs no more announcing: nothing but a release changes it."""
    return copy.header["ended_us"] is not None and copy.header["due_us"] is None
