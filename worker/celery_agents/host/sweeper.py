"""The sweeper: finds executions whose time has come and rings their bells. It never executes anything.

Recovery is enqueue (after dbos `_recovery.py`): handing an execution back to the queue twice is harmless.
"""

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from agent_statestore.errors import StoreError, StoreUnavailable
from agent_statestore.states import AgentState
from celery_agents.engine.patience import Outage
from celery_agents.host import bell, owner
from celery_agents.host.live_states import announce_cancel
from celery_agents.host.runtime import Runtime
from celery_agents.lifecycle.cancel import request_cancel

log = logging.getLogger(__name__)

# How often a worker is asked to announce the end of an execution whose end nobody announced. Workers discard every
# message of a revoked task, so without a limit such an execution would be rung for ever.
_ANNOUNCEMENTS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did, in numbers of executions."""

    rung: int = 0
    cancelled: int = 0


class Sweeper:
    """Looks for due executions, for leases of dead processes on this host, and for revoked tasks.

    `worker_name` is the worker that it runs in, if any: in its name ends are told that no bell can bring about.
    """

    def __init__(self, runtime: Runtime, worker_name: str | None = None) -> None:
        self._runtime = runtime
        self._worker_name = worker_name
        self._revoked: set[str] = set()
        self._revokes_seen: set[str] = set()
        # Revoked after they had ended otherwise. Celery would go on to discard their messages, also when a dead letter
        # is released: whoever holds Celery's set takes them out of it.
        self.void_revokes: set[str] = set()
        self._watching = Outage(log, "the watch for dead processes")
        self._sweeping = Outage(log, "the sweep")

    def sweep(self) -> Swept:
        """Rings the bells of due executions, one batch."""
        store, settings, ends = self._runtime.store, self._runtime.settings, self._runtime.ends
        grace = timedelta(seconds=settings.publish_grace_seconds)
        rung: list[tuple[str, int]] = []
        cancelled = 0
        for due in store.take_due(settings.sweep_batch, grace):
            try:
                over = due.over
                if due.cancel_requested and not over and ends.finish_cancel(due.execution_id):
                    ends.try_to_tell_of(due.execution_id)
                    cancelled += 1
                    over = True
                if over and due.execution_id in self._revoked and self._tell_of_cancel(due.execution_id):
                    continue
                if due.over and due.rings >= _ANNOUNCEMENTS:
                    self._settle_untold(due.execution_id)
                    continue
            except StoreUnavailable:
                raise  # all of them, later
            except StoreError as error:
                # One that cannot be read here (a newer format, say) must not keep the others waiting.
                log.warning("execution %s could not be swept: %s", due.execution_id, error)
                continue
            if due.token and not due.over:
                log.info("execution %s of agent %s goes on: ringing its bell", due.execution_id, due.agent_id)
            if not bell.ring(
                self._runtime.app,
                settings,
                execution_id=due.execution_id,
                agent_id=due.agent_id,
                queue=due.queue,
                priority=due.priority,
            ):
                break  # the rest would wait as long for the broker; they are due again after the grace
            rung.append((due.execution_id, due.token))
        bell.mark_rung(store, settings, rung)
        return Swept(rung=len(rung), cancelled=cancelled)

    def _settle_untold(self, execution_id: str) -> None:
        """No worker tells of this end. Its relatives need none."""
        self._runtime.ends.tell_of(execution_id)
        self._runtime.store.settle(execution_id)

    def break_dead_leases(self) -> int:
        """Gives back the leases of processes on this host that can be seen to be dead; returns how many."""
        store = self._runtime.store
        broken = 0
        for lease in store.find_leases(owner.host_prefix()):
            if owner.is_dead(lease.owner) and store.release(lease, crashed=True):
                log.warning("execution %s: its process %s is dead, it is free again", lease.execution_id, lease.owner)
                broken += 1
        return broken

    def cancel_revoked(self, revoked: set[str]) -> int:
        """Turns revokes of tasks (Flower's button, `app.control.revoke`) into cancels; returns how many.

        A worker discards every later message with a revoked id, so the end is recorded and told here if nobody holds a
        lease.
        """
        self._revoked = revoked
        cancelled = 0
        unavailable: StoreUnavailable | None = None
        for task_id in revoked - self._revokes_seen:
            try:
                cancelled += isinstance(task_id, str) and self._cancel_revoked(task_id)
            except StoreUnavailable as error:
                unavailable = error  # for this one perhaps: of two stores, or of a cluster's nodes, others may answer
                continue
            except (StoreError, ValueError) as error:
                log.warning("revoked task %r could not be looked up: %s", task_id, error)
            self._revokes_seen.add(task_id)
        self._revokes_seen &= revoked
        if unavailable is not None:
            raise unavailable
        return cancelled

    def _cancel_revoked(self, task_id: str) -> bool:
        store, ends = self._runtime.store, self._runtime.ends
        summary = store.get_summary(task_id)
        if summary is None:
            return False
        if summary.state.is_over:
            if summary.state is not AgentState.CANCELLED:
                self.void_revokes.add(task_id)
            return False
        if not summary.cancel_requested and not request_cancel(
            store, task_id, sender="celery", reason="the task was revoked"
        ):
            return False
        log.info("execution %s: its task was revoked, so it is cancelled", task_id)
        if ends.finish_cancel(task_id) and not self._tell_of_cancel(task_id):
            ends.try_to_tell_of(task_id)
        return True

    def _tell_of_cancel(self, execution_id: str) -> bool:
        """Tells everybody of a cancelled execution's end; False if that is for another worker, or for later.

        A bell would not do it: each worker discards a message whose id is revoked, and before that the message waits
        for a free slot.
        """
        store = self._runtime.store
        summary = store.get_summary(execution_id)
        if self._worker_name is None or summary is None or summary.state is not AgentState.CANCELLED:
            return False
        self._runtime.ends.tell(summary)
        try:
            announce_cancel(self._runtime.app, execution_id, self._worker_name)
        except Exception as error:  # noqa: BLE001 - a result backend raises what its driver raises
            log.warning("execution %s: its cancel will be announced once more: %s", execution_id, error)
            return False
        store.settle(execution_id)
        return True

    def try_watch(self, revoked: set[str]) -> bool:
        """`break_dead_leases` and `cancel_revoked`; True if a sweep should follow at once. Faults are logged."""
        broken = 0
        try:
            broken = self.break_dead_leases()
            self.cancel_revoked(revoked)
        except StoreError as error:
            self._watching.failed(error)
        else:
            self._watching.succeeded()
        return broken > 0

    def try_sweep(self) -> None:
        """`sweep`, with faults of the store logged: the next one comes soon."""
        try:
            self.sweep()
        except StoreError as error:
            self._sweeping.failed(error)
        else:
            self._sweeping.succeeded()
