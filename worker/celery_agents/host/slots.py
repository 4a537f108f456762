"""The slots of one worker, seen from its parent process: the executions that its pool works on, and how they are ended.

A process can be killed; a thread cannot. So only a pool that forks can be made to let go of a function that hangs.
"""

import os
import signal
import time
from contextlib import suppress
from typing import Any, Final

from celery.worker import state as worker_state

from agent_statestore.errors import StoreError
from agent_statestore.plain_text import line_logger
from agent_statestore.records import Lease
from agent_statestore.states import AgentState
from celery_agents.host import bell, owner
from celery_agents.host.runtime import Runtime
from celery_agents.lifecycle.ends import was_cut_short

log = line_logger(__name__)

# The pools whose tasks run in other processes than the worker's own, and so do not see its memory.
FORKING_POOLS: Final = ("celery.concurrency.prefork", "celery.concurrency.processes")

# How long a slot may stay taken after its execution was cut short, before it is emptied. A worker that tells of such an
# end has the execution in a slot, too, but not for long. A deletion is not as urgent: a step that ends within a lease
# may do so.
_TELLING_SECONDS: Final = 1.0


class Slots:
    """What the slots of a worker hold. `worker` is Celery's."""

    def __init__(self, runtime: Runtime, worker: Any) -> None:
        self._runtime = runtime
        self._pool = worker.pool_cls.__module__
        # The requests whose execution was cut short or deleted, and when their slots are emptied; None once that is
        # done, as far as it can be.
        self._lost: dict[Any, float | None] = {}

    @property
    def forks(self) -> bool:
        """Whether the slots are processes of their own, which can be killed."""
        return self._pool in FORKING_POOLS

    @property
    def pool(self) -> str:
        """The short name of the pool."""
        return str(self._pool).rpartition(".")[2]

    def busy(self) -> list[Any]:
        """Return Celery's requests of the executions that are in a slot right now."""
        while True:
            try:
                requests = tuple(worker_state.active_requests)
            except RuntimeError:  # the main thread has changed the set at this moment
                continue
            return [request for request in requests if request.type == bell.TASK_NAME and request.time_start]

    def leases(self) -> tuple[Lease, ...]:
        """Return the live leases of this host. Raise `StoreError`."""
        return self._runtime.store.find_leases(owner.host_prefix())

    def empty_those_lost(self) -> None:
        """Kill the processes of executions that were cut short or deleted, or say that they keep their slots.

        Nothing of them is recorded any more, and nobody could cancel one that is deleted. Raise `StoreError`.
        """
        busy = self.busy()
        self._lost = {request: until for request, until in self._lost.items() if request in busy}
        if not busy:
            return
        held = {(lease.execution_id, owner.pid_of(lease.owner)) for lease in self.leases()}
        for request in busy:
            if (request.id, request.worker_pid) in held:
                self._lost.pop(request, None)
                continue
            if self._lost.get(request, 0.0) is None:
                continue
            how, patience_seconds = self._how_lost(request.id)
            if how is None:
                self._lost.pop(request, None)
                continue
            until = self._lost.setdefault(request, time.monotonic() + patience_seconds)
            assert until is not None
            if time.monotonic() >= until:
                self._lost[request] = None
                self._empty(request, how)

    def _how_lost(self, execution_id: str) -> tuple[str | None, float]:
        """Return how an execution was lost, and how long its slot may stay taken; (None, 0) for any other."""
        store = self._runtime.store
        summary = store.get_summary(execution_id)
        if summary is None:
            return "deleted", self._runtime.settings.lease_seconds
        if summary.state is AgentState.CANCELLED and was_cut_short(store, execution_id):
            return "cancelled at once", _TELLING_SECONDS
        return None, 0.0

    def _empty(self, request: Any, how: str) -> None:
        if self.forks:
            log.warning("execution %s was %s: killing its process %s", request.id, how, request.worker_pid)
            request.is_killed = True
            kill(request)
        else:
            log.warning(
                "execution %s was %s, but a %s pool cannot end its function: it keeps its slot until the function "
                "returns, and nothing of it is recorded any more",
                request.id,
                how,
                self.pool,
            )

    def give_up(self) -> None:
        """End what is in the slots, and give the leases back, so that other workers go on at once.

        Where the slots are no processes, this process would have to end: the caller does that next.
        """
        busy = self.busy()
        if self.forks:
            for request in busy:
                send(request, signal.SIGSTOP)  # nothing of it happens any more once its lease is given back
        pids = {(request.id, request.worker_pid) for request in busy}
        try:
            for lease in self.leases():
                if (lease.execution_id, owner.pid_of(lease.owner)) in pids:
                    self._runtime.store.release(lease, crashed=True)  # the process has told that it is no crash
        except StoreError as error:
            log.warning("leases could not be given back and run out by themselves: %s", error)
        if self.forks:
            for request in busy:
                request.is_killed = True
                kill(request)


def kill(request: Any) -> None:
    """Kill the process that works on a request."""
    send(request, signal.SIGKILL)


def send(request: Any, number: signal.Signals) -> None:
    """Send a signal to the process that works on a request, if it still does."""
    if request not in worker_state.active_requests:
        return
    with suppress(ProcessLookupError):
        os.kill(request.worker_pid, number)
