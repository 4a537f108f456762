"""The Celery task that a bell calls. It runs one claim of one execution and translates the outcome for Celery."""

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from celery import Celery, Task
from celery.exceptions import Ignore, SoftTimeLimitExceeded
from celery.states import READY_STATES

from agent_statestore.errors import StoreError, StoreUnavailable
from agent_statestore.plain_text import line_logger
from agent_statestore.records import ExecutionSummary
from agent_statestore.states import AgentState
from celery_agents.engine.outcome import Ending, Outcome
from celery_agents.engine.patience import Outage, Patience
from celery_agents.host import bell, task_log
from celery_agents.host.announcing import failure_of, tellable
from celery_agents.host.cron import EnqueueTask
from celery_agents.host.owner import this_process
from celery_agents.host.recovery.presence import presence
from celery_agents.host.runtime import Runtime, runtime_of

log = line_logger(__name__)

_FIRST_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 1.0
# Under this name the request of a task knows that the end of its execution was written as settled.
_IS_SETTLED: Final = "agents_is_settled"
_claiming = Outage(log, "claiming executions")

R = TypeVar("R")


class ExecuteTask(Task):  # type: ignore[misc] # Celery carries no types
    """Executes a claim. It acknowledges early: nothing stays unacknowledged while an agent works."""

    name = bell.TASK_NAME
    Request = "celery_agents.host.lost_process:ExecutionRequest"
    acks_late = False
    reject_on_worker_lost = False
    max_retries = 0
    typing = True

    def run(self, execution_id: str) -> Any:
        runtime = runtime_of(self.app)
        if runtime.drain.is_set():
            # The message left the queue just before the shutdown: put it back for another worker.
            self._leaving_to_later(execution_id, lambda: self._ring_again(runtime, execution_id))
            raise Ignore
        ended = self._leaving_to_later(execution_id, lambda: self._work(runtime, execution_id))
        if isinstance(ended, Outcome):
            return self._translate(runtime, execution_id, ended)
        if ended is not None and self._is_untold(runtime, ended):
            return self._tell(runtime, ended)
        raise Ignore

    def _work(self, runtime: Runtime, execution_id: str) -> Outcome | ExecutionSummary | None:
        """Work on one claim. Return the summary if there is no claim: a stray bell must not cost a whole context."""
        # While the store is away, a slot can do nothing better than wait with its bell. An outage would otherwise use
        # up the whole queue, and its executions would wait to be rung again.
        patience = Patience(
            _claiming,
            until=time.monotonic() + runtime.settings.lease_seconds,
            is_over=runtime.drain.is_set,
            first_seconds=_FIRST_BACKOFF_SECONDS,
            longest_seconds=_MAX_BACKOFF_SECONDS,
        )
        presence.note()  # before the claim: whoever sees this process dead then looks for its leases
        try:
            outcome = patience.ask(lambda: runtime.executor.execute(execution_id, this_process(self.request.hostname)))
        except SoftTimeLimitExceeded:
            log.warning("execution %s: the soft time limit ended this attempt, the next goes on", execution_id)
            raise Ignore from None
        return runtime.store.get_summary(execution_id) if outcome is None else outcome

    @staticmethod
    def _leaving_to_later(execution_id: str, work: Callable[[], R]) -> R:
        """Do something with the store. Its fault does not fail the execution, which a sweeper brings back."""
        try:
            return work()
        except StoreError as error:
            # This includes a format that only a newer worker reads.
            log.error("execution %s is left to later: %s", execution_id, error)
            raise Ignore from error

    def after_return(
        self, status: str, retval: Any, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any], einfo: Any
    ) -> None:
        """Settle the end, now that the result backend has it: nobody needs to be told again."""
        del retval, kwargs, einfo
        if status in ("SUCCESS", "FAILURE") and args and not getattr(self.request, _IS_SETTLED, False):
            self._settle(runtime_of(self.app), task_id)

    def _translate(self, runtime: Runtime, execution_id: str, outcome: Outcome) -> Any:
        """Return or raise what makes Celery tell the same story as the store."""
        if outcome.has_relatives or (outcome.state.is_over and runtime.settings.webhooks):
            # Tell them before the end is settled: until then it is told again and again.
            self._leaving_to_later(execution_id, lambda: runtime.ends.tell_of(execution_id))
        self.request.update({_IS_SETTLED: outcome.is_settled})
        if outcome.ending is Ending.COMPLETED:
            return outcome.output
        if outcome.ending is Ending.FAILED:
            assert outcome.error is not None
            raise tellable(execution_id, outcome.error)
        if outcome.ending is Ending.CANCELLED:
            self._tell_of_cancel(runtime, execution_id)
        elif outcome.ending is Ending.PAUSED:
            if runtime.keeps_results():
                self._show_pause(outcome.state, [wait.key for wait in outcome.waits])
        elif outcome.ending is Ending.UNKNOWN:
            rung = [(execution_id, outcome.token)]
            self._leaving_to_later(execution_id, lambda: bell.mark_rung(runtime.store, runtime.settings, rung))
        if outcome.ring:
            self._leaving_to_later(execution_id, lambda: self._ring_again(runtime, execution_id))
        raise Ignore

    def _show_pause(self, state: AgentState, keys: list[str]) -> None:
        """Show the pause to those who look at the task's state. The store knows of it in any case."""
        try:
            self.update_state(state=state.name, meta={"waiting_for": keys[0] if len(keys) == 1 else keys})
        except Exception as error:  # noqa: BLE001 - a result backend raises what its driver raises
            log.warning("execution %s: its pause is not in the result backend: %s", self.request.id, error)

    def _ring_again(self, runtime: Runtime, execution_id: str) -> None:
        summary = runtime.store.get_summary(execution_id)
        if summary is not None:
            runtime.ring(summary)

    def _is_untold(self, runtime: Runtime, summary: ExecutionSummary) -> bool:
        """Return whether an execution is over and Celery's result backend does not know it.

        The process that recorded the end may have died before it could tell.
        """
        if not summary.state.is_over:
            return False
        if summary.due_at is not None:
            return True
        return runtime.keeps_results() and self.backend.get_state(summary.execution_id) not in READY_STATES

    def _tell(self, runtime: Runtime, summary: ExecutionSummary) -> Any:
        execution_id = summary.execution_id
        self._leaving_to_later(execution_id, lambda: runtime.ends.tell(summary))
        if summary.state is AgentState.CANCELLED:
            self._tell_of_cancel(runtime, execution_id)
            raise Ignore
        if summary.state is AgentState.FAILED:
            raise tellable(execution_id, failure_of(summary))
        context = self._leaving_to_later(execution_id, lambda: runtime.store.get_context(execution_id))
        if context is None:
            raise Ignore  # deleted meanwhile
        return context.output

    def _tell_of_cancel(self, runtime: Runtime, execution_id: str) -> None:
        try:
            self.backend.mark_as_revoked(
                execution_id, reason="cancelled", request=self.request, store_result=runtime.keeps_results()
            )
            self.send_event("task-revoked", retry=False, terminated=False, signum=None, expired=False)
        except Exception as error:  # noqa: BLE001 - as above; the sweeper rings once more
            log.warning("execution %s: its cancel will be announced once more: %s", execution_id, error)
        else:
            if not getattr(self.request, _IS_SETTLED, False):
                self._settle(runtime, execution_id)

    def _settle(self, runtime: Runtime, execution_id: str) -> None:
        try:
            runtime.store.settle(execution_id)
        except StoreUnavailable as error:
            log.warning("execution %s: its end will be announced once more: %s", execution_id, error)


def register(app: Celery) -> None:
    """Register the tasks on an app."""
    task_log.keep_plain()
    app.register_task(ExecuteTask())
    app.register_task(EnqueueTask())
