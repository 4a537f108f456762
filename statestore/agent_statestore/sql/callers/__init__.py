"""Connections of callers: a transaction that is not the store's, in which the store writes, or whose commit it awaits.

A caller gives one of these:

* Django: `django.db.connection`, or `connections["alias"]`;
* SQLAlchemy: a `Connection`, a `Session` or a `scoped_session`; of an `AsyncSession` or an `AsyncConnection` the sync
  one that `run_sync` gives.
"""

import sys
from typing import Any

from agent_statestore.sql.callers.caller import Caller, Hook, UnfitConnection

__all__ = ["Caller", "Hook", "UnfitConnection", "caller_of"]


def caller_of(connection: Any) -> Caller:
    """Return the transaction behind a caller's connection. Raise `UnfitConnection` for anything else."""
    if "django.db" in sys.modules:
        from agent_statestore.sql.callers.with_django import DjangoCaller, django_alias

        alias = django_alias(connection)
        if alias is not None:
            return DjangoCaller(alias)
    from agent_statestore.sql.callers.with_sqlalchemy import SQLAlchemyCaller, sync_connection  # its ORM takes long

    return SQLAlchemyCaller(sync_connection(connection))
