"""When a copy may replace the execution that is there, and when the execution that is there may be dropped."""

from agent_statestore.codec.exported import ExportedExecution, place_of
from agent_statestore.rules.leases import Header, is_leased


def may_restore(present: Header, audited: int, exported: ExportedExecution, now_us: int) -> bool:
    """Return whether the copy may replace the execution, whose audit trail has `audited` entries."""
    return place_of(present, audited) < exported.place and not is_leased(present, now_us)


def may_drop(present: Header, audited: int, place: tuple[int, int, int]) -> bool:
    """Return whether the execution may be dropped, now that another store has committed a copy of that place."""
    return present["ended_us"] is not None and present["due_us"] is None and place_of(present, audited) == place
