"""The conformance suite: the duties of every store backend, as pytest classes. It needs pytest.

A backend's test module overrides fixtures and inherits the tests:

    class TestMyStore(SharedStoreConformance):
        @pytest.fixture
        def reopen(self, tmp_path):
            return functools.partial(open_my_store, f"mine://{tmp_path}")

By the classes that it inherits, the backend declares what it can do; nothing in here is skipped:

* `StoreConformance`: everything that holds for any store. Override `store`.
* `SharedStoreConformance`: the same, and races between processes. For a store with `is_shared`. Override `reopen`.
* `KeepsDeletedConformance`: besides one of these, for a store with `keeps_deleted`.
* `NeighbourConformance`: besides one of these, for a backend that keeps several stores on one server, under different
  prefixes. Override `neighbour`.
* `DamageConformance`: besides one of these, for a backend whose test says how its data can be damaged. Override
  `damage`.

Executions are moved from the store to another one and back: to `other_store`, which is a `MemoryStore` unless the test
class overrides it.
"""

import pkgutil

import pytest

# Before any of them is imported, so that a failing assert shows its values, in other people's test runs too.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from agent_statestore.testing.conformance import (  # noqa: E402
    DamageConformance,
    KeepsDeletedConformance,
    NeighbourConformance,
    SharedStoreConformance,
    StoreConformance,
)

__all__ = [
    "DamageConformance",
    "KeepsDeletedConformance",
    "NeighbourConformance",
    "SharedStoreConformance",
    "StoreConformance",
]
