"""Who works and who waits, as the store shows it, and waking the next one. `lifecycle.turns` has the argument."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from agent_statestore.errors import ExecutionNotFound, ExecutionOver, StoreError
from agent_statestore.plain_text import line_logger
from agent_statestore.query import Query
from agent_statestore.records import ExecutionSummary, Signal, SignalKind, WaitKind
from agent_statestore.states import ACTIVE, WORKING, AgentState
from agent_statestore.store import Store
from celery_agents.define.registry import Registry
from celery_agents.define.turns import Turns, key_of
from celery_agents.lifecycle.ring import Ring

log = line_logger(__name__)

# The key that an execution waits for when it has stepped back, and the name of the reason in the prompt of that wait.
TURN_KEY: Final = "agents.turn"
REASON: Final = "turn"

_PAGE: Final = 50
_LONG_PAGE: Final = 250
# How far down the line to look for executions that wait for a free place of one key. Those behind look by themselves in
# time.
_LOOKED_THROUGH: Final = 2000
# How many of the oldest executions of a session to look at for the one whose turn it is: the first, unless they are
# relatives.
_OLDEST: Final = 20
_GENERATIONS: Final = 64


class Reason(StrEnum):
    """The reason why it is not an execution's turn."""

    SESSION = "session"
    CONCURRENCY = "concurrency"


def is_working(summary: ExecutionSummary, now: datetime) -> bool:
    """Return whether somebody works on an execution, which means that its lease lives."""
    return summary.state in WORKING and summary.lease_expires_at is not None and summary.lease_expires_at > now


def waits_for(summary: ExecutionSummary) -> Reason | None:
    """Return what an execution that has stepped back waits for; None for any other execution."""
    waiting = summary.waiting
    if summary.state is not AgentState.WAITING or waiting is None or not isinstance(waiting.prompt, dict):
        return None
    if (waiting.kind, waiting.key) != (WaitKind.EVENT, TURN_KEY):
        return None
    return Reason(waiting.prompt[REASON])


@dataclass(frozen=True, slots=True)
class Line:
    """The executions of one agent."""

    store: Store
    turns: Turns
    _chains: dict[str, tuple[ExecutionSummary, ...]] = field(default_factory=dict)

    def obstacle(self, own: ExecutionSummary, now: datetime) -> Reason | None:
        """Return why this execution, which has claimed, may not work; None if it may. `now` is the store's time."""
        if self._is_behind_in_session(own, now):
            return Reason.SESSION
        concurrency = self.turns.concurrency
        if concurrency is not None and self._places(own, now, but=own.execution_id) <= 0:
            return Reason.CONCURRENCY
        return None

    def pass_on(self, left: ExecutionSummary, now: datetime, ring: Ring) -> None:
        """Wake those who may work since this execution ended, paused or stepped back. May be repeated."""
        if self.turns.is_serial and left.session_id is not None:
            next_one = self._next_of_session(left.session_id, now)
            if next_one is not None:
                self._wake(next_one, ring)
        if self.turns.concurrency is not None:
            free = self._places(left, now)
            for waiter in self._waiters(left) if free > 0 else ():
                self._wake(waiter, ring)
                free -= 1
                if free <= 0:
                    break

    def active_of_session(self, session_id: str) -> Iterator[ExecutionSummary]:
        """Yield the executions of a session that are not over, oldest first."""
        return self._find(session_id=session_id, states=ACTIVE, oldest_first=True)

    def older_of_session(self, own: ExecutionSummary) -> Iterator[ExecutionSummary]:
        """Yield the executions before this one in its session that are not over; relatives do not count."""
        if own.session_id is None:
            return
        place = self._place_in_session(own)
        for older in self.active_of_session(own.session_id):
            if _place(older) >= place:
                return
            if not self._are_related(older, own):
                yield older

    def chain(self, execution_id: str | None) -> tuple[ExecutionSummary, ...]:
        """Return an execution and its ancestors."""
        if execution_id is None:
            return ()
        known = self._chains.get(execution_id)
        if known is None:
            found: list[ExecutionSummary] = []
            next_id: str | None = execution_id
            while next_id is not None and len(found) < _GENERATIONS:
                summary = self.store.get_summary(next_id)
                if summary is None:
                    break
                found.append(summary)
                next_id = summary.parent_execution_id
            known = self._chains[execution_id] = tuple(found)
        return known

    def _is_behind_in_session(self, own: ExecutionSummary, now: datetime) -> bool:
        """Return whether an older execution of the session is active, or any other works; relatives do not count."""
        if not self.turns.is_serial or own.session_id is None:
            return False
        if next(self.older_of_session(own), None) is not None:
            return True
        return any(
            is_working(other, now) and not self._are_related(other, own)
            for other in self._find(session_id=own.session_id, states=WORKING)
        )

    def _place_in_session(self, own: ExecutionSummary) -> tuple[datetime, str]:
        """Return the place of the oldest ancestor in the session, or the execution's own place.

        An execution that waits for that ancestor is younger. If a child waited for it, its parent would wait for ever.
        """
        ancestors = self.chain(own.parent_execution_id)
        return min(
            _place(each)
            for each in (own, *ancestors)
            if (each.agent_id, each.session_id) == (own.agent_id, own.session_id)
        )

    def _next_of_session(self, session_id: str, now: datetime) -> ExecutionSummary | None:
        oldest = self._page(session_id=session_id, states=ACTIVE, oldest_first=True, limit=_OLDEST)
        for summary in oldest:
            if waits_for(summary) is not Reason.SESSION:
                continue
            place = self._place_in_session(summary)
            if all(
                self._are_related(other, summary) for other in oldest if _place(other) < place or is_working(other, now)
            ):
                return summary
        return None

    def _places(self, of: ExecutionSummary, now: datetime, *, but: str | None = None) -> int:
        """Return how many more executions of the same key may work, not counting `but`."""
        assert self.turns.concurrency is not None
        free, key = self.turns.concurrency.limit, key_of(of)
        for other in self._find(states=WORKING):
            if other.execution_id != but and key_of(other) == key and is_working(other, now):
                free -= 1
                if free <= 0:
                    break
        return free

    def _waiters(self, of: ExecutionSummary) -> Iterator[ExecutionSummary]:
        """Yield the executions of the same key that wait for a free place, oldest first."""
        key = key_of(of)
        # Without keys, the first waiter is the right one; with keys, it may stand behind many waiters of other keys.
        size = _PAGE if key is None else _LONG_PAGE
        for number, summary in enumerate(self._find(states=[AgentState.WAITING], oldest_first=True, limit=size)):
            if number >= _LOOKED_THROUGH:
                return
            if key_of(summary) == key and waits_for(summary) is Reason.CONCURRENCY:
                yield summary

    def _wake(self, waiter: ExecutionSummary, ring: Ring) -> None:
        signal = Signal(
            # Use one id for each pause, so that others who wake it for the same free place do nothing.
            signal_id=f"turn {waiter.version}",
            kind=SignalKind.EVENT,
            key=TURN_KEY,
        )
        try:
            sent = self.store.send(waiter.execution_id, signal)
        except (ExecutionNotFound, ExecutionOver):
            return
        if sent.woke:
            ring(waiter)

    def _are_related(self, one: ExecutionSummary, other: ExecutionSummary) -> bool:
        """Return whether one descends from the other, or is the other: they would wait for each other for ever."""
        return any(
            above.execution_id == ancestor.execution_id
            for ancestor, descendant in ((one, other), (other, one))
            for above in (descendant, *self.chain(descendant.parent_execution_id))
        )

    def _page(self, **filters: Any) -> tuple[ExecutionSummary, ...]:
        return self.store.find(Query(agent_id=self.turns.agent_id, **filters)).items

    def _find(self, *, limit: int = _PAGE, **filters: Any) -> Iterator[ExecutionSummary]:
        """Yield all matches page by page, reading only as far as the caller asks."""
        cursor = None
        while True:
            page = self.store.find(Query(agent_id=self.turns.agent_id, limit=limit, cursor=cursor, **filters))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return


def _place(summary: ExecutionSummary) -> tuple[datetime, str]:
    """Return the place of an execution in the order of creation."""
    return summary.created_at, summary.execution_id


def pass_turn_on(
    store: Store, registry: Registry, ring: Ring, left: ExecutionSummary, now: datetime | None = None
) -> None:
    """Wake those whose turn it is since this execution ended or paused. May be repeated.

    `now` is the store's time; the store is asked for it if the caller does not know it.
    """
    agent = registry.find(left.agent_id)
    if agent is None or not agent.turns.has_lines:
        return
    try:
        Line(store, agent.turns).pass_on(left, store.now() if now is None else now, ring)
    except StoreError as error:
        log.warning("execution %s: those who wait behind it look by themselves, later: %s", left.execution_id, error)
