"""The sweeper, which finds executions whose time has come and rings their bells. It never executes anything.

Recovery is enqueue (after dbos `_recovery.py`): handing an execution back to the queue twice is harmless.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from agent_statestore.errors import StoreError, StoreUnavailable
from agent_statestore.plain_text import line_logger
from agent_statestore.records import Due
from agent_statestore.states import AgentState
from celery_agents.engine.patience import Outage
from celery_agents.host import bell, owner
from celery_agents.host.announcing import announce_cancel, announce_end
from celery_agents.host.recovery.deaths import Deaths
from celery_agents.host.runtime import Runtime
from celery_agents.lifecycle.cancel import request_cancel
from celery_agents.lifecycle.decider import Decider

log = line_logger(__name__)

# Whoever revoked the task: Celery does not say.
_REVOKE: Final = Decider(sender="celery", reason="the task was revoked", channel="celery")

# How often workers are asked to announce the end of an execution that nobody has announced. Workers discard every
# message of a revoked task, so without a limit such an execution would be rung for ever.
_ANNOUNCEMENTS: Final = 12

# After how many such rings the sweeper announces the end by itself: either no worker takes the queue's messages, or the
# result backend refuses the result.
_TRIES: Final = 3

# After how many bells that could not be rung, and none that could, a sweep stops trying. A fault that no connection
# shows (a full disk) would otherwise cost the time of each bell's tries.
_FRUITLESS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The result of one sweep, in numbers of executions. `mute` are those whose bells could not be rung.

    `has_more` says that more may be due, and that it is of use to sweep again at once.
    """

    rung: int = 0
    cancelled: int = 0
    mute: int = 0
    has_more: bool = field(default=False, compare=False)


class _Bells:
    """The bells that one sweep rings. One that cannot be rung keeps no other waiting.

    It is rung again later and later, as if it had been rung (`marks`): what became due with it, or later, is not held
    up by it. Bells of the same agent, queue and priority share its fate in this sweep.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._mute_kinds: set[tuple[str, str | None, int | None]] = set()
        self._rung: list[tuple[str, int]] = []
        self._mute: list[tuple[str, int]] = []
        self._is_broker_away = False

    @property
    def are_fruitless(self) -> bool:
        """Whether nothing can be rung, so that the rest waits for a later sweep."""
        return self._is_broker_away or (not self._rung and len(self._mute_kinds) >= _FRUITLESS)

    @property
    def marks(self) -> list[tuple[str, int]]:
        """The (execution, token) pairs that a later sweep should ring after a longer time only."""
        return [*self._rung, *self._mute]

    @property
    def counts(self) -> tuple[int, int]:
        """How many bells were rung, and how many could not be."""
        return len(self._rung), len(self._mute)

    def ring(self, due: Due) -> None:
        """Ring one bell."""
        kind = (due.agent_id, due.queue, due.priority)
        if kind in self._mute_kinds:
            self._mute.append((due.execution_id, due.token))
            return
        if self._try(due):
            self._rung.append((due.execution_id, due.token))
        elif not bell.broker_answers(self._runtime.app):
            self._is_broker_away = True
        elif self._try(due):  # the broker may have come back a moment ago
            self._rung.append((due.execution_id, due.token))
        else:
            self._mute_kinds.add(kind)
            self._mute.append((due.execution_id, due.token))

    def leave(self, due: Due) -> None:
        """Leave an execution to a later sweep, and the more often that happens, the later."""
        self._mute.append((due.execution_id, due.token))

    def _try(self, due: Due) -> bool:
        return bell.ring(
            self._runtime.app,
            self._runtime.settings,
            execution_id=due.execution_id,
            agent_id=due.agent_id,
            queue=due.queue,
            priority=due.priority,
        )


class Sweeper:
    """Looks for due executions, for leases of dead processes on this host, and for revoked tasks.

    `worker_name` is the worker that the sweeper runs in, if any. The sweeper announces in its name the ends that no
    bell can bring about. `deaths` says when a process of this host has died.
    """

    def __init__(self, runtime: Runtime, worker_name: str | None = None, deaths: Deaths | None = None) -> None:
        self._runtime = runtime
        self._worker_name = worker_name
        self._revoked: set[str] = set()
        self._revokes_seen: set[str] = set()
        # Executions that were revoked after they had ended otherwise. Celery would go on to discard their messages,
        # even when a dead letter is released. Whoever holds Celery's set of revoked ids removes these from it.
        self.void_revokes: set[str] = set()
        self._deaths = deaths or Deaths(runtime.store.url)
        self._watching = Outage(log, "the watch for dead processes")
        self._sweeping = Outage(log, "the sweep")

    def sweep(self) -> Swept:
        """Ring the bells of one batch of due executions."""
        store, settings, ends = self._runtime.store, self._runtime.settings, self._runtime.ends
        grace = timedelta(seconds=settings.publish_grace_seconds)
        bells = _Bells(self._runtime)
        cancelled = 0
        taken = store.take_due(settings.sweep_batch, grace)
        for due in taken:
            try:
                over = due.over
                if due.cancel_requested and not over and ends.finish_cancel(due.execution_id):
                    ends.try_to_tell_of(due.execution_id)
                    cancelled += 1
                    over = True
                # No bell brings about the end of a cancelled execution if no worker takes its queue's messages.
                if over and (self._tell_of_cancel(due.execution_id) or self._tell_of_end(due)):
                    continue
                if due.over and due.rings >= _ANNOUNCEMENTS:
                    self._settle_untold(due.execution_id)
                    continue
            except StoreUnavailable:
                raise  # the store is away: all of them wait for a later sweep
            except StoreError as error:
                # An execution that cannot be read here (a newer format, say) must not keep the others waiting.
                log.warning("execution %s could not be swept: %s", due.execution_id, error)
                bells.leave(due)
                continue
            if due.token and not due.over:
                log.info("execution %s of agent %s goes on: ringing its bell", due.execution_id, due.agent_id)
            bells.ring(due)
            if bells.are_fruitless:
                break  # the rest would wait as long for the broker; they are due again after the grace
        bell.mark_rung(store, settings, bells.marks)
        rung, mute = bells.counts
        has_more = len(taken) >= settings.sweep_batch and not bells.are_fruitless
        return Swept(rung=rung, cancelled=cancelled, mute=mute, has_more=has_more)

    def _settle_untold(self, execution_id: str) -> None:
        """Settle an end that no worker announces. The execution's relatives need no worker to be told."""
        self._runtime.ends.tell_of(execution_id)
        self._runtime.store.settle(execution_id)

    def break_dead_leases(self) -> int:
        """Give back the leases of processes on this host that can be seen to be dead; return how many."""
        store = self._runtime.store
        broken = 0
        for lease in store.find_leases(owner.host_prefix()):
            if owner.is_dead(lease.owner) and store.release(lease, crashed=True):
                dead = owner.worker_text(lease.owner)
                log.warning("execution %s: %s is dead, it is free again", lease.execution_id, dead)
                broken += 1
        return broken

    def cancel_revoked(self, revoked: set[str]) -> int:
        """Turn revokes of tasks (Flower's button, `app.control.revoke`) into cancels; return how many.

        A worker discards every later message with a revoked id. If nobody holds a lease, the end is therefore recorded
        and announced here.
        """
        self._revoked = revoked
        cancelled = 0
        unavailable: StoreUnavailable | None = None
        for task_id in revoked - self._revokes_seen:
            try:
                cancelled += isinstance(task_id, str) and self._cancel_revoked(task_id)
            except StoreUnavailable as error:
                unavailable = error  # perhaps only for this id: with two stores, or a cluster's nodes, others may do
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
        if not summary.cancel_requested and not request_cancel(store, task_id, by=_REVOKE):
            return False
        log.info("execution %s: its task was revoked, so it is cancelled", task_id)
        if ends.finish_cancel(task_id) and not self._tell_of_cancel(task_id):
            ends.try_to_tell_of(task_id)
        return True

    def _tell_of_cancel(self, execution_id: str) -> bool:
        """Tell everybody that a cancelled execution has ended; return False if another worker or a later sweep must.

        A bell would not do: each worker discards a message whose id is revoked, and before that the message waits for a
        free slot.
        """
        store = self._runtime.store
        summary = None if self._worker_name is None else store.get_summary(execution_id)
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

    def _tell_of_end(self, due: Due) -> bool:
        """Tell of an end that several bells could not bring about; return False if it is to be tried again."""
        if self._worker_name is None or not due.over or due.rings < _TRIES:
            return False
        store = self._runtime.store
        summary = store.get_summary(due.execution_id)
        if summary is None or not summary.state.is_over:
            return False
        self._runtime.ends.tell(summary)
        try:
            announce_end(self._runtime.app, store, summary, self._worker_name)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a result backend raises what its driver raises
            log.warning("execution %s: its end will be announced once more: %s", due.execution_id, error)
            return False
        store.settle(due.execution_id)
        return True

    def try_watch(self, revoked: set[str]) -> bool:
        """Call `break_dead_leases` if a process has died, and `cancel_revoked`. Log faults of the store.

        Return True if a sweep should follow at once.
        """
        broken = 0
        try:
            if self._deaths.are_to_be_asked_for():
                broken = self.break_dead_leases()
                self._deaths.answered()
            self.cancel_revoked(revoked)
        except StoreError as error:
            self._watching.failed(error)
        else:
            self._watching.succeeded()
        return broken > 0

    def try_sweep(self) -> bool:
        """Call `sweep`, and return whether more may be due. Log faults of the store: the next sweep comes soon."""
        try:
            swept = self.sweep()
        except StoreError as error:
            self._sweeping.failed(error)
            return False
        self._sweeping.succeeded()
        return swept.has_more
