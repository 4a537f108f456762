"""The Celery task that a bell calls: it runs one claim of one execution and translates the outcome for Celery."""

import logging
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore

from statestore.errors import StoreError, StoreUnavailable
from statestore.records import AgentContext
from statestore.states import AgentState
from worker import bell
from worker.engine.failures import revive
from worker.engine.outcome import Ending, Outcome
from worker.errors import ExecutionFailed
from worker.owner import this_process
from worker.runtime import Runtime, runtime_of

log = logging.getLogger(__name__)


class ExecuteTask(Task):  # type: ignore[misc] # Celery carries no types
    """Executes a claim. Acknowledged early: nothing stays unacknowledged while an agent works."""

    name = bell.TASK_NAME
    Request = "worker.requests:ExecutionRequest"
    acks_late = False
    reject_on_worker_lost = False
    ignore_result = False
    max_retries = 0
    typing = True

    def run(self, execution_id: str) -> Any:
        runtime = runtime_of(self.app)
        if runtime.drain.is_set():
            # The message came out of the queue just before the shutdown: put it back for another worker.
            self._ring_again(runtime, execution_id, token=None)
            raise Ignore
        try:
            outcome = runtime.executor.execute(execution_id, this_process())
            if outcome is None:
                return self._announce_end(runtime, execution_id)
        except StoreError as error:
            # Also a format that only a newer worker reads: the execution is not to be failed here.
            log.error("execution %s is left to later: %s", execution_id, error)
            raise Ignore from error
        return self._translate(runtime, execution_id, outcome)

    def after_return(
        self, status: str, retval: Any, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any], einfo: Any
    ) -> None:
        """The result backend has the end: nobody needs to be told again."""
        del retval, kwargs, einfo
        if status in ("SUCCESS", "FAILURE") and args:
            self._settle(runtime_of(self.app), task_id)

    def _translate(self, runtime: Runtime, execution_id: str, outcome: Outcome) -> Any:
        """Returns or raises what makes Celery tell the same story as the store."""
        if outcome.ending is Ending.COMPLETED:
            return outcome.output
        if outcome.ending is Ending.FAILED:
            assert outcome.error is not None
            raise outcome.error
        if outcome.ending is Ending.CANCELLED:
            self._announce_cancel(runtime, execution_id)
        elif outcome.ending is Ending.PAUSED:
            assert outcome.waiting is not None
            self.update_state(state=outcome.state.name, meta={"waiting_for": outcome.waiting.key})
        elif outcome.ending is Ending.UNKNOWN:
            bell.mark_rung(runtime.store, runtime.settings, [(execution_id, outcome.token)])
        if outcome.ring:
            self._ring_again(runtime, execution_id, outcome.token)
        raise Ignore

    def _ring_again(self, runtime: Runtime, execution_id: str, token: int | None) -> None:
        summary = runtime.store.get_summary(execution_id)
        if summary is None:
            return
        rung = bell.ring(
            runtime.app,
            runtime.settings,
            execution_id=execution_id,
            agent_id=summary.agent_id,
            queue=summary.queue,
            priority=summary.priority,
        )
        if rung:
            number = summary.attempt if token is None else token
            bell.mark_rung(runtime.store, runtime.settings, [(execution_id, number)])

    def _announce_end(self, runtime: Runtime, execution_id: str) -> Any:
        """The execution could not be claimed. If it is over and nobody was told, tell them."""
        context = runtime.store.get_context(execution_id)
        if context is None or not context.state.is_over or context.due_at is None:
            raise Ignore
        if context.state is AgentState.CANCELLED:
            self._announce_cancel(runtime, execution_id)
            raise Ignore
        if context.state is AgentState.FAILED:
            raise _failure_of(context)
        return context.output

    def _announce_cancel(self, runtime: Runtime, execution_id: str) -> None:
        self.backend.mark_as_revoked(execution_id, reason="cancelled", request=self.request, store_result=True)
        self.send_event("task-revoked", retry=False, terminated=False, signum=None, expired=False)
        self._settle(runtime, execution_id)

    def _settle(self, runtime: Runtime, execution_id: str) -> None:
        try:
            runtime.store.settle(execution_id)
        except StoreUnavailable as error:
            log.warning("execution %s: its end will be announced once more: %s", execution_id, error)


def _failure_of(context: AgentContext) -> Exception:
    if context.error is None:
        return ExecutionFailed(context.execution_id, "unknown", "no error was recorded")
    return revive(context.error)


def register(app: Celery) -> None:
    """Registers the task on an app."""
    app.register_task(ExecuteTask())
