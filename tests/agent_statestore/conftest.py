"""What of the conformance suite runs on every commit."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A class with `on_every_commit` has only the tests of those parts of the suite in `make test`."""
    for item in items:
        parts = getattr(getattr(item, "cls", None), "on_every_commit", None)
        if parts is not None and not any(getattr(item, "originalname", "") in vars(part) for part in parts):
            item.add_marker(pytest.mark.full)
