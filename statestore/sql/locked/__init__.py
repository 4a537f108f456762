"""What SQLite, MySQL and MariaDB share: primitives that are short transactions under a lock."""

from statestore.sql.locked.base import Dialect
from statestore.sql.locked.moving import LockedMoving
from statestore.sql.locked.rates import LockedRates
from statestore.sql.locked.ringing import LockedRinging

__all__ = ["Dialect", "LockedPrimitives"]


class LockedPrimitives(LockedMoving, LockedRinging, LockedRates):
    """All primitives; see `StorePrimitives` for each. A subclass says which `dialect` they speak."""
