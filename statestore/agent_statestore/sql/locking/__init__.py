"""The share of SQLite, MySQL and MariaDB: primitives that are short transactions under a lock."""

from agent_statestore.sql.locking.base import Dialect
from agent_statestore.sql.locking.moving import LockedMovingPrimitives
from agent_statestore.sql.locking.rates import LockedRates
from agent_statestore.sql.locking.removing import LockedRemoving
from agent_statestore.sql.locking.ringing import LockedRinging

__all__ = ["Dialect", "LockedPrimitives"]


class LockedPrimitives(LockedMovingPrimitives, LockedRemoving, LockedRinging, LockedRates):
    """All primitives; see `StorePrimitives` for each. A subclass says which `dialect` they speak."""
