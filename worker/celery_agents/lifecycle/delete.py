"""Deletion that tells those who wait for the execution: they notice at once, and not when they next look.

The store deletes, and knows nothing of relatives nor of Celery's result backend, which keeps the output as well. Nobody
is told of what it deletes by itself (`Store.delete_context`).
"""

from collections.abc import Callable
from functools import partial

from agent_statestore.errors import StoreError
from agent_statestore.plain_text import line_logger
from agent_statestore.records import ExecutionSummary
from celery_agents.lifecycle.decider import named
from celery_agents.lifecycle.services import Services

log = line_logger(__name__)


def delete(services: Services, execution_id: str, *, sender: str | None, reason: str | None) -> bool:
    """Delete an execution; see `Execution.delete`."""
    store = services.store
    return _remove(services, execution_id, partial(store.delete_context, execution_id, by=named(sender), reason=reason))


def purge(services: Services, execution_id: str) -> bool:
    """Remove an execution for good, whether it was deleted or not; return False if nothing was there."""
    return _remove(services, execution_id, partial(services.store.purge, execution_id))


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
