"""Celery's workers: bare ones, and those that run agents."""

import time
from datetime import UTC, datetime
from typing import Any

from celery import Celery

from agent_statestore.query import Query
from agent_statestore.states import ACTIVE, AgentState
from benchmarks.agents import late
from benchmarks.executions.way import ENDS, LATENCIES, Send, Way
from benchmarks.servers import Servers
from benchmarks.tasks import noop, stamp, writes  # also registers them with every app of this process
from benchmarks.workers import Worker
from celery_agents.current import enqueue, enqueue_many
from celery_agents.decorators import Agent
from celery_agents.host.runtime import Runtime, runtime_of


def _is_ours(task: str) -> bool:
    return task.startswith("benchmarks.")


class OnCelery(Way):
    """A Celery worker, and an app that sends to it. All that was sent is counted by the worker itself."""

    def __init__(self, servers: Servers, worker: Worker, app: Celery) -> None:
        super().__init__(servers, [worker], worker.concurrency)
        self.app = app
        app.finalize()
        self._noop, self._writes, self._stamp = (app.tasks[task.name] for task in (noop, writes, stamp))

    def noop(self) -> Send:
        """Return what sends a no-op."""
        return lambda: self._noop.delay()

    def writes(self, url: str, count: int) -> Send:
        """Return what sends a task of this many raw writes."""
        return lambda: self._writes.delay(url, count)

    def stamp(self) -> None:
        self._stamp.delay(self.stamps_url, ENDS, 0.0)

    def first_step(self, sent_at: float) -> None:
        """Send a task that tells how late it began."""
        self._stamp.delay(self.stamps_url, LATENCIES, sent_at)

    def are_over(self) -> bool:
        return True  # the stamps came last; a question to the worker would take longer than what may be left

    def count_ended(self) -> int:
        at_work = [task["name"] for task in self._inspected("active")]
        accepted = self._inspected("stats")["total"]
        return sum(int(number) for name, number in accepted.items() if _is_ours(name)) - sum(map(_is_ours, at_work))

    def _inspected(self, what: str) -> Any:
        """Return what the worker says of itself. It is the only one on its broker."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            said = getattr(self.app.control.inspect(timeout=5, limit=1), what)()
            if said:
                (answer,) = said.values()
                return answer
            self.check()
        raise RuntimeError(f"a worker does not answer:\n{self.logs()}")

    def close(self) -> None:
        self.app.close()
        super().close()


class Agents(OnCelery):
    """A worker that runs agents. What has ended is counted in the store."""

    def __init__(self, servers: Servers, worker: Worker, app: Celery) -> None:
        super().__init__(servers, worker, app)
        self.runtime: Runtime = runtime_of(app)
        self._counted: dict[str, None] = {}
        self._since = datetime.now(UTC)

    def enqueue(self, agent: Agent) -> Send:
        """Return what enqueues an execution of the agent."""
        return lambda: enqueue(agent, runtime=self.runtime)

    def enqueue_many(self, agent: Agent, count: int) -> Send:
        """Return what enqueues so many executions of the agent in one call."""
        return lambda: enqueue_many(agent, [None] * count, runtime=self.runtime)

    def first_step(self, sent_at: float) -> None:
        """Enqueue an execution whose first step tells how late it began."""
        enqueue(late, [self.stamps_url, LATENCIES, sent_at], runtime=self.runtime)

    def are_over(self) -> bool:
        return not self.runtime.store.find(Query(states=ACTIVE, limit=1)).items

    def count_ended(self) -> int:
        since, cursor = self._since, None
        while True:
            query = Query(states=[AgentState.COMPLETED], created_after=since, limit=500, cursor=cursor)
            page = self.runtime.store.find(query)
            for found in page.items:
                self._counted[found.execution_id] = None
                self._since = max(self._since, found.created_at)
            cursor = page.next_cursor
            if cursor is None:
                return super().count_ended() + len(self._counted)

    def close(self) -> None:
        self.runtime.store.close()
        super().close()
