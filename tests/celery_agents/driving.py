"""Drives the engine without Celery: one in-memory store, one clock that stands still, claims made by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

from agent_statestore import AgentContext, Lease, ManualClock, MemoryStore, Signal, SignalKind, Store
from agent_statestore.records import ExecutionSummary
from celery_agents.decorators import Agent, agent
from celery_agents.define.registry import Registry
from celery_agents.engine.events import Event
from celery_agents.engine.executor import Defaults
from celery_agents.engine.journal.last_write import BeforePause
from celery_agents.engine.lease import LeaseKeeper
from celery_agents.engine.outcome import Outcome
from celery_agents.lifecycle.assembly import make_executor
from celery_agents.lifecycle.ends import Ends, TellOutside

LEASE = timedelta(seconds=15)


class Crash(SystemExit):
    """Stands for the death of the process: nothing that catches Exception sees it, and nothing records it."""


class Noting(list[Event]):
    """A subscriber: the events that it was told of, in whichever thread, as `is_quick` says."""

    is_quick = True
    __call__ = list.append


@dataclass
class Engine:
    """A store, a registry and one executing process."""

    clock: ManualClock = field(default_factory=ManualClock)
    registry: Registry = field(default_factory=Registry)
    limits: Defaults = field(default_factory=lambda: Defaults(lease=LEASE))
    events: Noting = field(default_factory=Noting)
    subscribers: tuple[Callable[[Event], object], ...] = ()
    draining: bool = False
    exiting: bool = False
    interrupts: tuple[type[BaseException], ...] = ()
    before_pause: BeforePause | None = None
    tell_outside: TellOutside | None = None
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=self.clock)

    def agent(self, function: Callable[..., Any], **options: Any) -> Agent:
        """Registers an agent."""
        return agent(registry=self.registry, **options)(function)

    def start(self, agent: Agent, value: Any = None) -> str:
        """Stores an execution; returns its id."""
        return self.store.create_context(agent.name, agent.encode_input(value)).execution_id

    def execute(self, execution_id: str) -> Outcome | None:
        """Works on one claim, as one message to a worker does."""
        executor = make_executor(
            store=self.store,
            registry=self.registry,
            keeper=LeaseKeeper(self.store),
            limits=self.limits,
            is_draining=lambda: self.draining,
            is_exiting=lambda: self.exiting,
            subscribers=(self.events, *self.subscribers),
            interrupts=(Crash, *self.interrupts),
            before_pause=self.before_pause,
            tells_ends=lambda: self.tell_outside is not None,
        )
        return executor.execute(execution_id, "host/1/0")

    @property
    def ends(self) -> Ends:
        """Tells of ends, as a worker does."""
        return Ends(
            store=self.store,
            registry=self.registry,
            ring=self._ring,
            announce_within=self.limits.announce_within,
            tell_outside=self.tell_outside,
        )

    def _ring(self, summary: ExecutionSummary) -> None:
        """Leaves it to the test."""

    def crash(self, execution_id: str) -> None:
        """Works on one claim whose agent raises `Crash`; the lease stays, as it does when a process dies."""
        keeping = self.store.release
        self.store.release = the_dead_do_not_speak  # type: ignore[method-assign]
        try:
            self.execute(execution_id)
        except Crash:
            pass
        else:
            raise AssertionError("the agent did not crash")
        finally:
            self.store.release = keeping  # type: ignore[method-assign]
        self.clock.advance(LEASE)

    def context(self, execution_id: str) -> AgentContext:
        """What is stored."""
        context = self.store.get_context(execution_id)
        assert context is not None
        return context

    def answer(self, execution_id: str, value: Any, key: str = "ask", *, round: int = 1) -> None:
        """Answers a question."""
        self.send(execution_id, SignalKind.ANSWER, key, value, round=round)

    def cancel(self, execution_id: str) -> None:
        """Asks for a cancel."""
        self.send(execution_id, SignalKind.CANCEL, "", None)

    def send(self, execution_id: str, kind: SignalKind, key: str, payload: Any, *, round: int = 1) -> None:
        """Puts a signal into the mailbox."""
        signal = Signal(signal_id=uuid4().hex, kind=kind, key=key, payload=payload, round=round)
        self.store.send(execution_id, signal)


def the_dead_do_not_speak(lease: Lease, *, crashed: bool = False) -> bool:
    """Stands for `Store.release` in a process that is dead."""
    del lease, crashed
    return False


@dataclass
class Calls:
    """Counts how often the outside world was touched."""

    made: list[Any] = field(default_factory=list)

    def __call__(self, value: Any) -> Any:
        self.made.append(value)
        return value
