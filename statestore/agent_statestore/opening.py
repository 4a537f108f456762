"""`open_store(url)`: make a store from a URL, through the entry-point group `agent_statestore.backends`."""

import functools
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

from agent_statestore.clock import Clock
from agent_statestore.drivers import AbsentDriver
from agent_statestore.drivers.masking import masked
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from agent_statestore.errors import MissingDriver, UnknownScheme
from agent_statestore.store import Store

GROUP = "agent_statestore.backends"


def open_store(
    url: str = "memory://", *, max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES, clock: Clock | None = None
) -> Store:
    """Return the store at `url`.

    `memory://`, `sqlite:///file.db`, `postgresql+psycopg://user:password@host/db`, `redis://host:6379/0`, `rediss://`,
    `valkey://`, `redis+sentinel://host1:26379,host2:26379/0?service=mymaster`, `redis+cluster://host1:6379,host2:6379`;
    other packages add schemes through the entry-point group `agent_statestore.backends`, whose functions take (url, *,
    max_value_bytes, clock) and return a `Store`. A backend declares its drivers with `agent_statestore.drivers.driver`.
    The scheme is the part before `://` and before any `+`. No connection is made before the first use; `Store.check`
    makes one.

    Raise `UnknownScheme`, and `MissingDriver`, which names the extra to install.
    """
    scheme = url.partition("://")[0] if "://" in url else url
    backend = scheme.partition("+")[0]
    available = _backends()
    if backend not in available:  # it may have been installed since
        _backends.cache_clear()
        available = _backends()
    if backend not in available or "://" not in url:
        # Without `//` all of the URL may stand here, with its password.
        raise UnknownScheme(masked(scheme), sorted(available))
    try:
        opener: Callable[..., Store] = available[backend].load()
        return opener(url, max_value_bytes=max_value_bytes, clock=clock)
    except AbsentDriver as absent:
        raise MissingDriver(scheme, absent.package, absent.extra) from absent


@functools.cache
def _backends() -> dict[str, EntryPoint]:
    # Looking reads a file of each installed package, which takes longer than all else that opens a store.
    return {entry.name: entry for entry in entry_points(group=GROUP)}
