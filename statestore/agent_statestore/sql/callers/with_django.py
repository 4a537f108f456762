"""A caller's transaction in Django."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from agent_statestore.sql.callers.caller import Hook


def django_alias(connection: Any) -> str | None:
    """Return the alias of a connection of Django's; None if it is something else."""
    wrapper = import_module("django.db.backends.base.base").BaseDatabaseWrapper
    proxy = import_module("django.utils.connection").ConnectionProxy
    return str(connection.alias) if isinstance(connection, wrapper | proxy) else None


class DjangoCaller:
    """The transaction of a Django connection; see `Caller`. Outside of `atomic` each call is one by itself."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._connection = import_module("django.db").connections[alias]

    @property
    def dialect(self) -> str:
        return str(self._connection.vendor)

    @contextmanager
    def nested(self) -> Iterator[Any]:
        self._connection.validate_no_broken_transaction()
        with import_module("django.db.transaction").atomic(using=self._alias):
            self._connection.ensure_connection()
            yield self._connection.connection

    def after_commit(self, hook: Hook) -> None:
        self._connection.on_commit(hook)
