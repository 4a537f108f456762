"""Deletion that tells those who wait for the execution: they notice at once, and not when they next look.

The store deletes, and knows nothing of relatives nor of Celery's result backend, which keeps the output as well. Nobody
is told of what it deletes by itself (`Store.delete_context`).
"""

from collections.abc import Callable
from functools import partial

from agent_statestore.errors import StoreError
from agent_statestore.plain_text import line_logger
from agent_statestore.records import ExecutionSummary
from celery_agents.lifecycle.decider import Decider
from celery_agents.lifecycle.services import Services

log = line_logger(__name__)


def delete(services: Services, execution_id: str, *, by: Decider) -> bool:
    """Delete an execution; see `Execution.delete`."""
    store = services.store
    delete_context = partial(store.delete_context, execution_id, by=by.sender, reason=by.reason, via=by.via)
    deleted = _remove(services, execution_id, delete_context)
    if deleted and not store.keeps_deleted:
        say_removed(services, f"execution {execution_id}", by)
    return deleted


def purge(services: Services, execution_id: str, *, by: Decider) -> bool:
    """Remove an execution for good, whether it was deleted or not; return False if nothing was there."""
    purged = _remove(services, execution_id, partial(services.store.purge, execution_id))
    if purged:
        say_removed(services, f"execution {execution_id}", by)
    return purged


def say_removed(services: Services, what: str, by: Decider) -> None:
    """Tell the log who removed something for good. The trail is gone with it, so nothing else can tell."""
    log.warning("%s was removed from %s for good, by %s", what, services.store.url, by)


def _remove(services: Services, execution_id: str, remove: Callable[[], bool]) -> bool:
    summary, ends = services.store.get_summary(execution_id), services.ends
    if summary is not None and summary.state.is_over:
        # Tell while its children can still be found. Telling of an end twice is harmless.
        _try(ends.tell, summary)
    if summary is not None:
        # First the result: if its server is away, nothing is removed, and the call can be repeated.
        services.forget_result(execution_id)
    removed = remove()
    if removed and summary is None:
        # It was deleted before. An id that the store does not know may be that of another task of the project's.
        services.forget_result(execution_id)
    if removed and summary is not None and not summary.state.is_over:
        _try(ends.tell_of_deletion, summary)
    return removed


def _try(tell: Callable[[ExecutionSummary], None], summary: ExecutionSummary) -> None:
    try:
        tell(summary)
    except StoreError as error:
        log.warning(
            "execution %s: who waits for it will notice later that it was deleted: %s", summary.execution_id, error
        )
