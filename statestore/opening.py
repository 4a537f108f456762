"""`open_store(url)`: from a URL to a store, through the entry-point group `statestore.backends`."""

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from urllib.parse import urlsplit, urlunsplit

from statestore.clock import Clock
from statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from statestore.errors import MissingDriver, UnknownScheme
from statestore.operations import Store

GROUP = "statestore.backends"

# Which package a backend module needs, and in which extra it comes.
_DRIVERS = {"redis": ("redis", "redis"), "psycopg": ("psycopg", "postgresql")}


# Drivers also take secrets as query parameters: password, sslpassword, ssl_keyfile_password, ...
_QUERY_SECRET = re.compile(r"([?&][^=&]*(?:password|secret|token)[^=&]*=)[^&#]*", re.IGNORECASE)


def open_store(
    url: str = "memory://", *, max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES, clock: Clock | None = None
) -> Store:
    """Opens the store at `url`.

    `memory://`, `sqlite:///file.db`, `postgresql+psycopg://user:password@host/db`, `redis://host:6379/0`, `rediss://`,
    `valkey://`; other packages add schemes through the entry-point group `statestore.backends`, whose functions take
    (url, *, max_value_bytes, clock) and return a `Store`. The scheme is the part before `://` and before any `+`. No
    connection is made before the first use; `Store.check` makes one.

    Raises `UnknownScheme`, and `MissingDriver`, which names the extra to install.
    """
    scheme = url.partition("://")[0] if "://" in url else url
    backend = scheme.partition("+")[0]
    available = _backends()
    if backend not in available or "://" not in url:
        raise UnknownScheme(scheme, sorted(available))
    try:
        opener: Callable[..., Store] = available[backend].load()
        return opener(url, max_value_bytes=max_value_bytes, clock=clock)
    except ModuleNotFoundError as error:
        driver = _DRIVERS.get((error.name or "").partition(".")[0])
        if driver is None:
            raise
        raise MissingDriver(scheme, *driver) from error


def masked(url: str) -> str:
    """The URL without its password, for messages."""
    url = _QUERY_SECRET.sub(r"\1***", url)
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user_and_host = parts.netloc.replace(f":{parts.password}@", ":***@", 1)
    return urlunsplit(parts._replace(netloc=user_and_host))


def _backends() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
