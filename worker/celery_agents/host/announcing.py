"""What the result backend knows of ends: in texts that it can keep, as a plain record, and nothing after a purge."""

import traceback
from typing import Any, Final

from celery import Celery
from celery.exceptions import TaskPredicate

from agent_statestore.plain_text import line_logger
from agent_statestore.records import ExecutionSummary
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.revival import revive
from celery_agents.errors import ExecutionFailed, ResultBackendUnavailable, StepFailed
from celery_agents.host.bell import broker_gate

log = line_logger(__name__)

# What a plain record keeps of an error's text.
_PLAIN_CHARACTERS: Final = 1000


def failure_of(summary: ExecutionSummary) -> Exception:
    """Return the error with which a failed execution ended."""
    if summary.error is None:
        return ExecutionFailed(summary.execution_id, "unknown", "no error was recorded")
    return revive(summary.error)


def tellable(execution_id: str, error: Exception) -> Exception:
    """Return the error as Celery may get it.

    Some of Celery's own exceptions do not mean a failure there. And some result backends refuse what an error or its
    traceback may hold: PostgreSQL a NUL, every one that encodes texts a lone surrogate.
    """
    info = describe(error)
    if isinstance(error, TaskPredicate) or not _is_clean("".join(traceback.format_exception(error))):
        return ExecutionFailed(execution_id, info.type, cleaned(info.message))
    if isinstance(error, StepFailed):
        return StepFailed(info.type, info.message)  # without the class that it is also of: that one is found nowhere
    return error


def cleaned(text: str) -> str:
    """Return the text with a replacement for every character that some result backend refuses."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _is_clean(text: str) -> bool:
    return cleaned(text) == text


def announce_cancel(app: Celery, execution_id: str, worker_name: str) -> None:
    """Tell the result backend and the monitors, in the name of a worker, that an execution is cancelled.

    This is for executions whose task no worker runs any more, and whose messages no worker takes.
    """
    with broker_gate:
        app.backend.mark_as_revoked(execution_id, reason="cancelled", store_result=True)
        _send(app, worker_name, "task-revoked", execution_id, terminated=False, signum=None, expired=False)


def announce_end(app: Celery, store: Store, summary: ExecutionSummary, worker_name: str) -> None:
    """Tell of an end that the workers of its queue, if there are any, could not tell.

    Where the result backend refuses the result itself (too large, say), it gets a plain record in its place, which says
    where the result is. Raise what the result backend raises if it refuses that as well.
    """
    execution_id = summary.execution_id
    with broker_gate:
        if summary.state is AgentState.FAILED:
            error = tellable(execution_id, failure_of(summary))
            try:
                app.backend.mark_as_failure(execution_id, error)
            except Exception as refusal:  # noqa: BLE001 - a result backend raises what its driver raises
                info = describe(error)
                _put_plainly(app, execution_id, info.type, cleaned(info.message)[:_PLAIN_CHARACTERS], refusal)
            _send(app, worker_name, "task-failed", execution_id, exception=f"{describe(error).type}", traceback="")
            return
        context = store.get_context(execution_id)
        if context is None:
            return
        try:
            app.backend.mark_as_done(execution_id, context.output)
        except Exception as refusal:  # noqa: BLE001 - as above
            said = "it is completed, but the result backend refused its output, which the store keeps"
            _put_plainly(app, execution_id, "ResultRefused", said, refusal)
        _send(app, worker_name, "task-succeeded", execution_id, result="", runtime=0.0)


def forget(app: Celery, execution_id: str) -> None:
    """Remove the result of an execution. Raise `ResultBackendUnavailable`.

    A result backend that cannot remove a result, or is none, is let be.
    """
    try:
        with broker_gate:
            app.backend.forget(execution_id)
    except NotImplementedError:
        pass
    except Exception as error:  # a result backend raises what its driver raises
        raise ResultBackendUnavailable(cleaned(f"{type(error).__name__}: {error}")) from error


def _put_plainly(app: Celery, execution_id: str, kind: str, message: str, refusal: Exception) -> None:
    log.error("execution %s: the result backend refuses its result, and gets a plain record: %s", execution_id, refusal)
    app.backend.mark_as_failure(execution_id, ExecutionFailed(execution_id, kind, message))


def _send(app: Celery, worker_name: str, kind: str, execution_id: str, **fields: Any) -> None:
    with app.events.default_dispatcher(hostname=worker_name) as dispatcher:
        dispatcher.send(kind, uuid=execution_id, retry=False, **fields)
