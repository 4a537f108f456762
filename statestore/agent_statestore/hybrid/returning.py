"""Writes to an execution that the cold store alone has. A failed one comes back when it is released."""

from collections.abc import Callable
from typing import Final, TypeVar

from agent_statestore.errors import ExecutionNotFound, StoreUnavailable
from agent_statestore.states import AgentState
from agent_statestore.store import Store

T = TypeVar("T")

# How often an execution may be archived again between its return and the write.
_TRIES: Final = 10


def write_archived(
    hot: Store, cold: Store, execution_id: str, write: Callable[[Store], T], *, releases: bool = False
) -> T:
    """Do what `write` would do if the hot store, which does not have the execution, had it.

    The cold store's copy is over and refuses it, unless the write `releases` a failed execution: that one is brought
    back and released in the hot store. Raise `ExecutionNotFound` if neither store has it.
    """
    for _ in range(_TRIES):
        archived = cold.get_summary(execution_id)
        if archived is None:
            raise ExecutionNotFound(execution_id)
        if archived.state.is_over and not (releases and archived.state is AgentState.FAILED):
            return write(cold)
        _bring_back(hot, cold, execution_id)
        try:
            return write(hot)
        except ExecutionNotFound:
            continue  # it was archived again, or is deleted
    raise StoreUnavailable(hot.url, f"execution {execution_id} disappears each time it is brought back")


def _bring_back(hot: Store, cold: Store, execution_id: str) -> None:
    """Restore an archived execution into the hot store. The archived copy stays, so that no reader misses it.

    Whoever removes an execution ends with the cold store's copy and then the hot one's. So one of the two sides sees
    what the other did.
    """
    copy = cold.export(execution_id)
    if copy is not None and hot.restore(copy) and cold.get_summary(execution_id) is None:
        hot.purge(execution_id)
