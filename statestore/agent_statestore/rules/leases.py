"""Who may write and who may claim, and how claims, releases and rings change the header."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, TypeAlias

from agent_statestore.clock import duration_us, from_us
from agent_statestore.envelope import require_readable
from agent_statestore.records import Lease
from agent_statestore.states import AgentState

Header: TypeAlias = Mapping[str, Any]
Changes: TypeAlias = dict[str, Any]

# 2**32 times any wait is longer than any maximum.
_MAX_DOUBLINGS: Final = 32


def is_leased(header: Header, now_us: int) -> bool:
    """Return whether a lease lives."""
    return bool(header["lease_until_us"] > now_us)


def is_held_by(header: Header, lease: Lease, now_us: int) -> bool:
    """Return whether exactly this lease lives."""
    return is_leased(header, now_us) and bool(header["token"] == lease.token)


def may_claim(execution_id: str, header: Header, now_us: int) -> bool:
    """Return whether the execution may be claimed now. Raise `FormatTooNew`."""
    require_readable(f"execution {execution_id}", header["format"])
    return not (
        AgentState(header["state"]).is_over or is_leased(header, now_us) or bool(header["not_before_us"] > now_us)
    )


def claim_changes(header: Header, owner: str, ttl: timedelta, now_us: int) -> Changes:
    """Return what a claim changes, besides the state."""
    until_us = now_us + duration_us(ttl)
    return {
        "token": header["token"] + 1,
        "crashes": header["crashes"] + 1,
        "rings": 0,
        "owner": owner,
        "lease_until_us": until_us,
        "not_before_us": 0,
        "due_us": until_us,
        "updated_us": now_us,
    }


def lease_of(header: Header, ttl: timedelta) -> Lease:
    """Return the lease on the execution."""
    return Lease(
        execution_id=header["execution_id"],
        token=header["token"],
        owner=header["owner"],
        ttl=ttl,
        expires_at=from_us(header["lease_until_us"]),
    )


def release_changes(header: Header, *, crashed: bool, now_us: int) -> Changes:
    """Return what giving back a lease changes, or breaking it (`crashed`)."""
    changes: Changes = {"owner": None, "lease_until_us": 0, "due_us": now_us, "rings": 0, "updated_us": now_us}
    if not crashed:
        changes["crashes"] = max(header["crashes"] - 1, 0)
    return changes


def next_ring_us(header: Header, token: int, first: timedelta, maximum: timedelta, now_us: int) -> int | None:
    """Return when the bell is rung next after it was rung now; None if the ring must not be recorded."""
    if (
        header["token"] != token
        or is_leased(header, now_us)
        or header["not_before_us"] > now_us
        or header["due_us"] is None
    ):
        return None
    rings: int = min(header["rings"], _MAX_DOUBLINGS)
    return now_us + min(duration_us(first) << rings, duration_us(maximum))
