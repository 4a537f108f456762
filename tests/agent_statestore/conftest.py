"""What of the conformance suite runs on every commit."""

from typing import Any

import pytest

# As in `make test`.
ON_EVERY_COMMIT = "not full"


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Collector, name: str) -> list[pytest.Item] | None:
    """`make test` does not even collect what it leaves out of the suite: thousands of tests, in each process."""
    if (
        collector.config.option.markexpr == ON_EVERY_COMMIT
        and name.startswith("test_")
        and is_left_out(collector, name)
    ):
        return []
    return None


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A class with `on_every_commit` has only the tests of those parts of the suite in `make test`."""
    for item in items:
        if is_left_out(item, getattr(item, "originalname", "")):
            item.add_marker(pytest.mark.full)


def is_left_out(node: Any, name: str) -> bool:
    """Whether the class has a test of this name in `make test-all` alone."""
    parts = getattr(getattr(node, "cls", None), "on_every_commit", None)
    return parts is not None and not any(name in vars(part) for part in parts)
