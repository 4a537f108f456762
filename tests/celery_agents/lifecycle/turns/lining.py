"""Executions that wait for each other: an engine whose bells are heard, and a crowd of threads that answer them."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from agent_statestore import ExecutionSummary, Store
from celery_agents.decorators import Agent
from celery_agents.define.registry import Registry
from celery_agents.engine.executor import Defaults, Executor
from celery_agents.engine.lease import LeaseKeeper
from celery_agents.engine.outcome import Outcome
from celery_agents.lifecycle.assembly import make_executor
from tests.celery_agents.driving import Crash, Engine


@dataclass
class Line(Engine):
    """An engine that keeps the ids of the executions whose bells it rang."""

    rung: list[str] = field(default_factory=list)

    def execute(self, execution_id: str) -> Outcome | None:
        return self.executor.execute(execution_id, "host/1/0")

    @property
    def executor(self) -> Executor:
        """One that rings."""
        return make_executor(
            store=self.store,
            registry=self.registry,
            keeper=LeaseKeeper(self.store),
            limits=self.limits,
            is_draining=lambda: self.draining,
            subscribers=(self.events.append,),
            interrupts=(Crash, *self.interrupts),
            ring=self._ring,
        )

    def _ring(self, summary: ExecutionSummary) -> None:
        self.rung.append(summary.execution_id)

    def begin(self, agent: Agent, value: Any = None, **fields: Any) -> str:
        """Stores an execution, with the key of its input; returns its id."""
        fields["metadata"] = agent.turns.added_to(fields.get("metadata", {}), lambda: value)
        return self.store.create_context(agent.name, value, **fields).execution_id

    def answer_bells(self) -> list[str]:
        """Works on what was rung, and on what that rings, until all is quiet; returns the ids in their order."""
        worked = []
        while self.rung:
            execution_id = self.rung.pop(0)
            if self.execute(execution_id) is not None:
                worked.append(execution_id)
        return worked


@dataclass
class Gauge:
    """How many are inside at once, by key, and in which order they came."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    inside: dict[Any, int] = field(default_factory=dict)
    most: dict[Any, int] = field(default_factory=dict)
    order: list[Any] = field(default_factory=list)

    @contextlib.contextmanager
    def counting(self, key: Any, name: Any = None) -> Iterator[None]:
        """Counts the block."""
        with self.lock:
            self.inside[key] = self.inside.get(key, 0) + 1
            self.most[key] = max(self.most.get(key, 0), self.inside[key])
            self.order.append(name)
        try:
            yield
        finally:
            with self.lock:
                self.inside[key] -= 1


class Crowd:
    """Threads that answer bells, as workers do, without any sweeper: a wake that is lost is never made up for."""

    def __init__(self, store: Store, registry: Registry, threads: int, limits: Defaults | None = None) -> None:
        self._store = store
        self._bells: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.faults: list[BaseException] = []
        executor = make_executor(
            store=store,
            registry=registry,
            keeper=LeaseKeeper(store),
            limits=limits or Defaults(),
            ring=self.ring,
        )
        self._threads = [
            threading.Thread(target=self._work, args=(executor, number), daemon=True) for number in range(threads)
        ]

    def ring(self, summary: ExecutionSummary) -> None:
        """Rings a bell."""
        self._bells.put(summary.execution_id)

    def _work(self, executor: Executor, number: int) -> None:
        while (execution_id := self._bells.get()) is not None:
            try:
                outcome = executor.execute(execution_id, f"host/1/{number}")
                if outcome is not None and outcome.ring:
                    self._bells.put(execution_id)
            except BaseException as error:  # noqa: BLE001 - shown by the test
                self.faults.append(error)

    def run(self, execution_ids: list[str], is_done: Callable[[], bool], patience_seconds: float = 60.0) -> None:
        """Rings for these, and works until all is done."""
        for execution_id in execution_ids:
            self._bells.put(execution_id)
        for thread in self._threads:
            thread.start()
        give_up_at = time.monotonic() + patience_seconds
        while not is_done() and not self.faults and time.monotonic() < give_up_at:
            time.sleep(0.02)
        for _ in self._threads:
            self._bells.put(None)
        for thread in self._threads:
            thread.join(10)
        assert not self.faults, self.faults
        assert is_done(), "the line stands still"
