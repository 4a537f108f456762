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
# end has the execution in a slot, too, but not for long.
_TELLING_SECONDS: Final = 1.0


class Slots:
    """What the slots of a worker hold. `worker` is Celery's."""

    def __init__(self, runtime: Runtime, worker: Any) -> None:
        self._runtime = runtime
        self._pool = worker.pool_cls.__module__
        # The requests whose execution was cut short, and since when this has been known; None once they are dealt with.
        self._cut_short: dict[Any, float | None] = {}

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

    def empty_those_cut_short(self) -> None:
        """Kill the processes of executions that a cancel has cut short, or say that they keep their slots.

        Raise `StoreError`.
        """
        busy = self.busy()
        self._cut_short = {request: since for request, since in self._cut_short.items() if request in busy}
        if not busy:
            return
        held = {(lease.execution_id, owner.pid_of(lease.owner)) for lease in self.leases()}
        for request in busy:
            if (request.id, request.worker_pid) in held:
                self._cut_short.pop(request, None)
            elif request not in self._cut_short:
                if self._was_cut_short(request.id):
                    self._cut_short[request] = time.monotonic()
            else:
                since = self._cut_short[request]
                if since is not None and time.monotonic() - since >= _TELLING_SECONDS:
                    self._cut_short[request] = None
                    self._empty(request)

    def _was_cut_short(self, execution_id: str) -> bool:
        store = self._runtime.store
        summary = store.get_summary(execution_id)
        return summary is not None and summary.state is AgentState.CANCELLED and was_cut_short(store, execution_id)

    def _empty(self, request: Any) -> None:
        if self.forks:
            log.warning("execution %s was cancelled at once: killing its process %s", request.id, request.worker_pid)
            request.is_killed = True
            kill(request)
        else:
            log.warning(
                "execution %s was cancelled at once, but a %s pool cannot end its function: it keeps its slot until "
                "the function returns, and nothing of it is recorded any more",
                request.id,
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
