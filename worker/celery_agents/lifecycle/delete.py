"""Deletion as whoever waits for the execution sees it: at once, and not when they next look by themselves.

The store deletes, and knows of no relatives. What it deletes by itself (`Store.delete_context`) nobody is told of.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from agent_statestore.errors import StoreError
from agent_statestore.records import ExecutionSummary

if TYPE_CHECKING:
    from celery_agents.host.runtime import Runtime

log = logging.getLogger(__name__)


def delete(runtime: "Runtime", execution_id: str, *, sender: str | None, reason: str | None) -> bool:
    """See `Execution.delete`."""
    store = runtime.store
    return _remove(runtime, execution_id, partial(store.delete_context, execution_id, by=sender, reason=reason))


def purge(runtime: "Runtime", execution_id: str) -> bool:
    """Removes an execution for good, deleted or not; False if nothing was there."""
    return _remove(runtime, execution_id, partial(runtime.store.purge, execution_id))


def _remove(runtime: "Runtime", execution_id: str, remove: Callable[[], bool]) -> bool:
    summary, family = runtime.store.get_summary(execution_id), runtime.executor.family
    if summary is not None and summary.state.is_over:
        # While its children can still be found. To be told of an end twice is harmless.
        _try(family.tell, summary)
    removed = remove()
    if removed and summary is not None and not summary.state.is_over:
        _try(family.tell_of_deletion, summary)
    return removed


def _try(tell: Callable[[ExecutionSummary], None], summary: ExecutionSummary) -> None:
    try:
        tell(summary)
    except StoreError as error:
        log.warning(
            "execution %s: who waits for it will notice later that it was deleted: %s", summary.execution_id, error
        )
