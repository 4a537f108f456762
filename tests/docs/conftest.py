import pytest

from tests.worker.driving import Engine


@pytest.fixture
def engine() -> Engine:
    """An engine on an in-memory store."""
    return Engine()
