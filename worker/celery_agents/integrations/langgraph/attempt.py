"""One attempt at running a graph: it is cancelled when the execution stops, and each interrupt has a lasting name."""

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, Final, NoReturn, TypeVar

from langgraph.errors import GraphInterrupt

from celery_agents.engine.outcome import ExecutionUnwound

T = TypeVar("T")


class GraphAttempt:
    """What the nodes of a graph tell the code that runs it.

    LangGraph takes a `CancelledError` that comes out of a node for that node's failure: it would try the node again,
    or hand the error to another node. So a node in which the execution stops (it pauses, say) waits to be cancelled.
    """

    def __init__(self) -> None:
        self._has_stopped = asyncio.Event()
        self._stopped: ExecutionUnwound | None = None
        self._places: dict[str, str] = {}

    async def run(self, graph: Coroutine[Any, Any, T]) -> T:
        """Run the graph, until it ends or the execution stops."""
        token = _attempt.set(self)
        running, stopping = asyncio.create_task(graph), asyncio.create_task(self._has_stopped.wait())
        _attempt.reset(token)
        try:
            await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            running.cancel()
            await asyncio.gather(running, stopping, return_exceptions=True)
        if self._stopped is not None:
            raise self._stopped
        return running.result()

    async def stop(self, stopped: ExecutionUnwound) -> NoReturn:
        """End the run, from within one of its nodes."""
        self._stopped = self._stopped or stopped
        self._has_stopped.set()
        await asyncio.Event().wait()
        raise stopped

    def came_from(self, raised: GraphInterrupt, place: str) -> None:
        """Keep at which node a graph was interrupted; the innermost says so first."""
        for interrupt in raised.args[0]:
            self._places.setdefault(interrupt.id, place)

    def place(self, interrupt_id: str) -> str:
        """Return at which node a graph was interrupted: what an interrupt is called by, on each attempt alike."""
        return self._places.get(interrupt_id, "graph")


_attempt: Final[ContextVar[GraphAttempt | None]] = ContextVar("attempt", default=None)


def current_attempt() -> GraphAttempt | None:
    """Return the attempt that this code of a node belongs to."""
    return _attempt.get()


async def unwind(stopped: ExecutionUnwound) -> NoReturn:
    """End the graph's run, or raise where it is not ours: in an agent that awaits `ainvoke` itself."""
    attempt = _attempt.get()
    if attempt is not None:
        await attempt.stop(stopped)
    raise stopped
