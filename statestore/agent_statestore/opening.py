"""`open_store(url)`: from a URL to a store, through the entry-point group `agent_statestore.backends`."""

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from urllib.parse import quote, unquote

from agent_statestore.clock import Clock
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from agent_statestore.errors import MissingDriver, UnknownScheme
from agent_statestore.store import Store

GROUP = "agent_statestore.backends"

# Which package a backend module needs, and in which extra it comes.
_DRIVERS = {"redis": ("redis", "redis"), "psycopg": ("psycopg", "postgresql"), "pymysql": ("pymysql", "mysql")}


# Drivers also take secrets as query parameters: password, sslpassword, ssl_keyfile_password, ...
_QUERY_SECRET = re.compile(r"([?&][^=&]*(?:passw(?:or)?d|secret|token)[^=&]*=)[^&#]*", re.IGNORECASE)

# `scheme://user:password@`, up to the last @ before the path.
_PASSWORD = re.compile(r"([^:/?#]+://[^:/?#@]*:)[^/?#]*@")
# A password in which /, ? or # was not escaped. What follows the colon is not a port.
_LOOSE_PASSWORD = re.compile(r"([^:/?#]+://[^:/?#@]*:)(?!\d*(?:[/?#,]|$)).*@", re.DOTALL)
# A percent-encoded URL as the value of an option.
_INNER_URL = re.compile(r"(?<==)[^&=#]*%3A(?:%2F|/){2}[^&#]*", re.IGNORECASE)


def open_store(
    url: str = "memory://", *, max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES, clock: Clock | None = None
) -> Store:
    """Opens the store at `url`.

    `memory://`, `sqlite:///file.db`, `postgresql+psycopg://user:password@host/db`, `redis://host:6379/0`, `rediss://`,
    `valkey://`, `redis+sentinel://host1:26379,host2:26379/0?service=mymaster`, `redis+cluster://host1:6379,host2:6379`;
    other packages add schemes through the entry-point group `agent_statestore.backends`, whose functions take (url, *,
    max_value_bytes, clock) and return a `Store`. The scheme is the part before `://` and before any `+`. No connection
    is made before the first use; `Store.check` makes one.

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
    """The URL without its password, for messages; also of one that is malformed, or names several hosts."""
    url = _INNER_URL.sub(lambda inner: quote(masked(unquote(inner[0])), safe="*"), url)
    url = _QUERY_SECRET.sub(r"\1***", url)
    return (
        _PASSWORD.sub(r"\1***@", url, count=1) if _PASSWORD.match(url) else _LOOSE_PASSWORD.sub(r"\1***@", url, count=1)
    )


def _backends() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
