"""What a store needs of a caller's transaction."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

# Called once the transaction is committed, and never if it is rolled back.
Hook: TypeAlias = Callable[[], object]


class UnfitConnection(Exception):
    """The caller's connection cannot be used; the text says why."""


class Caller(Protocol):
    """A transaction that the caller has begun, and will end."""

    @property
    def dialect(self) -> str:
        """Which SQL it speaks: "sqlite", "postgresql" or "mysql" (also for MariaDB), or another name."""
        ...

    def nested(self) -> AbstractContextManager[Any]:
        """Return a block that gives the driver's connection; an error in the block undoes what was written in it.

        Raise `UnfitConnection` if there is no transaction, or if it is one of a driver whose statements look different.
        """
        ...

    def after_commit(self, hook: Hook) -> None:
        """Call the hook after the transaction is committed."""
        ...
