"""Drives whole families of executions without Celery: rings the bells, tells of ends, and dies at any write."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from agent_statestore import ManualClock, MemoryStore, Signal, SignalKind
from agent_statestore.checkpoint import NewExecution
from agent_statestore.clock import from_us
from agent_statestore.query import Query
from agent_statestore.records import ExecutionSummary
from celery_agents.decorators import Agent
from celery_agents.engine.executor import Defaults, Executor
from celery_agents.engine.lease import LeaseKeeper
from celery_agents.engine.outcome import Ending, Outcome
from celery_agents.lifecycle.assembly import make_executor
from tests.celery_agents.driving import LEASE, Crash, Engine, the_dead_do_not_speak

WRITES = ("create", "claim", "checkpoint", "send", "settle")


class MortalStore(MemoryStore):
    """A store whose process dies before or after its n-th write, counted from 1."""

    def __init__(self, clock: ManualClock, *, dies_at: int | None = None, after: bool = False) -> None:
        super().__init__(clock=clock)
        self.dies_at = dies_at
        self.dies_after = after
        self.writes: list[str] = []
        self.reads: list[str] = []
        self.is_dead = False
        self._inside = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name == "release":
            return the_dead_do_not_speak if self.is_dead else found
        if name == "get_summary" and not self._inside:
            self.reads.append(name)
        return self._mortal(name, found) if name in WRITES and not self._inside else found

    def _mortal(self, name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def writing(*arguments: Any, **options: Any) -> Any:
            self.writes.append(name)
            dies = len(self.writes) == self.dies_at
            if dies and not self.dies_after:
                self._die()
            self._inside = True
            try:
                result = write(*arguments, **options)
            finally:
                self._inside = False
            if dies:
                self._die()
            return result

        return writing

    def _die(self) -> None:
        self.is_dead = True
        raise Crash


@dataclass
class Household(Engine):
    """A store, a registry, and workers that do everything that is due, until nothing is."""

    limits: Defaults = field(default_factory=lambda: Defaults(lease=LEASE, announce_within=LEASE))
    dies_at: int | None = None
    dies_after: bool = False
    rung: list[str] = field(default_factory=list)
    queue: list[str] = field(default_factory=list)
    deaths: int = 0
    store: MortalStore = field(init=False)
    keeper: LeaseKeeper = field(init=False)

    def __post_init__(self) -> None:
        self.store = MortalStore(self.clock, dies_at=self.dies_at, after=self.dies_after)
        self.keeper = LeaseKeeper(self.store)

    @property
    def executor(self) -> Executor:
        """One that rings and tells, as a worker's does."""
        return make_executor(
            store=self.store,
            registry=self.registry,
            keeper=self.keeper,
            limits=self.limits,
            is_draining=lambda: self.draining,
            subscribers=(self.events.append,),
            interrupts=(Crash, *self.interrupts),
            ring=self._ring,
        )

    def start(self, agent: Agent, value: Any = None, **options: Any) -> str:
        """Stores an execution; returns its id."""
        new = NewExecution(
            agent_id=agent.name, input=agent.encode_input(value), **{"first_ring": timedelta(0)} | options
        )
        return MemoryStore.create(self.store, new).execution_id

    def execute(self, execution_id: str) -> Outcome | None:
        """Does what one message to a worker does, the telling of an end included."""
        outcome = self.executor.execute(execution_id, "host/1/0")
        if outcome is not None and outcome.ending is Ending.UNKNOWN:
            self.store.mark_rung([(execution_id, outcome.token)], LEASE, timedelta(hours=1))
        summary = self.store.get_summary(execution_id)
        assert summary is not None
        if summary.state.is_over and summary.due_at is not None:
            self.ends.tell(summary)
            self.store.settle(execution_id)
        return outcome

    def bell(self, execution_id: str) -> None:
        """`execute`, by a process that may die of it."""
        try:
            self.execute(execution_id)
        except Crash:
            self.deaths += 1
            self.store.is_dead = False

    def work(self, within: timedelta = timedelta(0)) -> None:
        """Rings everything that is due within this time, as time goes by, until nothing is."""
        until = self.clock.now_us() + within // timedelta(microseconds=1)
        for _ in range(100_000):
            while self.queue:
                self.bell(self.queue.pop(0))
            due = self._next_due()
            if due is None or due > until:
                self.clock.advance(timedelta(microseconds=until - self.clock.now_us()))
                return
            self.clock.advance(timedelta(microseconds=max(due - self.clock.now_us(), 0)))
            for one in self.store.take_due(100, LEASE):
                self.bell(one.execution_id)
        raise AssertionError("it never becomes quiet")

    def send(self, execution_id: str, kind: SignalKind, key: str, payload: Any, *, round: int = 1) -> None:
        """Puts a signal into the mailbox, as a client does: no worker dies of it."""
        signal = Signal(signal_id=uuid4().hex, kind=kind, key=key, payload=payload, round=round)
        MemoryStore.send(self.store, execution_id, signal)

    def event(self, execution_id: str, name: str, payload: Any = None) -> None:
        """Sends an event."""
        self.send(execution_id, SignalKind.EVENT, name, payload)

    def now(self) -> datetime:
        """The store's time."""
        return from_us(self.clock.now_us())

    def summary(self, execution_id: str) -> ExecutionSummary:
        """What is stored, without its contents."""
        found = MemoryStore.get_summary(self.store, execution_id)
        assert found is not None
        return found

    def all(self, agent: Agent) -> list[ExecutionSummary]:
        """The executions of an agent, oldest first."""
        return list(reversed(self.store.find(Query(agent_id=agent.name, limit=1000)).items))

    def _ring(self, summary: ExecutionSummary) -> None:
        self.rung.append(summary.execution_id)
        self.queue.append(summary.execution_id)
        self.store.mark_rung([(summary.execution_id, summary.attempt)], LEASE, timedelta(hours=1))

    def _next_due(self) -> int | None:
        with self.store._changed:
            dues = [one.header["due_us"] for one in self.store._executions.values()]
        return min((due for due in dues if due is not None), default=None)


def dying_at_each_write(scenario: Callable[[Household], Any]) -> Iterator[tuple[Household, Any]]:
    """Plays the scenario once for each write that it takes, dying before it, and again dying after it.

    Yields the household after each play, with what the scenario returned.
    """
    for after in (False, True):
        for place in range(1, 1000):
            household = Household(dies_at=place, dies_after=after)
            result = scenario(household)
            if not household.deaths:
                break
            yield household, result
        assert place > 1, "the scenario writes nothing"
