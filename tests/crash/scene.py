"""One test's surroundings: a broker, a store, workers on both, and a client that looks at them from outside."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from celery import Celery
from celery.result import AsyncResult
from pytest_celery import CeleryTestSetup, CeleryTestWorker

from agent_statestore import AgentContext
from celery_agents import Execution, enqueue
from celery_agents.host.runtime import Runtime
from tests.crash.agents import Plan, chain, undisturbed
from tests.crash.invariants import check_execution
from tests.crash.ledger import RETURNED, STARTED, Ledger, Row
from tests.services.machine import scaled

T = TypeVar("T")

_POLL_SECONDS = 0.01
_LOG_TAIL_LINES = 30


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the matrix."""

    broker: str
    store: str
    pool: str

    def __str__(self) -> str:
        return f"{self.broker}-{self.store}-{self.pool}"

    @property
    def parts(self) -> set[tuple[str, str]]:
        """What it is made of."""
        return {("broker", self.broker), ("store", self.store), ("pool", self.pool)}


CELLS = [
    Cell(broker, store, pool)
    for broker in ("embedded", "redis")
    for store in ("sqlite", "postgresql", "redis")
    for pool in ("prefork", "threads")
] + [Cell("embedded", "mariadb", "prefork"), Cell("redis", "mariadb", "threads"), Cell("redis", "hybrid", "prefork")]


def spread(cells: Sequence[Cell], *, stores: Collection[str] | None = None) -> list[Any]:
    """The cells as parameters of a test. On every commit so many run that each broker, store and pool is in one.

    With `stores` these stores are enough: what the test shows is the same on each, and other tests have the others.
    """
    missing = {part for cell in cells for part in cell.parts}
    if stores is not None:
        missing = {(kind, name) for kind, name in missing if kind != "store" or name in stores}
    chosen: list[Cell] = []
    while missing:
        best = max(cells, key=lambda cell: len(cell.parts & missing))  # the first of several
        chosen.append(best)
        missing -= best.parts
    return [pytest.param(cell, marks=[] if cell in chosen else [pytest.mark.full]) for cell in cells]


class AgentsSetup(CeleryTestSetup):  # type: ignore[misc] # pytest-celery carries no types
    """pytest-celery's setup, with an app that is nobody's current one."""

    @classmethod
    def create_setup_app(cls, celery_setup_config: dict[str, Any], celery_setup_app_name: str) -> Celery:
        app = Celery(celery_setup_app_name, set_as_current=False)
        app.conf.update(celery_setup_config)
        return app


class AgentsWorker(CeleryTestWorker):  # type: ignore[misc]
    """A worker node, with what crash tests do to one besides killing it."""

    def freeze(self) -> None:
        """Stops all its processes where they stand; they do not notice."""
        self.container.pause()

    def thaw(self) -> None:
        """Lets them go on."""
        self.container.unpause()

    def kill_child(self, pid: int) -> None:
        """Kills one process of its pool, as the kernel does when memory runs out."""
        status, output = self.container.exec_run(f"kill -9 {pid}")
        assert status == 0, output.decode()

    def pids(self) -> set[int]:
        """All its processes."""
        pids: set[int] = self.container.pids()
        return pids

    def pool_pids(self) -> list[int]:
        """The processes of its pool; none if it has threads."""
        return sorted(self.pids() - {self.container.main_pid})

    def wait_for_exit(self, seconds: float) -> int:
        """The exit status, once it has ended."""
        status: int = self.container.wait(seconds)
        return status


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a scenario acts on. `usual_patience_seconds` bounds every wait; limits are given as on a usual machine."""

    setup: AgentsSetup
    runtime: Runtime
    ledger: Ledger
    usual_patience_seconds: float = 40.0

    def with_patience(self, seconds: float) -> "Scene":
        """The same scene for a test that expects to wait in vain."""
        return replace(self, usual_patience_seconds=seconds)

    @property
    def patience_seconds(self) -> float:
        """The limit on this machine."""
        return scaled(self.usual_patience_seconds)

    # -- acting --------------------------------------------------------------------------------------------------------

    def enqueue(self, plan: Plan) -> Execution:
        """Starts an execution as any client does."""
        return enqueue(chain, plan, runtime=self.runtime)

    def open(self, execution: Execution, *numbers: int) -> None:
        """Opens the gates of these steps."""
        for number in numbers:
            self.ledger.open_gate(execution.id, number)

    # -- looking -------------------------------------------------------------------------------------------------------

    @property
    def workers(self) -> list[AgentsWorker]:
        """The worker nodes."""
        return list(self.setup.worker_cluster)

    def worker_of(self, row: Row) -> AgentsWorker:
        """The worker that wrote a row."""
        return next(worker for worker in self.workers if worker.name() == row.worker)

    def others(self, worker: AgentsWorker) -> list[AgentsWorker]:
        """All workers but this one."""
        return [one for one in self.workers if one is not worker]

    def told_by_celery(self, execution: Execution) -> tuple[str, object]:
        """State and result as Celery's result backend has them now."""
        result = AsyncResult(execution.id, app=self.setup.app)  # a new one: it keeps the first end that it sees
        meta = result._get_task_meta()
        return meta["status"], meta["result"]

    def calls(self, execution: Execution, number: int) -> list[Row]:
        """The calls of one step's function, oldest first."""
        return [row for row in self.ledger.rows(STARTED, execution.id) if row.number == number]

    # -- waiting -------------------------------------------------------------------------------------------------------

    def wait_until(self, what: str, look: Callable[[], T | None], seconds: float | None = None) -> T:
        """The first true value that `look` returns. Fails with the workers' last words if that takes too long."""
        deadline = time.monotonic() + scaled(seconds or self.usual_patience_seconds)
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain until {what}\n{self.last_words()}")
            time.sleep(_POLL_SECONDS)

    def wait_for_call(self, execution: Execution, number: int, *, attempt: int | None = None) -> Row:
        """The (latest) call of a step's function, once there is one (by this attempt)."""

        def look() -> Row | None:
            rows = [row for row in self.calls(execution, number) if attempt in (None, row.attempt)]
            return rows[-1] if rows else None

        return self.wait_until(f"step {number} of {execution.id} is called (attempt {attempt or 'any'})", look)

    def wait_for_return(self, execution: Execution, number: int, attempt: int) -> Row:
        """The row of a step's function that is about to return."""
        return self.wait_until(
            f"step {number} of {execution.id} returns in attempt {attempt}",
            lambda: next(
                (
                    row
                    for row in self.ledger.rows(RETURNED, execution.id)
                    if (row.number, row.attempt) == (number, attempt)
                ),
                None,
            ),
        )

    def wait_until_recorded(self, execution: Execution, number: int) -> None:
        """Returns once the store has the step."""
        self.wait_until(
            f"step {number} of {execution.id} is recorded", lambda: execution.summary().step_count >= number
        )

    def wait_for_log(self, worker: AgentsWorker, text: str) -> None:
        """Returns once the worker has said this."""
        self.wait_until(f"worker {worker.name()} says {text!r}", lambda: text in worker.logs())

    def finish(
        self, execution: Execution, plan: Plan, *, repeated: Collection[int] | None = (), told: bool = True
    ) -> AgentContext:
        """Waits for the end, and checks everything that must hold after it.

        `told`: that Celery's result backend tells the same end, and that nobody will be rung for it again.
        """
        self.wait_until(f"{execution.id} is over", lambda: execution.state.is_over)
        context = execution.context()
        check_execution(context, plan, self.ledger, repeated=repeated)
        if told:
            self.wait_until(f"the end of {execution.id} is announced", lambda: execution.summary().due_at is None)
            self.wait_until(
                f"the result backend says that {execution.id} succeeded",
                lambda: self.told_by_celery(execution) == ("SUCCESS", undisturbed(plan)[-1]),
            )
        return context

    def last_words(self) -> str:
        """The end of the ledger and of every worker's log."""
        rows = [str(row) for row in self.ledger.rows()][-_LOG_TAIL_LINES:]
        parts = ["-- ledger", *rows]
        for worker in self.workers:
            parts += [f"-- worker {worker.name()}", *worker.logs().splitlines()[-_LOG_TAIL_LINES:]]
        return "\n".join(parts)
