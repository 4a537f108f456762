"""What a worker's parent does about a process that died while it executed: nothing.

Celery would record a FAILURE (`WorkerLostError`, `TimeLimitExceeded`) for the task. The execution has not failed: its
lease is broken or runs out, and another process goes on with it under the same task id. An `AsyncResult` that had read
the FAILURE would keep it for ever.
"""

from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import WorkerTerminate
from celery.platforms import EX_FAILURE
from celery.worker.request import Request
from celery.worker.state import task_ready

from agent_statestore.plain_text import line_logger
from celery_agents.host.bell import broker_gate
from celery_agents.host.runtime import runtime_of

log = line_logger(__name__)

# The pool reports a hard time limit through `on_timeout`, and through `on_failure` as well, in either order.
_PROCESS_LOST = (WorkerLostError, TimeLimitExceeded, SystemExit, KeyboardInterrupt)


class ExecutionRequest(Request):  # type: ignore[misc] # Celery carries no types
    """A request whose task lives on in the store when its process does not.

    `is_killed` says that this worker has killed the process on purpose, and has said why.
    """

    is_killed = False

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, _PROCESS_LOST):
            self._leave_to_recovery(str(error) or type(error).__name__)
            return None
        with broker_gate:
            return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        del emit_retry
        # Celery tells of a cold shutdown only after this.
        runtime_of(self.task.app).drain.set()
        if pool.__class__.__module__ == "celery.concurrency.solo":
            # A cold shutdown. Celery's own attempt to end the job raises NotImplementedError here, inside the step that
            # this very thread is working on, and the step would record it as its failure. Of the exceptions that end a
            # process, only this one passes through the pool. The worker stumbles over any other, with one more
            # traceback.
            raise WorkerTerminate(EX_FAILURE)
        if pool.__class__.__module__ == "celery.concurrency.thread":
            return  # a thread cannot be ended
        # Not as one of Celery's retries: it would write that over what the next attempt tells in another worker.
        super().cancel(pool, signal, emit_retry=False)

    def _announce_revoked(self, *args: Any, **options: Any) -> None:
        # The parent itself writes to the result backend here, while a thread of its pool replaces the child that has
        # just died of the revoke. A child born in the middle of a transaction on SQLite would never get at the results.
        with broker_gate:
            super()._announce_revoked(*args, **options)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        if not soft:
            self._leave_to_recovery(f"the hard time limit of {timeout} s")
            return None
        return super().on_timeout(soft, timeout)

    def _leave_to_recovery(self, reason: str) -> None:
        task_ready(self)
        if not self.is_killed:
            log.warning("execution %s: its process is gone (%s); another one goes on", self.id, reason)
