"""Executions to measure: their steps are written to a store directly, or taken through the engine."""

import random
import string
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from agent_statestore import Action, AgentStep, Checkpoint, Lease, NewExecution, Result, Store
from celery_agents.decorators import agent
from celery_agents.define.registry import Registry
from celery_agents.engine.executor import Defaults
from celery_agents.engine.lease import LeaseKeeper
from celery_agents.engine.outcome import Ending
from celery_agents.engine.run.run import Run
from celery_agents.engine.stream.writer import StreamWriter
from celery_agents.lifecycle.assembly import make_executor

AGENT: Final = "benchmarks.steps"
OWNER: Final = "benchmark/1/0"
LEASE: Final = timedelta(minutes=30)
_SMALL_BATCH: Final = 20
_BATCH: Final = 200


def payload(size_bytes: int) -> str:
    """Return a text that does not compress well, the same in each run."""
    return "".join(random.Random(size_bytes).choices(string.ascii_letters + string.digits, k=size_bytes))


def make_step(number: int, output: str) -> AgentStep:
    """Return a step as `Engine` records it."""
    return AgentStep(
        step_number=number,
        name="step" if number == 1 else f"step#{number}",
        action=Action(kind="step"),
        result=Result(success=True, output=output),
        attempt=1,
        timestamp=datetime.now(UTC),
        duration=timedelta(microseconds=10),
    )


class Writer:
    """One claimed execution, written to by `store.checkpoint` without the engine."""

    def __init__(self, store: Store, output: str, *, steps: int = 0) -> None:
        self._store = store
        self._output = output
        self.execution_id = store.create(NewExecution(agent_id=AGENT, input=0)).execution_id
        self._lease = _claim(store, self.execution_id)
        self.steps = 0
        while self.steps < steps:
            numbers = range(self.steps + 1, min(self.steps + _SMALL_BATCH, steps) + 1)
            self.steps = numbers[-1]
            batch = tuple(make_step(number, output) for number in numbers)
            store.checkpoint(self.execution_id, Checkpoint(steps=batch), self._lease)

    def write(self) -> float:
        """Record one more step, and return how many seconds that took."""
        self.steps += 1
        checkpoint = Checkpoint(steps=(make_step(self.steps, self._output),))
        started = time.perf_counter()
        self._store.checkpoint(self.execution_id, checkpoint, self._lease)
        return time.perf_counter() - started


def prefilled(store: Store, steps: int, output: str) -> str:
    """Return the id of an unclaimed execution with recorded first steps, for `Engine.take_steps` to go on with."""
    execution_id = store.create(NewExecution(agent_id=AGENT, input=0)).execution_id
    lease = _claim(store, execution_id)
    for first in range(1, steps + 1, _BATCH):
        numbers = range(first, min(first + _BATCH, steps + 1))
        batch = tuple(make_step(number, output) for number in numbers)
        store.checkpoint(execution_id, Checkpoint(steps=batch), lease)
    store.release(lease)
    return execution_id


class Engine:
    """Runs executions of one agent whose steps do nothing but return a text."""

    def __init__(self, store: Store, output: str, *, has_streams: bool = False) -> None:
        self.store = store
        registry = Registry()
        self._output = output
        self._goal = 0
        self._stays_open = self._drains = False
        self._times: list[float] = []
        self._called_at: list[float] = []

        def work() -> str:
            self._called_at.append(time.perf_counter())
            return self._output

        @agent(name=AGENT, registry=registry, max_steps=1_000_000)
        def steps(run: Run, input: int) -> None:  # noqa: A002 - the field's standard name
            del input
            for _ in range(self._goal):
                started = time.perf_counter()
                run.step("step", work)
                self._times.append(time.perf_counter() - started)
            if self._stays_open:
                self._drains = True
                run.step("left to the next claim", work)

        self._executor = make_executor(
            store=store,
            registry=registry,
            keeper=LeaseKeeper(store),
            limits=Defaults(lease=LEASE),
            is_draining=lambda: self._drains,
            streams=StreamWriter(store) if has_streams else None,
        )

    def take_steps(self, steps: int, execution_id: str | None = None, *, stays_open: bool = False) -> list[float]:
        """Take `steps` new steps after the recorded ones, and return the seconds of each.

        They lead to the execution's end. With `stays_open` they lead as far as a worker that is told to leave goes, so
        that the execution can go on later.
        """
        self._run(steps, execution_id, stays_open)
        return self._times[-steps:]

    def resume(self, execution_id: str) -> float:
        """Claim and replay an execution, and return the seconds up to the function of its first new step."""
        started = self._run(1, execution_id, False)
        return self._called_at[0] - started

    def _run(self, steps: int, execution_id: str | None, stays_open: bool) -> float:
        recorded = 0
        if execution_id is None:
            execution_id = self.store.create(NewExecution(agent_id=AGENT, input=0)).execution_id
        else:
            summary = self.store.get_summary(execution_id)
            assert summary is not None
            recorded = summary.step_count
        self._goal = recorded + steps
        self._stays_open, self._drains = stays_open, False
        self._times.clear()
        self._called_at.clear()
        started = time.perf_counter()
        outcome = self._executor.execute(execution_id, OWNER)
        ending = Ending.DRAINED if stays_open else Ending.COMPLETED
        if outcome is None or outcome.ending is not ending or len(self._called_at) != steps:
            raise RuntimeError(f"the execution did not go as planned: {outcome}")
        return started


def _claim(store: Store, execution_id: str) -> Lease:
    claim = store.claim(execution_id, OWNER, LEASE)
    assert claim is not None
    return claim.lease
