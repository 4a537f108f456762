"""What executions did in a span of time: counts, durations, failures, and how long people let them wait."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from math import ceil
from typing import Final, Protocol

from agent_statestore.query import Query
from agent_statestore.records import AuditEntry, AuditEvent, ExecutionSummary, Page
from agent_statestore.states import AgentState

_PAGE: Final = 500
_FOR_PEOPLE: Final = frozenset({AgentState.WAITING_FOR_INPUT, AgentState.WAITING_FOR_APPROVAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTiming:
    """A step's key in the journal, whether it succeeded (None: an intent), and how long it took."""

    name: str
    success: bool | None
    duration: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """The step timings and the audit trail of an execution, without its contents."""

    steps: tuple[StepTiming, ...] = ()
    audit: tuple[AuditEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long something took: the number of cases, and nearest-rank percentiles; None without cases."""

    count: int
    p50: timedelta | None
    p95: timedelta | None
    p99: timedelta | None
    longest: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStats:
    """The executions of one agent. `durations` run from creation to end, and count the executions that are over.

    `steps` counts recorded steps; `resumed` counts executions that took more than one attempt.
    """

    agent_id: str
    states: Mapping[AgentState, int]
    durations: Durations
    steps: int
    resumed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """One step of one agent, over all its occurrences."""

    agent_id: str
    name: str
    failed: int
    durations: Durations


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureStats:
    """Failed executions of one agent with one kind of error; message and id are those of the latest one."""

    agent_id: str
    error_type: str
    count: int
    message: str
    execution_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitStats:
    """Pauses of one agent in one state that a person ends. `waiting` are not answered yet, since `oldest`."""

    agent_id: str
    state: AgentState
    durations: Durations
    waiting: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Figures of the executions that were created from `since` up to (not including) `until`."""

    since: datetime | None
    until: datetime | None
    agents: tuple[AgentStats, ...]
    steps: tuple[StepStats, ...]
    failures: tuple[FailureStats, ...]
    waits: tuple[WaitStats, ...]


class _Source(Protocol):
    def find(self, query: Query) -> Page: ...

    def get_activity(self, execution_ids: Sequence[str]) -> Mapping[str, Activity]: ...


def collect_stats(
    store: _Source, *, since: datetime | None = None, until: datetime | None = None, agent_id: str | None = None
) -> Stats:
    """Read the executions of that span of time, in pages, and return their figures; no other execution is read."""
    tally = _Tally()
    for summaries in _pages(store, since, until, agent_id):
        activity = store.get_activity([summary.execution_id for summary in summaries])
        for summary in summaries:
            tally.add(summary, activity.get(summary.execution_id, Activity()))
    return tally.stats(since, until)


def _pages(
    store: _Source, since: datetime | None, until: datetime | None, agent_id: str | None
) -> Iterator[tuple[ExecutionSummary, ...]]:
    cursor: str | None = None
    while True:
        page = store.find(
            Query(agent_id=agent_id, created_after=since, created_before=until, limit=_PAGE, cursor=cursor)
        )
        yield page.items
        cursor = page.next_cursor
        if cursor is None:
            return


class _Sample:
    """Durations in microseconds, eight bytes each."""

    def __init__(self) -> None:
        self._values = array("q")

    def add(self, duration: timedelta) -> None:
        self._values.append(duration // timedelta(microseconds=1))

    def durations(self) -> Durations:
        values = sorted(self._values)

        def rank(percent: int) -> timedelta | None:
            if not values:
                return None
            return timedelta(microseconds=values[max(ceil(len(values) * percent / 100), 1) - 1])

        return Durations(count=len(values), p50=rank(50), p95=rank(95), p99=rank(99), longest=rank(100))


@dataclass(slots=True)
class _Agent:
    states: Counter[AgentState] = field(default_factory=Counter)
    durations: _Sample = field(default_factory=_Sample)
    steps: int = 0
    resumed: int = 0


@dataclass(slots=True)
class _Step:
    durations: _Sample = field(default_factory=_Sample)
    failed: int = 0


@dataclass(slots=True)
class _Failure:
    count: int
    latest: ExecutionSummary


@dataclass(slots=True)
class _Wait:
    durations: _Sample = field(default_factory=_Sample)
    since: list[datetime] = field(default_factory=list)


class _Tally:
    def __init__(self) -> None:
        self._agents: defaultdict[str, _Agent] = defaultdict(_Agent)
        self._steps: defaultdict[tuple[str, str], _Step] = defaultdict(_Step)
        self._failures: dict[tuple[str, str], _Failure] = {}
        self._waits: defaultdict[tuple[str, AgentState], _Wait] = defaultdict(_Wait)

    def add(self, summary: ExecutionSummary, activity: Activity) -> None:
        agent = self._agents[summary.agent_id]
        agent.states[summary.state] += 1
        agent.resumed += summary.attempt > 1
        if summary.ended_at is not None:
            agent.durations.add(summary.ended_at - summary.created_at)
        if summary.error is not None:
            self._add_failure(summary, summary.error.type)
        for step in activity.steps:
            self._add_step(agent, summary.agent_id, step)
        self._add_waits(summary, activity.audit)

    def _add_failure(self, summary: ExecutionSummary, error_type: str) -> None:
        key = (summary.agent_id, error_type)
        known = self._failures.get(key)
        if known is None:
            self._failures[key] = _Failure(1, summary)  # the first is the latest: they come newest first
        else:
            known.count += 1

    def _add_step(self, agent: _Agent, agent_id: str, step: StepTiming) -> None:
        if step.success is None:
            return
        agent.steps += 1
        entry = self._steps[agent_id, step.name.partition("#")[0]]
        entry.durations.add(step.duration)
        entry.failed += not step.success

    def _add_waits(self, summary: ExecutionSummary, audit: Sequence[AuditEntry]) -> None:
        """Count each pause; it ends with the decision, or else with whatever moved the execution on: no event does."""
        moving = [entry for entry in audit if entry.event is not AuditEvent.RECEIVED]
        for entry, after in pairwise((*moving, None)):
            if entry is None or entry.event is not AuditEvent.MOVED or entry.to_state not in _FOR_PEOPLE:
                continue
            wait = self._waits[summary.agent_id, entry.to_state]
            if after is not None:
                wait.durations.add(after.at - entry.at)
            else:
                wait.since.append(entry.at)

    def stats(self, since: datetime | None, until: datetime | None) -> Stats:
        return Stats(
            since=since,
            until=until,
            agents=tuple(
                AgentStats(
                    agent_id=agent_id,
                    states=dict(agent.states),
                    durations=agent.durations.durations(),
                    steps=agent.steps,
                    resumed=agent.resumed,
                )
                for agent_id, agent in sorted(self._agents.items())
            ),
            steps=tuple(
                StepStats(agent_id=agent_id, name=name, failed=step.failed, durations=step.durations.durations())
                for (agent_id, name), step in sorted(self._steps.items())
            ),
            failures=tuple(_most_frequent_first(self._failures.items())),
            waits=tuple(
                WaitStats(
                    agent_id=agent_id,
                    state=state,
                    durations=wait.durations.durations(),
                    waiting=len(wait.since),
                    oldest=min(wait.since, default=None),
                )
                for (agent_id, state), wait in sorted(self._waits.items())
            ),
        )


def _most_frequent_first(failures: Iterable[tuple[tuple[str, str], _Failure]]) -> Iterator[FailureStats]:
    for (agent_id, error_type), failure in sorted(failures, key=lambda item: (-item[1].count, item[0])):
        error = failure.latest.error
        yield FailureStats(
            agent_id=agent_id,
            error_type=error_type,
            count=failure.count,
            message="" if error is None else error.message,
            execution_id=failure.latest.execution_id,
        )
